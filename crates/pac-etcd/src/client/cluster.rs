//! All members: requests go to one of them until it fails, then to the next.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pac_core::Error;
use pac_core::driver::Finding;
use pac_core::effect::Effect;
use tokio::runtime::Handle;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::signs::Signs;
use crate::client::failure::{Cause, Failure};
use crate::client::{Answer, Client, Page, Range, SILENCE, Standing, Transaction};
use crate::options::Access;

/// The most of a request's time that one member may take to say its first word, while there are
/// others to ask.
const SHARE: Duration = Duration::from_secs(3);

/// No request is waited for longer, whatever the settings say: a moment that is farther away cannot
/// always be told.
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

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
    signs: Arc<Signs>,
    runtime: Handle,
}

impl Cluster {
    pub(crate) fn new(access: Arc<Access>) -> Self {
        let first = fastrand::usize(..access.endpoints.len().max(1));
        Self::over(access, Arc::new(Signs::new(first)))
    }

    fn over(access: Arc<Access>, signs: Arc<Signs>) -> Self {
        let members = access.endpoints.iter().map(|_| Mutex::default()).collect();
        Self {
            access,
            members,
            signs,
            runtime: Handle::current(),
        }
    }

    /// The same cluster over new connections, which run on the current runtime. A member that one
    /// of the two turns away from is left by the other too.
    pub(crate) fn apart(&self) -> Self {
        Self::over(Arc::clone(&self.access), Arc::clone(&self.signs))
    }

    /// What an operator should know of how the members are reached.
    pub(crate) async fn findings(&self) -> Vec<Finding> {
        self.access.findings().await
    }

    /// How many members there are to ask.
    pub(crate) fn size(&self) -> usize {
        self.members.len()
    }

