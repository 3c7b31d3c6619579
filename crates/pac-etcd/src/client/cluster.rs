//! All members: requests go to one of them until it fails, then to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pac_core::Error;
use tokio::sync::OnceCell;
use tokio::time::{Instant, timeout};

use crate::client::failure::{Cause, Effect, Failure};
use crate::client::{Answer, Client, Page, Range, Transaction};
use crate::options::Access;

/// The members of one cluster, and which of them is asked.
///
/// Its connections live on the runtime that they were first used on: a part of the process
/// that must not depend on the application's runtime has [its own](Self::apart).
#[derive(Debug)]
pub(crate) struct Cluster {
    access: Arc<Access>,
    members: Vec<OnceCell<Client>>,
    current: AtomicUsize,
}

impl Cluster {
    pub(crate) fn new(access: Arc<Access>) -> Self {
        let first = fastrand::usize(..access.endpoints.len().max(1));
        Self::starting_at(access, first)
    }

    fn starting_at(access: Arc<Access>, first: usize) -> Self {
        let members = access.endpoints.iter().map(|_| OnceCell::new()).collect();
        Self {
            access,
            members,
            current: AtomicUsize::new(first),
        }
    }

    /// The same cluster over connections of its own.
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
        self.access.request_timeout
    }

    /// The member that is asked now.
    pub(crate) fn current(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.members.len().max(1)
    }

    /// Asks the next member from now on, unless somebody has turned away from this one already.
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
        let (Some(cell), Some(endpoint)) =
            (self.members.get(member), self.access.endpoints.get(member))
        else {
            return Err(Failure::new(Cause::Unreachable, "there is no member"));
        };
        let opening = cell.get_or_try_init(|| Client::open(endpoint, &self.access));
        let failed = |failure: Failure| {
            // Nothing but a token was asked for.
            let unanswered = failure.cause == Cause::Unanswered;
            if unanswered {
                Failure::new(Cause::Unreachable, format!("{endpoint}: {failure}"))
            } else {
                failure
            }
        };
        match timeout(self.access.dial_timeout, opening).await {
            Ok(opened) => opened.cloned().map_err(failed),
            Err(_) => Err(failed(Failure::unanswered())),
        }
    }

    /// Reads or writes all that a transaction says.
    pub(crate) async fn commit(
        &self,
        transaction: Transaction,
        operation: &'static str,
        effect: Effect,
    ) -> Result<Answer, Error> {
        let answer = self.transact(&transaction, effect).await;
        answer.map_err(|failure| failure.error(operation, effect))
    }

    /// The same for who makes a difference between failures.
    pub(crate) async fn transact(
        &self,
        transaction: &Transaction,
        effect: Effect,
    ) -> Result<Answer, Failure> {
        let request = |client: Client| {
            let transaction = transaction.clone();
            async move { client.commit(transaction).await }
        };
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

    /// Makes a request, of another member too where that is safe: of a write, only when it
    /// certainly did not happen. A token that was refused is renewed once.
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
            // A read leaves time to ask somebody else.
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
                let client = self.member(member).await?;
                match timeout(left, client.authenticate()).await {
                    Ok(authenticated) => authenticated?,
                    Err(_) => return Err(Failure::new(Cause::Unreachable, "no new token in time")),
                }
                continue;
            }
            asked += 1;
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

/// Turns away from a member that did not answer before whoever asked gave up.
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
