//! Whether the store answers. All that waits because it was away hears of the first answer that
//! anything got: one request that comes through ends the pauses of all others.

use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::error::{Error, ErrorKind};

/// A store that answers some requests and others not would end all pauses with every answer: they
/// are ended no more often than this. Shorter than the longest pause, which ends by itself.
const NOT_AGAIN_FOR: Duration = Duration::from_millis(250);

/// What is known from the answers to requests.
#[derive(Debug)]
pub(super) struct Contact {
    /// The last answer was that there is none.
    away: AtomicBool,
    /// When the store was last told to be back.
    told: Mutex<Option<Instant>>,
    /// Counts how often the store came back.
    returns: watch::Sender<u64>,
}

impl Default for Contact {
    fn default() -> Self {
        Self {
            away: AtomicBool::new(false),
            told: Mutex::default(),
            returns: watch::Sender::new(0),
        }
    }
}

impl Contact {
    /// Takes notice of the answer to a request.
    pub(super) fn heard<T>(&self, answer: &Result<T, Error>) {
        match answer {
            Err(error) if is_silence(error) => self.away.store(true, Ordering::Release),
            // A refusal is an answer, too.
            Ok(_) | Err(_) => self.answered(),
        }
    }

    /// Follows the store's returns from now on.
    pub(super) fn follow(&self) -> Returns {
        Returns(self.returns.subscribe())
    }

    /// Waits for so long, or until the store answers somebody. Cancel-safe.
    pub(super) async fn pause(&self, longest: Duration) {
        self.follow().pause(longest).await;
    }

    fn answered(&self) {
        // Mostly it was not away: a plain read of what is seldom written.
        if !self.away.load(Ordering::Acquire) {
            return;
        }
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if told.is_some_and(|told| now.saturating_duration_since(told) < NOT_AGAIN_FOR) {
            // It still counts as away: an answer that comes later tells.
            return;
        }
        *told = Some(now);
        drop(told);
        if self.away.swap(false, Ordering::AcqRel) {
            self.returns.send_modify(|returns| *returns += 1);
        }
    }
}

/// The moments at which the store answers again.
#[derive(Debug)]
pub(super) struct Returns(watch::Receiver<u64>);

impl Returns {
    /// A request begins: answers from here on end the pause that comes after it.
    pub(super) fn begin(&mut self) {
        self.0.mark_unchanged();
    }

    /// Waits for the next return. Cancel-safe.
    pub(super) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // The manager is gone, and with it whatever waits here.
            pending::<()>().await;
        }
    }

    /// Waits for so long, or for the next return. Cancel-safe.
    pub(super) async fn pause(&mut self, longest: Duration) {
        let _ = timeout(longest, self.next()).await;
    }
}

/// Whether an error says that no answer came.
fn is_silence(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unavailable | ErrorKind::Indeterminate
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn failure(kind: ErrorKind) -> Result<(), Error> {
        Err(Error::new(kind, "test", "no"))
    }

    /// How long a pause lasts that begins now.
    async fn pause_of(contact: &Contact) -> Duration {
        let begun = Instant::now();
        contact.pause(LONG).await;
        begun.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn the_first_answer_after_a_failure_ends_all_pauses() {
        let contact = Contact::default();
        contact.heard(&Ok(()));
        assert_eq!(pause_of(&contact).await, LONG, "it was never away");
        for answer in [Ok(()), failure(ErrorKind::SessionLost)] {
            contact.heard(&failure(ErrorKind::Indeterminate));
            assert_eq!(pause_of(&contact).await, LONG, "nothing was answered");
            let mut before = contact.follow();
            let (a, b, ()) = tokio::join!(pause_of(&contact), pause_of(&contact), async {
                contact.heard(&failure(ErrorKind::Unavailable));
                contact.heard(&answer);
            });
            assert_eq!((a, b), (Duration::ZERO, Duration::ZERO));
            // And that of a request that was on its way.
            let begun = Instant::now();
            before.pause(LONG).await;
            assert_eq!(begun.elapsed(), Duration::ZERO);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_store_that_answers_now_and_then_does_not_end_every_pause() {
        let contact = Contact::default();
        let mut returns = contact.follow();
        let mut heard = 0;
        for _ in 0..100 {
            contact.heard(&failure(ErrorKind::Unavailable));
            contact.heard(&Ok(()));
            tokio::time::advance(NOT_AGAIN_FOR / 10).await;
            if returns.0.has_changed().unwrap() {
                heard += 1;
                returns.begin();
            }
        }
        assert_eq!(heard, 10);
    }
}
