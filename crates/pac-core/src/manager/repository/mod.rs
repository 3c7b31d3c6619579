//! One repository as a manager knows it: its cached state, the requests that wait to be combined
//! into the next commit, and who waits for a turn.
//!
//! A [`Repository`] is a state machine. Each of its methods is one input: it takes the world as
//! it is in an [`Env`], changes the repository, adds to [`Effects`] what has to happen outside,
//! and says in an [`Action`] what has to be done next. It does no I/O, knows no engine, channel,
//! clock or runtime, and is driven by tests exactly as by the manager.
//!
//! - [`holders`]: who wants to hear of the loss of a lease.
//! - [`inbox`]: requests that are pending or in flight.
//! - [`plan`]: inbox and state → what to do.
//! - [`apply`]: a snapshot → the new state, and its effects.
//! - [`reply`]: an outcome → the answers, and what is undone for askers that have gone.
//! - [`retry`]: after an attempt that came to nothing.
//! - [`rewind`]: after the store has gone back in time.
//!
//! [`Action`]: effects::Action

pub(in crate::manager) mod apply;
pub(in crate::manager) mod canonical;
pub(in crate::manager) mod effects;
pub(in crate::manager) mod env;
pub(in crate::manager) mod holders;
pub(in crate::manager) mod inbox;
pub(in crate::manager) mod plan;
pub(in crate::manager) mod reply;
pub(in crate::manager) mod request;
pub(in crate::manager) mod retry;
pub(in crate::manager) mod rewind;
pub(in crate::manager) mod settle;
pub(in crate::manager) mod shared;
pub(in crate::manager) mod waiters;

use std::sync::Arc;

use effects::{Effects, EndOfWaiting, Grant};
use env::{Env, Port};
use holders::Holder;
pub use holders::HolderId;
use inbox::Inbox;
use request::{Listener, Request, RequestId};
use retry::Retry;
use shared::SharedSlots;
use waiters::Waiters;

use tokio::time::Instant;

use crate::error::{Error, ErrorKind};
use crate::event::LeaseLoss;
use crate::hash::HashMap;
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::protocol::Command;
use crate::state::{Entry, RepositoryState};
use crate::value::{FencingToken, Revision, SessionId, Ticket, Timestamp, Version};

/// So many sessions before are remembered: the runs of older ones have been seen to long since.
const FORMER_SESSIONS: usize = 16;

/// See the module.
#[derive(Debug)]
pub struct Repository<P: Port> {
    key: RepositoryKey,
    /// As of the newest snapshot; `None` until it is read for the first time, and when what was
    /// read did not add up.
    state: Option<RepositoryState>,
    /// The newest version that was ever known in this history of the store: an answer from before
    /// is no news.
    floor: Version,
    /// The store is said to be at this revision, or a later one.
    wanted: Revision,
    /// Read before anything else: hints may have been lost.
    recheck: bool,
    /// A read is on its way.
    reading: bool,
    /// It is a read of everything.
    asked_all: bool,
    /// What [`floor`](Self::floor) was when it began.
    asked_above: Version,
    /// How many queued and started entries of `state` are this session's.
    owned_count: usize,
    /// This manager's entries as they were when the state was forgotten: what has become of them
    /// since is news.
    forgotten: HashMap<PipelineRunKey, Arc<Entry>>,
    /// The counters that were known before the store went back in time, once it has: tickets and
    /// tokens count on from there.
    given_out: Option<Box<(Ticket, FencingToken)>>,
    /// Sessions that a commit found to be dead, until their entries say so.
    dead: Vec<SessionId>,
    /// The session of this manager at the last input, and those before.
    session: SessionId,
    former: Vec<SessionId>,
    inbox: Inbox<P>,
    retry: Retry,
    /// Grants that the answer to a request is to carry.
    deferred: Vec<Grant>,
    waiters: Waiters<P>,
    shared: SharedSlots,
    /// Holders that want to hear when their lease is lost.
    holders: Vec<Holder<P>>,
    next_holder: u64,
    /// How many follow the state.
    watchers: usize,
    /// The combiner's right is taken: somebody sees to what is pending.
    busy: bool,
    /// Why nothing is taken in any more.
    ended: Option<Box<Error>>,
}

impl<P: Port> Repository<P> {
    /// A repository of which nothing is known yet, for a manager with this session, which had
    /// the `former` ones before.
    #[must_use]
    pub fn new(key: RepositoryKey, session: SessionId, former: Vec<SessionId>) -> Self {
        Self {
            key,
            state: None,
            floor: Version::default(),
            wanted: Revision::default(),
            recheck: false,
            reading: false,
            asked_all: false,
            asked_above: Version::default(),
            owned_count: 0,
            forgotten: HashMap::default(),
            given_out: None,
            dead: Vec::new(),
            session,
            former,
            inbox: Inbox::default(),
            retry: Retry::default(),
            deferred: Vec::new(),
            waiters: Waiters::default(),
            shared: SharedSlots::default(),
            holders: Vec::new(),
            next_holder: 0,
            watchers: 0,
            busy: false,
            ended: None,
        }
    }

