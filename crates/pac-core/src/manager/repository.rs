//! One repository as a manager knows it: its cached state, the commands that wait to be
//! combined into the next commit, and who waits for a turn.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::admission::{Notice, Place};
use super::view::{RepositoryStatus, WaitReason, wait_reason};
use crate::error::{Error, ErrorKind};
use crate::hash::HashMap;
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::protocol::{Command, Outcome};
use crate::state::{Entry, EntryState, RepositoryState};
use crate::value::Revision;

/// Between attempts: doubles from the first to the longest, with jitter.
const BACKOFF: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(2))
    .with_max_delay(LONGEST_BACKOFF)
    .with_jitter()
    .without_max_times();
const LONGEST_BACKOFF: Duration = Duration::from_millis(500);

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

/// A command on its way, and who is to hear of it.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) command: Command,
    /// How many requests, from this one on, are to be planned together.
    pub(super) group: usize,
    /// Absent for what the manager does of its own accord, and never gives up.
    pub(super) reply: Option<oneshot::Sender<Result<Reply, Error>>>,
    /// When it was put in, counted in requests.
    pub(super) serial: u64,
    /// Set when the first attempt failed.
    pub(super) deadline: Option<Instant>,
    /// An attempt may have succeeded without our knowing.
    pub(super) uncertain: bool,
}

/// What is said to who asked.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) outcome: Outcome,
    /// The run's entry as it stands now.
    pub(super) entry: Option<Arc<Entry>>,
    /// Where its turn will be announced, if it waits for us.
    pub(super) place: Option<Place>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Repository {
    key: RepositoryKey,
    desk: Mutex<Desk>,
}

/// What the lock of a [`Repository`] guards. Only ever held between two awaits.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// As of the newest snapshot; `None` until read for the first time, and when what was read
    /// did not add up.
    pub(super) state: Option<RepositoryState>,
    /// The store is said to be at this revision, or a later one.
    pub(super) wanted: Revision,
    /// What was `wanted` when the state was last asked for.
    pub(super) asked_for: Revision,
    /// Read before anything else: hints may have been lost.
    pub(super) recheck: bool,
    /// In the order in which they came.
    pub(super) pending: VecDeque<Request>,
    /// In the commit that is on its way, with what each comes to if that succeeds.
    pub(super) in_flight: Vec<(Request, Outcome)>,
    pub(super) next_serial: u64,
    /// Requests before this one were put in before the state was last read.
    pub(super) covered: u64,
    /// Somebody has the [`Duty`](super::duty::Duty) to see to what is pending.
    pub(super) attended: bool,
    pub(super) backoff: Option<ExponentialBackoff>,
    pub(super) waiters: HashMap<PipelineRunKey, (u64, oneshot::Sender<Notice>)>,
    pub(super) next_waiter: u64,
    /// How many queued and started entries of `state` are this session's.
    pub(super) own: usize,
    /// Counts the states that watchers could have seen.
    pub(super) steps: Option<watch::Sender<u64>>,
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

    /// Takes a waiter out; false when it was not waiting any more.
    pub(super) fn stop_waiting(&self, run: &PipelineRunKey, number: u64) -> bool {
        let mut desk = self.desk();
        let waits = desk.waiters.get(run).is_some_and(|known| known.0 == number);
        waits && desk.waiters.remove(run).is_some()
    }

    /// Counts states from now on, for a watcher.
    pub(super) fn steps(&self) -> watch::Receiver<u64> {
        let mut desk = self.desk();
        // 1: there is a state to be seen from the start.
        let steps = desk.steps.get_or_insert_with(|| watch::Sender::new(1));
        steps.subscribe()
    }
}

impl Desk {
    /// Puts requests in that belong together. True when the caller has to see to them.
    pub(super) fn submit(&mut self, requests: impl ExactSizeIterator<Item = Request>) -> bool {
        let mut group = requests.len();
        for request in requests {
            let serial = self.next_serial;
            self.next_serial += 1;
            self.pending.push_back(Request {
                serial,
                group,
                ..request
            });
            group -= 1;
        }
        !std::mem::replace(&mut self.attended, true)
    }

    /// Puts a command of the manager's own in, to be seen to by whoever is at it now.
    pub(super) fn add(&mut self, command: Command) {
        self.pending.push_back(Request::new(command, None));
    }

