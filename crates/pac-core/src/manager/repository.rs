//! One repository as a manager knows it: its cached state, the commands that wait to be
//! combined into the next commit, and who waits for a turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::request::Request;
use super::view::{RepositoryStatus, WaitReason, wait_reason};
use super::waiting::{Grant, Waiting};
use crate::error::{Error, ErrorKind};
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::protocol::{Command, Outcome};
use crate::state::{Entry, EntryState, Head, RepositoryState};
use crate::value::{Revision, SessionId};

/// Between attempts at a store that cannot be reached: doubles, with jitter.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(2))
    .with_max_delay(LONGEST_BACKOFF)
    .with_jitter()
    .without_max_times();
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

/// Between attempts that others were faster at: the longest must stay near the time of a
/// commit, or who has lost once goes on losing.
const CONTENTION: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(1))
    .with_max_delay(LONGEST_CONTENTION)
    .with_jitter()
    .without_max_times();

/// The longest such pause, and how long an admission waits for company.
const LONGEST_CONTENTION: Duration = Duration::from_millis(20);
/// Who loses a commit twice within so long contends with others, and for so long afterwards: once may
/// be no more than a state that was not followed.
const CONTENDED: Duration = Duration::from_millis(100);

/// A commit that others were faster at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lost {
    at: Instant,
    /// And not the first one lately.
    again: bool,
}

/// Admissions that wait for something to go along with.
#[derive(Debug, Clone)]
pub(super) struct Hold {
    /// The longest that they wait.
    pub(super) until: Instant,
    /// Something has come.
    pub(super) nudge: Arc<Notify>,
}

/// How to go on after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing is left to do.
    Rest,
    /// Plan again.
    Plan,
    /// Plan again after a while.
    PlanAfter(Duration),
}

/// See the module.
#[derive(Debug)]
pub(super) struct Repository {
    key: RepositoryKey,
    desk: Mutex<Desk>,
}

/// What the lock of a [`Repository`] guards. Only ever held between two awaits, and never while
/// another one is taken.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// As of the newest snapshot; `None` until read for the first time, and when what was read
    /// did not add up.
    pub(super) state: Option<RepositoryState>,
    /// There was a state, and something of ours may be in it.
    pub(super) lost_track: bool,
    /// The store is said to be at this revision, or a later one.
    pub(super) wanted: Revision,
    /// Read before anything else: hints may have been lost.
    pub(super) recheck: bool,
    /// In the order in which they came.
    pub(super) pending: VecDeque<Request>,
    /// In the commit that is on its way, with what each comes to if that succeeds.
    pub(super) in_flight: Vec<(Request, Outcome)>,
    /// What that commit was planned at.
    pub(super) planned_at: Revision,
    /// The last commit that others were faster at.
    pub(super) lost: Option<Lost>,
    /// What is pending waits, or has waited, for something to go along with.
    pub(super) hold: Option<Hold>,
    /// That commit is not large enough for all that its commands would change.
    pub(super) more: bool,
    pub(super) next_serial: u64,
    /// Requests before this one were put in before the state was last read.
    pub(super) covered: u64,
    /// Somebody has the [`Duty`](super::lane::Duty) to see to what is pending.
    pub(super) attended: bool,
    pub(super) backoff: Option<ExponentialBackoff>,
    /// Grants that the answer to a request is to carry.
    pub(super) deferred: Vec<Grant>,
    /// The last read was of everything.
    pub(super) asked_all: bool,
    /// Sessions that a commit found to be dead, until their entries say so.
    pub(super) dead: Vec<SessionId>,
    pub(super) waiting: Waiting,
    /// How many queued and started entries of `state` are this session's.
    pub(super) own: usize,
    /// Counts the states that watchers could have seen.
    pub(super) steps: Option<watch::Sender<u64>>,
}

impl Lost {
    fn is_recent(self) -> bool {
        self.at.elapsed() < CONTENDED
    }
}

impl Repository {
    pub(super) fn new(key: RepositoryKey) -> Self {
        Self {
            key,
            desk: Mutex::default(),
        }
    }

    pub(super) fn key(&self) -> &RepositoryKey {
        &self.key
    }

    pub(super) fn desk(&self) -> MutexGuard<'_, Desk> {
        // A panic under this lock is a bug that the duty's end reports; what is cached is
        // checked against the store by every commit.
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn status(&self) -> Option<RepositoryStatus> {
        let desk = self.desk();
        let state = desk.state.as_ref()?;
        Some(RepositoryStatus::of(&self.key, state))
    }

    pub(super) fn revision(&self) -> Option<Revision> {
        Some(self.desk().state.as_ref()?.head().revision)
    }

    /// 1 is next.
    pub(super) fn position(&self, run: &PipelineRunKey) -> Option<usize> {
        let desk = self.desk();
        Some(desk.state.as_ref()?.position(run)? + 1)
    }

