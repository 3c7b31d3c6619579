//! How long an invocation tries to get a slot: until a signal comes, or `--wait-timeout` is over.

use std::future::pending;

use pac_concurrency::{Error, RepositoryKey};
use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use super::signals::Signals;
use crate::exit::Failure;

/// The signals and the deadline of an invocation.
#[derive(Debug)]
pub(crate) struct Patience {
    pub(crate) signals: Signals,
    /// The end of `--wait-timeout`; `None` without one, or if no clock can tell it.
    pub(crate) deadline: Option<Instant>,
}

/// Why an invocation ends before it has a slot.
#[derive(Debug)]
pub(crate) enum Stop {
    Signal(Signal),
    /// The deadline came while the run was in the queue of this repository.
    TimedOut(RepositoryKey),
    /// The deadline came before the store had answered.
    Unanswered,
    Failed(Failure),
}

impl Patience {
    /// Waits for an answer of the store. A signal or the deadline drops the question, which must
    /// then take itself back.
    pub(crate) async fn ask<T, E>(
        &mut self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stop>
    where
        Stop: From<E>,
    {
        let deadline = self.deadline;
        tokio::select! {
            biased;
            answer = self.ask_holding(question) => answer,
            () = until(deadline) => Err(Stop::Unanswered),
        }
    }

    /// The same once the slots are had: `--wait-timeout` is about them, and over. The question has an end
    /// of its own.
    pub(crate) async fn ask_holding<T, E>(
        &mut self,
        question: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Stop>
    where
        Stop: From<E>,
    {
        tokio::select! {
            biased;
            signal = self.signals.next() => Err(Stop::Signal(signal)),
            answer = question => Ok(answer?),
        }
    }
}

/// Waits until a deadline, for ever without one. Cancel-safe.
pub(crate) async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => sleep_until(deadline).await,
        None => pending().await,
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error.into())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::sleep;

    use super::*;

    #[tokio::test]
    async fn what_is_asked_with_the_slots_in_hand_outlasts_the_wait_timeout() {
        let mut patience = Patience {
            signals: Signals::install().unwrap(),
            deadline: Some(Instant::now()),
        };
        let question = || async {
            sleep(Duration::from_millis(20)).await;
            Ok::<_, Failure>(7)
        };
        let late = patience.ask(question()).await;
        assert!(matches!(late, Err(Stop::Unanswered)), "{late:?}");
        let held = patience.ask_holding(question()).await;
        assert!(matches!(held, Ok(7)), "{held:?}");
    }
}
