//! What can happen to what, and how often.

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
    /// [`Driver::repositories_of`].
    RepositoriesOf,
    /// [`Driver::load`].
    Load,
    /// [`Driver::commit`]; a batch is one request.
    Commit,
    /// [`Driver::watch`]. What comes of it later are hints.
    Watch,
    /// [`Driver::list`].
    List,
}

impl Request {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::OpenSession,
        Self::KeepAlive,
        Self::CloseSession,
        Self::DeadSessions,
        Self::RepositoriesOf,
        Self::Load,
        Self::Commit,
        Self::Watch,
        Self::List,
    ];

    /// What it is called in errors.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OpenSession => "open session",
            Self::KeepAlive => "keep alive",
            Self::CloseSession => "close session",
            Self::DeadSessions => "look for dead sessions",
            Self::RepositoriesOf => "look for a session's repositories",
            Self::Load => "load",
            Self::Commit => "commit",
            Self::Watch => "watch",
            Self::List => "list",
        }
    }

    pub(super) fn changes_something(self) -> bool {
        matches!(
            self,
            Self::OpenSession | Self::KeepAlive | Self::CloseSession | Self::Commit
        )
    }
}

/// What becomes of a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    /// It takes this long on the way there, and its answer as long on the way back.
    Delay(Duration),
    /// The same with a time that is drawn for each, up to this.
    DelayUpTo(Duration),
    /// The same in turns of the scheduler, without any clock.
    Turns(usize),
    /// It waits until the plan is cleared. On [`Request::KeepAlive`]: a keep-alive that stands
    /// still while everything else goes on.
    Hang,
    /// It is done, and its answer waits until the plan is cleared.
    HoldAnswer,
    /// It does not get there, and its sender knows: `Unavailable`.
    Fail,
    /// It does not get there, and its sender cannot know: `Indeterminate` if it was to change
    /// something.
    LoseQuestion,
    /// It is done, and nobody is told: `Indeterminate` if it was to change something.
    LoseAnswer,
    /// Of a commit: nothing is written, as if somebody else had been faster in each of its
    /// repositories. Of anything else: nothing.
    Conflict,
    /// The driver has a bug, and panics.
    Panic,
}

/// What becomes of a hint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintFault {
    /// It is dropped, and nobody is told.
    Drop,
    /// It comes so much later; others may overtake it.
    Late(Duration),
    /// It comes twice.
    Twice,
    /// It comes after the next one, however late that is.
    Overtaken,
}

/// Which of the requests, or hints, a fault happens to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum When {
    /// All of them.
    Always,
    /// The next so many.
    Next(u64),
    /// Each whose number is a multiple of this, counted from now on.
    Every(u64),
    /// Each with this probability.
    Chance(f64),
}

/// How often a fault could have happened.
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
