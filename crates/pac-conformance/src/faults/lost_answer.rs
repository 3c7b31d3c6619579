//! Commits whose outcome nobody is told.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use pac_core::driver::{CommitOutcome, Driver, RepositoryCommit};
use pac_core::{Error, ErrorKind, SessionId};

use super::layer::{Fault, commit_to};

/// What got lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lost {
    /// The request: nothing was committed.
    Question,
    /// The answer: it was.
    Answer,
}

/// Loses something of the next commits, as often as it is told to.
#[derive(Debug, Default)]
pub struct LostAnswer {
    answers: AtomicU64,
    questions: AtomicU64,
}

impl LostAnswer {
    /// Of the next `commits`, this gets lost.
    pub fn lose(&self, lost: Lost, commits: u64) {
        self.counter(lost).store(commits, Ordering::SeqCst);
    }

    /// How many commits are still to be lost.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.answers.load(Ordering::SeqCst) + self.questions.load(Ordering::SeqCst)
    }

    fn counter(&self, lost: Lost) -> &AtomicU64 {
        match lost {
            Lost::Question => &self.questions,
            Lost::Answer => &self.answers,
        }
    }

    fn take(&self, lost: Lost) -> bool {
        let less = |left: u64| left.checked_sub(1);
        let taken = self
            .counter(lost)
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        taken.is_ok()
    }
}

#[async_trait]
impl Fault for LostAnswer {
    async fn commit(
        &self,
        inner: &dyn Driver,
        session: SessionId,
        batch: Vec<RepositoryCommit>,
    ) -> Result<Vec<CommitOutcome>, Error> {
        if self.take(Lost::Question) {
            return Err(lost());
        }
        let answer = commit_to(inner, session, batch).await;
        if self.take(Lost::Answer) {
            return Err(lost());
        }
        answer
    }
}

fn lost() -> Error {
    let message = "the connection broke, says the test";
    Error::new(ErrorKind::Indeterminate, "commit", message)
}