    /// Registers the waiter of a run, in place of an earlier one. If the run is not `ours` any
    /// more, the waiter hears that first thing.
    pub(super) fn wait(&mut self, run: &PipelineRunKey, ours: bool) -> Place {
        let (sender, notice) = oneshot::channel();
        let number = self.next_waiter;
        self.next_waiter += 1;
        let earlier = if ours {
            self.waiters.insert(run.clone(), (number, sender))
        } else {
            Some((number, sender))
        };
        if let Some((_, earlier)) = earlier {
            // Nobody may be listening any more.
            let _ = earlier.send(Notice::TakenOver);
        }
        Place { number, notice }
    }

    /// Whether nothing would be lost if this record was made anew.
    pub(super) fn is_idle(&self) -> bool {
        !self.is_of_interest() && !self.attended && self.waiters.is_empty()
    }

    /// Whether hints matter: a run of ours waits or runs, or somebody watches.
    pub(super) fn is_of_interest(&self) -> bool {
        let watched = self
            .steps
            .as_ref()
            .is_some_and(|steps| steps.receiver_count() > 0);
        watched || self.own > 0
    }

    /// Asks for the state to be read again. True when the caller has to see to it.
    pub(super) fn look_again(&mut self) -> bool {
        self.recheck = true;
        self.is_of_interest() && !std::mem::replace(&mut self.attended, true)
    }

    /// Takes in a hint. True when the caller has to see to it.
    pub(super) fn is_said_to_be_at(&mut self, revision: Revision) -> bool {
        let known = self.state.as_ref().map(|state| state.head().revision);
        if known.is_some_and(|known| known >= revision) {
            return false;
        }
        self.wanted = self.wanted.max(revision);
        self.is_of_interest() && !std::mem::replace(&mut self.attended, true)
    }

    /// What was in flight is pending again, before all that came later.
    pub(super) fn put_back(&mut self) {
        while let Some((request, _)) = self.in_flight.pop() {
            self.pending.push_front(request);
        }
    }

    /// What was read does not add up: nothing is known.
    pub(super) fn forget(&mut self) {
        self.state = None;
        self.own = 0;
    }

    /// An attempt came to nothing: whoever has waited for too long hears of it, or everybody
    /// when trying again would not help.
    pub(super) fn failed(&mut self, timeout: Duration, error: &Error) -> Next {
        let again = matches!(
            error.kind(),
            ErrorKind::Unavailable
                | ErrorKind::Contended
                | ErrorKind::Indeterminate
                | ErrorKind::SessionLost
        );
        let now = Instant::now();
        for mut request in std::mem::take(&mut self.pending) {
            let deadline = *request.deadline.get_or_insert(now + timeout);
            if again && (request.reply.is_none() || now < deadline) {
                self.pending.push_back(request);
            } else {
                request.fail(error.replicate());
            }
        }
        if !again {
            self.recheck = false;
            self.wanted = Revision::default();
            return Next::Plan;
        }
        let first = self.backoff.is_none();
        let backoff = self.backoff.get_or_insert_with(|| BACKOFF.build());
        if first && error.kind() == ErrorKind::Contended {
            // The state that came with the conflict is new: usually the next attempt succeeds.
            return Next::Plan;
        }
        Next::PlanAfter(backoff.next().unwrap_or(LONGEST_BACKOFF))
    }
}

impl Request {
    pub(super) fn new(
        command: Command,
        reply: Option<oneshot::Sender<Result<Reply, Error>>>,
    ) -> Self {
        Self {
            command,
            group: 1,
            reply,
            serial: 0,
            deadline: None,
            uncertain: false,
        }
    }

    /// A slot is asked for, and whoever asked has gone before anything was tried.
    pub(super) fn is_moot(&self) -> bool {
        let gone = self.reply.as_ref().is_some_and(oneshot::Sender::is_closed);
        gone && !self.uncertain && self.admits().is_some()
    }

    /// The run that this asks a slot for.
    pub(super) fn admits(&self) -> Option<&PipelineRunKey> {
        match &self.command {
            Command::Admit(request) | Command::Adopt(request) => Some(&request.run),
            Command::Requeue { run, .. } => Some(run),
            _ => None,
        }
    }

    pub(super) fn fail(self, error: Error) {
        if let Some(reply) = self.reply {
            // Nobody may be listening any more.
            let _ = reply.send(Err(error));
        }
    }
}