    pub(super) fn wait_reason(&self, run: &PipelineRunKey) -> Option<WaitReason> {
        let desk = self.desk();
        let state = desk.state.as_ref()?;
        let EntryState::Queued { owner } = state.entry(run)?.state else {
            return None;
        };
        Some(wait_reason(state, owner, state.position(run)?))
    }

    pub(super) fn ahead(&self, run: &PipelineRunKey) -> Vec<PipelineRunKey> {
        let desk = self.desk();
        let Some(state) = desk.state.as_ref() else {
            return Vec::new();
        };
        let ahead = state.position(run).unwrap_or(0);
        let before = state.queue().take(ahead);
        before.map(|entry| entry.run.clone()).collect()
    }

    /// Counts states from now on, for a watcher.
    pub(super) fn steps(&self) -> watch::Receiver<u64> {
        let mut desk = self.desk();
        // 1: there is a state to be seen from the start.
        let steps = desk.steps.get_or_insert_with(|| watch::Sender::new(1));
        steps.subscribe()
    }

    /// The manager has ended: whoever waits or watches here hears that nothing more will come.
    pub(super) fn end(&self) {
        let mut desk = self.desk();
        desk.steps = None;
        let waiting = std::mem::take(&mut desk.waiting);
        drop(desk);
        drop(waiting);
    }
}

impl Desk {
    /// Puts requests in that belong together. True when the caller has to see to them.
    #[must_use = "a duty that nobody has leaves the repository unattended for good"]
    pub(super) fn submit(&mut self, requests: impl ExactSizeIterator<Item = Request>) -> bool {
        let mut group = requests.len();
        let mut hurries = false;
        for request in requests {
            let serial = self.serial();
            let request = Request {
                serial,
                group,
                ..request
            };
            hurries |= !request.may_wait();
            self.pending.push_back(request);
            group -= 1;
        }
        if hurries {
            self.nudge();
        }
        self.take_duty()
    }

    /// Puts a request in that takes a run back, before those that may ask for it anew. As
    /// [`submit`](Self::submit) else.
    #[must_use = "a duty that nobody has leaves the repository unattended for good"]
    pub(super) fn submit_first(&mut self, request: Request) -> bool {
        let serial = self.serial();
        self.pending.push_front(Request { serial, ..request });
        self.nudge();
        self.take_duty()
    }

    fn serial(&mut self) -> u64 {
        let serial = self.next_serial;
        self.next_serial += 1;
        serial
    }

    /// Puts a command of the manager's own in, to be seen to by whoever is at it, or asks
    /// [`needs_attention`](Self::needs_attention) next.
    pub(super) fn add(&mut self, command: Command) {
        self.pending.push_back(Request::new(command, None));
    }

    /// The same for a command that takes a run back, before those that may ask for it anew.
    pub(super) fn add_first(&mut self, command: Command) {
        self.pending.push_front(Request::new(command, None));
    }

    /// Who asks for a run by the commit that is on its way, and has it if nobody else wants it.
    pub(super) fn heir(&mut self, entry: &Entry) -> Option<&mut Request> {
        let mut requests = self.in_flight.iter_mut().map(|(request, _)| request);
        requests.find(|request| request.is_awaited() && request.asks_for(entry))
    }

    /// True when the caller has to see to something that came without a request.
    #[must_use = "a duty that nobody has leaves the repository unattended for good"]
    pub(super) fn needs_attention(&mut self) -> bool {
        self.nudge();
        let interest = self.is_of_interest() && (self.recheck || self.is_behind());
        (interest || !self.pending.is_empty()) && self.take_duty()
    }

    fn take_duty(&mut self) -> bool {
        !std::mem::replace(&mut self.attended, true)
    }

    /// Something has come that does not wait.
    fn nudge(&self) {
        if let Some(hold) = &self.hold {
            hold.nudge.notify_one();
        }
    }

    /// How long to wait for something to go along with, if at all.
    pub(super) fn hold_back(&mut self) -> Option<Hold> {
        if !self.may_be_held_back() {
            return None;
        }
        let now = Instant::now();
        let hold = self.hold.get_or_insert_with(|| Hold {
            until: now + LONGEST_CONTENTION,
            nudge: Arc::default(),
        });
        (hold.until > now).then(|| hold.clone())
    }

    /// Others were faster.
    pub(super) fn note_lost(&mut self) {
        self.lost = Some(Lost {
            at: Instant::now(),
            again: self.lost.is_some_and(Lost::is_recent),
        });
    }

