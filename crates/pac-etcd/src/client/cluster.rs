//! All members: requests go to one of them until it fails, then to the next.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use pac_core::Error;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::client::failure::{Cause, Effect, Failure};
use crate::client::{Answer, Client, Page, Range, Transaction};
use crate::options::Access;

/// The members of one cluster, and which of them is asked.
///
/// Its connections run on the runtime that it was made on, even if a task of another runtime is the
/// first to use them. A part of the process that must not depend on the application's runtime uses
/// a cluster with [connections of its own](Self::apart).
#[derive(Debug)]
pub(crate) struct Cluster {
    access: Arc<Access>,
    /// The client of each member; `None` until the member is asked, and after it could not be
    /// reached.
    members: Vec<Mutex<Option<Client>>>,
    current: AtomicUsize,
    runtime: Handle,
}

impl Cluster {
    pub(crate) fn new(access: Arc<Access>) -> Self {
        let first = fastrand::usize(..access.endpoints.len().max(1));
        Self::starting_at(access, first)
    }

    fn starting_at(access: Arc<Access>, first: usize) -> Self {
        let members = access.endpoints.iter().map(|_| Mutex::default()).collect();
        Self {
            access,
            members,
            current: AtomicUsize::new(first),
            runtime: Handle::current(),
        }
    }

    /// The same cluster over new connections, which run on the current runtime.
    pub(crate) fn apart(&self) -> Self {
        Self::starting_at(
            Arc::clone(&self.access),
            self.current.load(Ordering::Relaxed),
        )
    }

    /// How many members there are to ask.
    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    /// How long a request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.access.options.request_timeout
    }

    /// The member that is asked now.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len().max(1)
    }

    /// Asks the next member from now on, unless another task has turned away from this one already.
    pub(crate) fn turn_away_from(&self, member: usize) {
        let next = (member + 1) % self.members.len().max(1);
        let order = Ordering::Relaxed;
        let turned = self.current.compare_exchange(member, next, order, order);
        if turned.is_ok() && self.members.len() > 1 {
            let endpoint = self.access.endpoints.get(next);
            tracing::info!(endpoint, "asking another member of etcd");
        }
    }

    /// The connection to a member.
    pub(crate) async fn member(&self, member: usize) -> Result<Client, Failure> {
        let (Some(known), Some(endpoint)) =
            (self.members.get(member), self.access.endpoints.get(member))
        else {
            return Err(Failure::new(Cause::Unreachable, "there is no member"));
        };
        let opening = async {
            let mut known = known.lock().await;
            if let Some(client) = &*known {
                return Ok(client.clone());
            }
            let opening = On {
                runtime: &self.runtime,
                work: Box::pin(Client::open(endpoint, &self.access)),
            };
            Ok(known.insert(opening.await?).clone())
        };
        let failed = |failure: Failure| {
            // Opening asks for a token at most, so nothing can have changed.
            let unanswered = failure.cause == Cause::Unanswered;
            if unanswered {
                Failure::new(Cause::Unreachable, format!("{endpoint}: {failure}"))
            } else {
                failure
            }
        };
        match timeout(self.access.options.dial_timeout, opening).await {
            Ok(opened) => opened.map_err(failed),
            Err(_) => Err(failed(Failure::unanswered())),
        }
    }

    /// Gets another token of a member, after the old one was refused.
    pub(crate) async fn authenticate(&self, member: usize) -> Result<(), Failure> {
        let client = self.member(member).await?;
        client.authenticate(&self.access).await
    }

    /// Drops the client of a member, so that the next request reads password and certificates anew:
    /// outdated ones may be why the member cannot be reached.
    fn forget(&self, member: usize) {
        let known = self.members.get(member).map(Mutex::try_lock);
        if let Some(Ok(mut known)) = known {
            *known = None;
        }
    }

    /// Runs a transaction.
    pub(crate) async fn commit(
        &self,
        transaction: Transaction,
        operation: &'static str,
        effect: Effect,
    ) -> Result<Answer, Error> {
        let answer = self.transact(&transaction, effect).await;
        answer.map_err(|failure| failure.error(operation, effect))
    }

    /// Runs a transaction, for callers that tell failures apart.
    pub(crate) async fn transact(
        &self,
        transaction: &Transaction,
        effect: Effect,
    ) -> Result<Answer, Failure> {
        let request = |client: Client| async move { client.commit(transaction).await };
        self.call(effect, request).await
    }

    pub(crate) async fn range(&self, range: Range, operation: &'static str) -> Result<Page, Error> {
        let request = |client: Client| {
            let range = range.clone();
            async move { client.range(range).await }
        };
        let page = self.call(Effect::Read, request).await;
        page.map_err(|failure| failure.error(operation, Effect::Read))
    }

    /// Makes a request, and repeats it at another member where that is safe: a write only if it
    /// certainly did not happen. A refused token is renewed once.
    pub(crate) async fn call<T, F>(
        &self,
        effect: Effect,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let until = Instant::now() + self.request_timeout();
        let mut renewed = false;
        let mut asked = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // A read leaves half of the time to the next member.
            let patience = match effect {
                Effect::Read if asked + 1 < self.size() => left / 2,
                Effect::Read | Effect::Write => left,
            };
            let member = self.current();
            let watched = TurnAway(Some((self, member)));
            let failure = match self.ask(member, patience, &request).await {
                Ok(answer) => {
                    watched.done();
                    return Ok(answer);
                }
                Err(failure) => failure,
            };
            if failure.cause == Cause::Token && !renewed {
                watched.done();
                renewed = true;
                match timeout(left, self.authenticate(member)).await {
                    Ok(authenticated) => authenticated?,
                    Err(_) => return Err(Failure::new(Cause::Unreachable, "no new token in time")),
                }
                continue;
            }
            asked += 1;
            if matches!(failure.cause, Cause::Tls | Cause::Unreachable) {
                self.forget(member);
            }
            if !failure.may_pass_elsewhere() {
                watched.done();
                return Err(failure);
            }
            drop(watched);
            let safe = effect == Effect::Read || failure.changed_nothing();
            if !safe || asked >= self.size() || Instant::now() >= until {
                return Err(failure);
            }
        }
    }

    async fn ask<T, F>(
        &self,
        member: usize,
        patience: Duration,
        request: &impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let client = self.member(member).await?;
        match timeout(patience, request(client)).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::unanswered()),
        }
    }
}

/// A future that is polled within another runtime: the tasks that it spawns run there.
struct On<'a, F> {
    runtime: &'a Handle,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for On<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _entered = self.runtime.enter();
        self.work.as_mut().poll(context)
    }
}

/// Turns away from a member when it is dropped, unless [`done`](Self::done) was called: the request
/// failed, or its caller gave up before the answer came.
struct TurnAway<'a>(Option<(&'a Cluster, usize)>);

impl TurnAway<'_> {
    fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for TurnAway<'_> {
    fn drop(&mut self) {
        if let Some((cluster, member)) = self.0 {
            cluster.turn_away_from(member);
        }
    }
}