    /// How long a request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.access.options.request_timeout.min(LONGEST_WAIT)
    }

    /// How long the first request may take, for which members have to be found that can be reached.
    fn connect_timeout(&self) -> Duration {
        self.request_timeout()
            .max(self.access.options.dial_timeout)
            .min(LONGEST_WAIT)
    }

    /// The member that is asked now.
    pub(crate) fn current(&self) -> usize {
        self.signs.current() % self.members.len().max(1)
    }

    /// Asks the next member from now on, unless another task has turned away from this one already.
    pub(crate) fn turn_away_from(&self, member: usize) {
        let next = (member + 1) % self.members.len().max(1);
        if self.signs.turn(member, next) {
            let endpoint = self.access.endpoints.get(next);
            tracing::info!(endpoint, "asking another member of etcd");
        }
    }

    /// Waits until another member than this one is asked. Cancel-safe.
    pub(crate) async fn turned_away_from(&self, member: usize) {
        self.signs.turned_away_from(member).await;
    }

    /// Waits before another attempt: for this long, or until a member answers any request of this
    /// driver, renewals included. Cancel-safe.
    pub(crate) async fn pause(&self, longest: Duration) {
        self.signs.pause(longest).await;
    }

    /// Notes that a member has answered what was not [called](Self::call), as a renewal.
    pub(crate) fn answered(&self) {
        self.signs.answered();
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
        // Opening asks for a token at most, so nothing can have changed.
        match timeout(self.access.options.dial_timeout, opening).await {
            Ok(opened) => opened,
            Err(_) => Err(Failure::unanswered()),
        }
        .map_err(|failure| failure.before_the_request().at(endpoint))
    }

    /// Gets another token of a member, after the old one was refused.
    pub(crate) async fn authenticate(&self, member: usize) -> Result<(), Failure> {
        let client = self.member(member).await?;
        let authenticated = client.authenticate(&self.access).await;
        authenticated.map_err(|failure| self.named(member, failure))
    }

    /// Drops the client of a member. The next request reads password and certificates anew, since
    /// outdated ones may be why the member cannot be reached, and sends nothing before the member
    /// has said something.
    pub(crate) fn forget(&self, member: usize) {
        let known = self.members.get(member).map(Mutex::try_lock);
        if let Some(Ok(mut known)) = known {
            *known = None;
        }
    }

    /// What the member says of itself that is asked now.
    pub(crate) async fn standing(&self) -> Result<Standing, Failure> {
        let standing = |client: Client| async move { client.standing().await };
        self.call(Effect::Read, standing).await
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

    /// Runs the first transaction, which changes nothing. It has the time that it takes to connect.
    pub(crate) async fn first(&self, transaction: &Transaction) -> Result<Answer, Failure> {
        let request = |client: Client| async move { client.commit(transaction).await };
        let until = Instant::now() + self.connect_timeout();
        self.call_until(until, Effect::Read, request).await
    }

    pub(crate) async fn range(&self, range: Range, operation: &'static str) -> Result<Page, Error> {
        let page = self.read(range).await;
        page.map_err(|failure| failure.error(operation, Effect::Read))
    }

    /// Reads a page, for callers that tell failures apart.
    pub(crate) async fn read(&self, range: Range) -> Result<Page, Failure> {
        let request = |client: Client| {
            let range = range.clone();
            async move { client.range(range).await }
        };
        self.call(Effect::Read, request).await
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
        self.call_until(until, effect, request).await
    }

    async fn call_until<T, F>(
        &self,
        until: Instant,
        effect: Effect,
        request: impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let mut renewed = false;
        let mut asked = 0;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // The next member is left half of the time.
            let share = if asked + 1 < self.size() {
                (left / 2).min(SHARE)
            } else {
                left
            };
            let member = self.current();
            let watched = TurnAway::watching(self, member);
            let failure = match self.ask(member, effect, (share, left), &request).await {
                Ok(answer) => {
                    watched.done();
                    self.signs.answered();
                    return Ok(answer);
                }
                Err(failure) => self.named(member, failure),
            };
            if failure.cause == Cause::Token && !renewed {
                watched.done();
                renewed = true;
                let left = until.saturating_duration_since(Instant::now());
                match timeout(left, self.authenticate(member)).await {
                    Ok(authenticated) => authenticated?,
                    Err(_) => {
                        let late = Failure::new(Cause::Unreachable, "no new token in time");
                        return Err(self.named(member, late));
                    }
                }
                continue;
            }
            asked += 1;
            if failure.is_unheard() || matches!(failure.cause, Cause::Tls(_)) {
                self.forget(member);
            }
            if !failure.may_pass_elsewhere() {
                watched.done();
                return Err(failure);
            }
            watched.done();
            self.turn_away_from(member);
            self.signs.not_answered();
            let safe = effect.may_be_repeated() || failure.changed_nothing();
            if !safe || asked >= self.size() || Instant::now() >= until {
                return Err(failure);
            }
        }
    }

    /// Asks a member that may take `share` to be reached, and for a read to answer; a write has
    /// all that is `left`.
    async fn ask<T, F>(
        &self,
        member: usize,
        effect: Effect,
        (share, left): (Duration, Duration),
        request: &impl Fn(Client) -> F,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let begun = Instant::now();
        let client = match timeout(share, self.member(member)).await {
            Ok(client) => client?,
            Err(_) => return Err(Failure::unanswered().before_the_request()),
        };
        let patience = if effect.may_be_repeated() {
            share
        } else {
            left
        };
        let patience = patience.saturating_sub(begun.elapsed());
        let answer = self.heard(&client, request(client.clone()));
        match timeout(patience, answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failure::unanswered()),
        }
    }

    /// Waits for an answer for as long as the member is not silent, if there is another one.
    async fn heard<T>(
        &self,
        client: &Client,
        answer: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let mut answer = pin!(answer);
        if self.size() > 1 {
            let is_silent = async {
                sleep(SILENCE).await;
                !client.is_heard().await
            };
            tokio::select! {
                biased;
                answer = &mut answer => return answer,
                silent = is_silent => if silent {
                    return Err(Failure::unanswered());
                }
            }
        }
        answer.await
    }

    fn named(&self, member: usize, failure: Failure) -> Failure {
        match self.access.endpoints.get(member) {
            Some(endpoint) => failure.at(endpoint),
            None => failure,
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

/// Turns away from a member when it is dropped before [`done`](Self::done) was called: the caller
/// of a request gave up, after the member was silent for a while.
struct TurnAway<'a> {
    cluster: &'a Cluster,
    member: usize,
    since: Option<Instant>,
}

impl<'a> TurnAway<'a> {
    fn watching(cluster: &'a Cluster, member: usize) -> Self {
        Self {
            cluster,
            member,
            since: Some(Instant::now()),
        }
    }

    fn done(mut self) {
        self.since = None;
    }
}

impl Drop for TurnAway<'_> {
    fn drop(&mut self) {
        if self.since.is_some_and(|since| since.elapsed() >= SILENCE) {
            self.cluster.turn_away_from(self.member);
        }
    }
}