    /// Whether all that is pending asks for a slot where none is free, somebody waits already, and
    /// others are changing that: every commit for that alone may cost somebody a conflict who has a
    /// slot to give on.
    pub(super) fn may_be_held_back(&self) -> bool {
        let contended = self.lost.is_some_and(|lost| lost.again && lost.is_recent());
        let full = |head: &Head| head.queued > 0 && !head.limit.admits(head.started);
        contended
            && !self.has_to_read()
            && !self.pending.is_empty()
            && self.pending.iter().all(Request::may_wait)
            && self.state.as_ref().is_some_and(|state| full(state.head()))
    }

    /// Takes in a hint.
    pub(super) fn is_said_to_be_at(&mut self, revision: Revision) {
        self.wanted = self.wanted.max(revision);
    }

    pub(super) fn is_behind(&self) -> bool {
        self.wanted > self.known()
    }

    /// The revision of the state; 0 without one.
    pub(super) fn known(&self) -> Revision {
        let state = self.state.as_ref();
        state.map(|state| state.head().revision).unwrap_or_default()
    }

    /// Whether nothing would be lost if this record was made anew.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_of_interest() && !self.attended
    }

    /// Whether hints matter: a run of ours waits or runs, or somebody watches.
    pub(super) fn is_of_interest(&self) -> bool {
        let watched = self
            .steps
            .as_ref()
            .is_some_and(|steps| steps.receiver_count() > 0);
        watched || self.own > 0 || self.lost_track || !self.waiting.is_empty()
    }

    /// Whether this very run is about to be given up.
    pub(super) fn gives_up(&self, entry: &Entry) -> bool {
        self.requests().any(|request| match &request.command {
            Command::Abandon { run, ticket, .. } => *run == entry.run && *ticket == entry.ticket,
            _ => false,
        })
    }

    fn requests(&self) -> impl Iterator<Item = &Request> {
        let in_flight = self.in_flight.iter().map(|(request, _)| request);
        in_flight.chain(&self.pending)
    }

    /// Takes out the grants that no request is left to carry.
    pub(super) fn undelivered(&mut self) -> Vec<Grant> {
        if self.deferred.is_empty() {
            return Vec::new();
        }
        let deferred = std::mem::take(&mut self.deferred);
        let (kept, left) = deferred.into_iter().partition(|grant| {
            self.requests()
                .any(|request| request.asks_for(&grant.entry))
        });
        self.deferred = kept;
        left
    }

    /// What was in flight is pending again, before all that came later.
    pub(super) fn put_back(&mut self) {
        while let Some((request, _)) = self.in_flight.pop() {
            self.pending.push_front(request);
        }
    }

    /// What was read does not add up: nothing is known.
    pub(super) fn forget(&mut self) {
        let Some(state) = self.state.take() else {
            self.recheck = true;
            return;
        };
        for entry in state.queue().filter(|entry| entry.owner().is_some()) {
            self.waiting.leave(&entry.run);
        }
        self.lost_track = true;
        self.recheck = true;
        self.own = 0;
    }

    /// Counts what is ours, after the state or the session was replaced.
    pub(super) fn recount(&mut self, session: SessionId) {
        let state = self.state.as_ref();
        let entries = state.into_iter().flat_map(RepositoryState::entries);
        self.own = entries
            .filter(|entry| entry.owner() == Some(session))
            .count();
    }

    /// A session was found to be dead by a commit to this repository.
    pub(super) fn bury(&mut self, session: SessionId, expire: Command) {
        if !self.dead.contains(&session) {
            self.dead.push(session);
            self.pending.push_front(Request::new(expire, None));
        }
    }

    /// An attempt came to nothing: whoever has waited for too long hears of it, or everybody
    /// when trying again would not help.
    pub(super) fn failed(&mut self, timeout: Duration, error: &Error) -> Next {
        let kind = error.kind();
        let again = matches!(
            kind,
            ErrorKind::Unavailable
                | ErrorKind::Contended
                | ErrorKind::Indeterminate
                | ErrorKind::SessionLost
        );
        let now = Instant::now();
        for mut request in std::mem::take(&mut self.pending) {
            let deadline = *request.deadline.get_or_insert(now + timeout);
            let keep = if request.reply.is_none() || request.patient {
                // What the manager does of its own accord is not given up for what may pass.
                again || kind == ErrorKind::Unauthorised
            } else {
                again && now < deadline
            };
            if keep {
                self.pending.push_back(request);
            } else {
                request.fail(error);
            }
        }
        if !again && self.pending.is_empty() {
            return Next::Plan;
        }
        let contended = kind == ErrorKind::Contended;
        let first = self.backoff.is_none();
        let builder = if contended { CONTENTION } else { BACKOFF };
        let backoff = self.backoff.get_or_insert_with(|| builder.build());
        if first && contended {
            // The state that came with the conflict is new: usually the next attempt succeeds.
            return Next::Plan;
        }
        let delay = backoff.next().unwrap_or(LONGEST_BACKOFF);
        Next::PlanAfter(if again { delay } else { LONGEST_BACKOFF })
    }
}
