//! The faults, the requests and hints that they happen to, and how often.

use std::time::Duration;

use fastrand::Rng;
#[cfg(doc)]
use pac_core::driver::Driver;

/// The requests of a driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Request {
    /// [`Driver::open_session`].
    OpenSession,
    /// [`Driver::keep_alive`].
    KeepAlive,
    /// [`Driver::close_session`].
    CloseSession,
    /// [`Driver::dead_sessions`].
    DeadSessions,
    /// [`Driver::sessions`].
    Sessions,
    /// [`Driver::repositories_of`].
    RepositoriesOf,
    /// [`Driver::load`].
    Load,
    /// [`Driver::commit`]; a batch is one request.
    Commit,
    /// [`Driver::watch`]. The events of that stream are hints.
    Watch,
    /// [`Driver::list`].
    List,
    /// [`Driver::clock`].
    Clock,
}

impl Request {
    /// All requests.
    pub const ALL: [Self; 11] = [
        Self::OpenSession,
        Self::KeepAlive,
        Self::CloseSession,
        Self::DeadSessions,
        Self::Sessions,
        Self::RepositoriesOf,
        Self::Load,
        Self::Commit,
        Self::Watch,
        Self::List,
        Self::Clock,
    ];

    /// The name of the request in errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OpenSession => "open session",
            Self::KeepAlive => "keep alive",
            Self::CloseSession => "close session",
            Self::DeadSessions => "look for dead sessions",
            Self::Sessions => "read sessions",
            Self::RepositoriesOf => "look for a session's repositories",
            Self::Load => "load",
            Self::Commit => "commit",
            Self::Watch => "watch",
            Self::List => "list",
            Self::Clock => "read the clock",
        }
    }

    pub(super) fn changes_something(self) -> bool {
        matches!(
            self,
            Self::OpenSession | Self::KeepAlive | Self::CloseSession | Self::Commit
        )
    }
}

/// The fault of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// The request takes this long to the store, and its answer as long back.
    Delay(Duration),
    /// Like `Delay`, with a random time up to this for each.
    DelayUpTo(Duration),
    /// Like `Delay`, in turns of the scheduler, without a clock.
    Turns(usize),
    /// The request waits until the plan is cleared. On [`Request::KeepAlive`]: the keep-alive
    /// hangs while everything else goes on.
    Hang,
    /// The store carries the request out, and the answer waits until the plan is cleared.
    HoldAnswer,
    /// The request does not reach the store, and the sender knows: `Unavailable`.
    Fail,
    /// The request does not reach the store, and the sender cannot know: `Indeterminate` if the
    /// request would have changed something.
    LoseQuestion,
    /// The store carries the request out, but the answer is lost: `Indeterminate` if the request
    /// changes something.
    LoseAnswer,
    /// A commit writes nothing, as if another manager had been faster in each of its
    /// repositories. No effect on other requests.
    Conflict,
    /// The driver panics, as if it had a bug.
    Panic,
}

/// The fault of a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintFault {
    /// The hint is dropped without notice.
    Drop,
    /// The hint comes later by this much; others may overtake it.
    Late(Duration),
    /// The hint comes twice.
    Twice,
    /// The hint comes after the next one, however late that is.
    Overtaken,
}

/// The requests or hints that a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// All of them.
    Always,
    /// The next ones, this many.
    Next(u64),
    /// Every one whose number is a multiple of this, counted from when the fault was planned.
    Every(u64),
    /// Each with this probability.
    Chance(f64),
}

/// Decides for each request or hint whether a fault hits it.
#[derive(Debug)]
pub(super) struct Countdown {
    when: When,
    met: u64,
}

impl Countdown {
    pub(super) fn from(when: When) -> Self {
        Self { when, met: 0 }
    }

    pub(super) fn hits(&mut self, random: &mut Rng) -> bool {
        self.met += 1;
        match self.when {
            When::Always => true,
            When::Next(number) => self.met <= number,
            When::Every(step) => self.met.is_multiple_of(step),
            When::Chance(chance) => random.f64() < chance,
        }
    }

    pub(super) fn is_used_up(&self) -> bool {
        !matches!(self.when, When::Next(number) if self.met < number)
    }
}
