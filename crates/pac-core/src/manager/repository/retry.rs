//! After an attempt that came to nothing: when to try again, and which requests have waited
//! for long enough.

use std::time::Duration;

use tokio::time::Instant;

use super::Repository;
use super::effects::{Action, Effects};
use super::env::{Env, Port};
use super::request::Request;
use crate::error::{Error, ErrorKind};
use crate::pauses::Pauses;
use crate::state::Head;

/// Between attempts at a store that cannot be reached: the first pause.
const FIRST_BACKOFF: Duration = Duration::from_millis(2);
/// The longest of these, without its jitter: a pause that misses the store's return ends within
/// half a second of it all the same.
pub(super) const LONGEST_BACKOFF: Duration = Duration::from_millis(250);

/// Between attempts that lost against another controller's: the first pause.
const FIRST_CONTENTION: Duration = Duration::from_millis(1);

/// The longest that an admission waits for something to go along with (ADR 62), and the longest
/// pause between lost attempts, without its jitter: it must stay near the time of a commit, or a
/// controller that has lost once goes on losing.
const ADMISSION_DELAY: Duration = Duration::from_millis(20);

/// Two conflicts within this window mean contention, for this window after the second. One may
/// only mean a stale cache.
const CONTENTION_WINDOW: Duration = Duration::from_millis(100);

/// Pauses grow with the failures of one kind; another kind begins anew. What is there only while
/// attempts fail is boxed: a manager knows thousands of repositories, and most do not fail.
#[derive(Debug, Default)]
pub(super) struct Retry {
    backoff: Option<Box<(Cause, Pauses)>>,
    /// The last commit that lost against another controller's.
    conflict: Option<Conflict>,
    /// Until when the pending admissions wait for something to go along with.
    hold: Option<Instant>,
    /// Why the last attempt failed, until one succeeds.
    pub(super) trouble: Option<Box<Error>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Cause {
    Contention,
    Store,
}

#[derive(Debug, Clone, Copy)]
struct Conflict {
    at: Instant,
    /// There was another one within the window before.
    again: bool,
}

impl Conflict {
    fn is_recent(self, now: Instant) -> bool {
        now.saturating_duration_since(self.at) < CONTENTION_WINDOW
    }
}

impl Clone for Retry {
    /// But for pauses that have begun to grow: those begin anew.
    fn clone(&self) -> Self {
        Self {
            backoff: None,
            conflict: self.conflict,
            hold: self.hold,
            trouble: self
                .trouble
                .as_ref()
                .map(|error| Box::new(error.replicate())),
        }
    }
}

impl Retry {
    /// An attempt succeeded.
    pub(super) fn succeeded(&mut self) {
        self.backoff = None;
        self.hold = None;
        self.trouble = None;
    }

    /// Nothing is left to be done.
    pub(super) fn rest(&mut self) {
        self.succeeded();
    }

    /// Whether admissions are held back that something urgent can take along.
    pub(super) fn is_holding(&self) -> bool {
        self.hold.is_some()
    }

    /// A commit lost against another controller's.
    pub(super) fn lost(&mut self, now: Instant) {
        self.conflict = Some(Conflict {
            at: now,
            again: self
                .conflict
                .is_some_and(|conflict| conflict.is_recent(now)),
        });
    }

    fn is_contended(&self, now: Instant) -> bool {
        self.conflict
            .is_some_and(|conflict| conflict.again && conflict.is_recent(now))
    }

    /// How to go on after a failure of this kind.
    fn pause(&mut self, kind: ErrorKind) -> Action {
        let cause = match kind {
            ErrorKind::Contended => Cause::Contention,
            _ => Cause::Store,
        };
        let first = self
            .backoff
            .as_ref()
            .is_none_or(|backoff| backoff.0 != cause);
        if first {
            let pauses = match cause {
                Cause::Contention => Pauses::new(FIRST_CONTENTION, ADMISSION_DELAY),
                Cause::Store => Pauses::new(FIRST_BACKOFF, LONGEST_BACKOFF),
            };
            self.backoff = Some(Box::new((cause, pauses)));
            if cause == Cause::Contention {
                // The state that came with the conflict is new: usually the next attempt
                // succeeds.
                return Action::Plan;
            }
        }
        let next = self.backoff.as_mut().map(|backoff| backoff.1.grow());
        Action::PlanAfter(next.unwrap_or(LONGEST_BACKOFF))
    }
}

impl<P: Port> Repository<P> {
    /// Until when the pending admissions are held back, if at all.
    pub(super) fn hold_back(&mut self, env: &Env) -> Option<Instant> {
        if env.in_process || !self.may_be_held_back(env.now) {
            return None;
        }
        let until = *self
            .retry
            .hold
            .get_or_insert_with(|| env.now + ADMISSION_DELAY);
        (until > env.now).then_some(until)
    }

    /// Whether all that is pending asks for a slot where none is free, others wait already, and
    /// other controllers are changing that: a commit for such admissions alone may cost a
    /// conflict to a controller that has a slot to hand on.
    fn may_be_held_back(&self, now: Instant) -> bool {
        let full = |head: &Head| head.queued > 0 && !head.could_start();
        self.retry.is_contended(now)
            && !self.has_to_read()
            && !self.inbox.pending.is_empty()
            && self.inbox.pending.iter().all(Request::may_wait)
            && self.state.as_ref().is_some_and(|state| full(state.head()))
    }

    /// An attempt failed: requests that have waited for too long are told, or all of them when
    /// trying again would not help.
    pub(super) fn failed(&mut self, env: &Env, error: &Error, effects: &mut Effects<P>) -> Action {
        let kind = error.kind();
        let again = matches!(
            kind,
            ErrorKind::Unavailable
                | ErrorKind::Contended
                | ErrorKind::Indeterminate
                | ErrorKind::SessionLost
        );
        self.retry.trouble = Some(Box::new(error.replicate()));
        for mut request in std::mem::take(&mut self.inbox.pending) {
            let gone = request.may_have_left_a_slot() && request.may_leave_something();
            let keep = match request.deadline {
                _ if gone || request.gives_back() => true,
                // What nobody will ask for again is not given up for what may pass.
                Some(deadline) if !request.is_left_to_itself() => again && env.now < deadline,
                _ => again || kind == ErrorKind::Unauthorised,
            };
            if keep {
                self.inbox.pending.push_back(request);
                continue;
            }
            if request.fail(error, effects) && request.inherits {
                // What an earlier asker has left behind is found and taken back.
                self.inbox.pending.push_back(request);
            }
        }
        if again {
            return self.retry.pause(kind);
        }
        if self.inbox.pending.is_empty() {
            Action::Plan
        } else {
            Action::PlanAfter(LONGEST_BACKOFF)
        }
    }
}