    /// Which repository.
    #[must_use]
    pub fn key(&self) -> &RepositoryKey {
        &self.key
    }

    /// The cached state, if there is one.
    #[must_use]
    pub fn state(&self) -> Option<&RepositoryState> {
        self.state.as_ref()
    }

    /// The version of the cached state, if there is one.
    #[must_use]
    pub fn version(&self) -> Option<Version> {
        Some(self.state.as_ref()?.head().version())
    }

    /// The revision of that version.
    #[must_use]
    pub fn revision(&self) -> Option<Revision> {
        Some(self.version()?.revision)
    }

    /// The newest version that was ever known in this history of the store.
    #[must_use]
    pub fn floor(&self) -> Version {
        self.floor
    }

    /// Whether somebody has the combiner's right.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.busy
    }

    /// Whether an asker waits for what is done next.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        let mut pending = self.inbox.pending.iter();
        // A sweep is the manager's own, and goes behind its callers.
        pending.any(|request| {
            request.is_awaited() && !matches!(request.command, Command::Expire { .. })
        })
    }

    /// The asker of a request leaves the call that submitted it, and waits for the answer at the
    /// other end of `asker`, in vain from `deadline` on. Gives the end back when the request has
    /// been answered.
    pub fn listen(
        &mut self,
        request: RequestId,
        asker: P::Asker,
        deadline: Option<Instant>,
    ) -> Option<P::Asker> {
        self.inbox.listen(request, asker, deadline)
    }

    /// The asker of a request has waited for as long as it will: says what it is to be told;
    /// `None` when the answer is on its way already.
    pub fn on_asker_late(&mut self, request: RequestId, now: Instant) -> Option<Error> {
        let trouble = self.retry.trouble.as_deref();
        self.inbox.asker_times_out(request, trouble, now)
    }

    /// How many requests wait to be planned.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.inbox.pending.len()
    }

    /// Whether nothing would be lost if this record was made anew.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        !self.is_of_interest() && !self.busy
    }

    /// Whether hints matter: a run of this manager's waits or runs, also one that another manager
    /// has found to be orphaned, or somebody watches.
    #[must_use]
    pub fn is_of_interest(&self) -> bool {
        self.watchers > 0
            || self.owned_count > 0
            || !self.holders.is_empty()
            || !self.forgotten.is_empty()
            || !self.waiters.is_empty()
    }

    /// The first time at which a run's time is over, and whether that run is this manager's; `None`
    /// where none has an end.
    #[must_use]
    pub fn first_deadline(&self) -> Option<(Timestamp, bool)> {
        let (deadline, first) = self.state.as_ref()?.deadlines().next()?;
        Some((deadline, first.owner() == Some(self.session)))
    }

    /// Submits requests that are planned together and in this order. True when the caller gets
    /// the combiner's right with that, and has to see to them.
    ///
    /// Refused once the repository has ended: each is then answered with why.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn submit(
        &mut self,
        env: &Env,
        requests: impl ExactSizeIterator<Item = Request<P>>,
        effects: &mut Effects<P>,
    ) -> (RequestId, bool) {
        self.note_session(env);
        let mut first = None;
        let mut group = requests.len();
        let mut hurries = group > 1;
        for request in requests {
            hurries |= !request.may_wait();
            let own = request.is_own();
            let id = self.inbox.push(request, group);
            first.get_or_insert(id);
            group -= 1;
            if let Some(why) = self.ended.as_deref().filter(|_| !own)
                && let Some(mut refused) = self.inbox.pending.pop_back()
            {
                refused.fail(why, effects);
            }
        }
        effects.wake |= self.reading || (hurries && self.retry.is_holding());
        let lead = !self.inbox.pending.is_empty() && self.take_right();
        (first.unwrap_or_default(), lead)
    }

    /// Submits a command whose answer is awaited even though the repository may have
    /// [ended](Self::end): the one with which a manager gives back what it has. As
    /// [`submit`](Self::submit) else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn submit_last_will(
        &mut self,
        env: &Env,
        command: Command,
        asker: P::Asker,
        effects: &mut Effects<P>,
    ) -> bool {
        self.note_session(env);
        let deadline = env.now.checked_add(env.command_timeout);
        let request = Request::new(command, Listener::Channel(asker), deadline);
        self.inbox.push(request, 1);
        self.needs_attention(effects)
    }

    /// Submits a command of the manager's own. As [`submit`](Self::submit) else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn submit_own(&mut self, env: &Env, command: Command, effects: &mut Effects<P>) -> bool {
        self.note_session(env);
        if matches!(command, Command::TimeOut { .. }) && self.inbox.has_time_out() {
            // One at a time: the next one comes as long as there is reason for it.
            return false;
        }
        self.inbox.add(command);
        self.needs_attention(effects)
    }

    /// True when the caller gets the combiner's right, because something came without a request.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn needs_attention(&mut self, effects: &mut Effects<P>) -> bool {
        effects.wake |= self.retry.is_holding();
        let interest = self.is_of_interest() && (self.recheck || self.is_behind());
        (interest || !self.inbox.pending.is_empty()) && self.take_right()
    }

    fn take_right(&mut self) -> bool {
        !std::mem::replace(&mut self.busy, true)
    }

    /// Hints may have been lost: the state is read again, now if that matters to anybody, else
    /// when it is next used. As [`submit`](Self::submit) else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn look_again(&mut self, effects: &mut Effects<P>) -> bool {
        self.recheck = true;
        self.needs_attention(effects)
    }

    /// The store was just seen at `version`. As [`look_again`](Self::look_again) else.
    #[must_use = "a right that nobody has leaves the repository unattended for good"]
    pub fn look_if_behind(&mut self, version: Version, effects: &mut Effects<P>) -> bool {
        self.wanted = self.wanted.max(version.revision);
        // It was seen before the last commit, or the store has gone back in time: a read tells.
        self.recheck |= version.is_rewound_from(self.floor);
        self.needs_attention(effects)
    }

    /// A session is dead at the store: nothing is granted to it from here on.
    pub fn note_dead(&mut self, session: SessionId) {
        if !self.dead.contains(&session) {
            self.dead.push(session);
        }
    }

    /// This manager has another session than at the last input: the one before is a former one.
    fn note_session(&mut self, env: &Env) {
        if self.session == env.session {
            return;
        }
        self.former.push(self.session);
        if self.former.len() > FORMER_SESSIONS {
            self.former.remove(0);
        }
        self.session = env.session;
        self.recount();
    }

    /// Whether a session was this manager's, or is one that it has lost.
    fn was_ours(&self, env: &Env, session: SessionId) -> bool {
        self.former.contains(&session) || (session == env.session && env.session_lost)
    }

    /// Another watcher follows the state. False when the repository has ended.
    pub fn watch(&mut self) -> bool {
        self.watchers += 1;
        self.ended.is_none()
    }

    /// A watcher has gone.
    pub fn unwatch(&mut self) {
        self.watchers = self.watchers.saturating_sub(1);
    }

    /// The manager closes, or has ended: every asker, waiter and holder is told why. Commands of
    /// the manager's own are still carried out.
    pub fn end(&mut self, why: &Error, effects: &mut Effects<P>) {
        if self.ended.is_some() {
            return;
        }
        self.ended = Some(Box::new(why.replicate()));
        let (own, asked): (Vec<_>, Vec<_>) = std::mem::take(&mut self.inbox.pending)
            .into_iter()
            .partition(Request::is_own);
        self.inbox.pending.extend(own);
        for mut request in asked {
            request.fail(why, effects);
        }
        for planned in &mut self.inbox.in_flight {
            // It may be carried out all the same. What it asks for then ends with the session; what
            // it changes stays.
            if !planned.request.admits() {
                planned.note_uncertain();
            }
            planned.request.fail(why, effects);
        }
        let over = |_: &PipelineRunKey, _| Some(EndOfWaiting::Failed(why.replicate()));
        self.waiters.end_where(over, effects);
        for holder in std::mem::take(&mut self.holders) {
            effects.losses.push((holder.loss, LeaseLoss::Closed));
        }
    }

    /// The combiner's right was dropped: by a panic, or because the runtime was shut down.
    pub fn right_was_dropped(&mut self, why: &Error, effects: &mut Effects<P>) {
        self.busy = false;
        self.reading = false;
        for planned in &mut self.inbox.in_flight {
            planned.note_uncertain();
        }
        self.inbox.put_back();
        for mut request in std::mem::take(&mut self.inbox.pending) {
            if request.gives_back() {
                self.inbox.pending.push_back(request);
                continue;
            }
            if request.fail(why, effects) && request.may_leave_something() {
                self.inbox.pending.push_back(request);
            }
        }
        self.recheck = true;
    }

    /// Whether the store is known to be at another revision than the state.
    fn is_behind(&self) -> bool {
        self.wanted > self.known()
    }

    /// The revision of the state; 0 without one.
    fn known(&self) -> Revision {
        self.version().unwrap_or_default().revision
    }

    /// Counts this manager's entries, after the state or the session was replaced.
    fn recount(&mut self) {
        let session = Some(self.session);
        let entries = self.state.iter().flat_map(RepositoryState::entries);
        self.owned_count = entries.filter(|entry| entry.owner() == session).count();
    }

    fn corrupt(&self, reason: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        Error::new(ErrorKind::Corrupt, "read", reason).in_repository(&self.key)
    }
}
