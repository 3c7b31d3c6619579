//! What the parts of a process tell each other about the cluster: which member they ask, and that
//! it answers again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

/// Shared by all connections of one driver, on whichever runtime they are.
#[derive(Debug)]
pub(super) struct Signs {
    /// The member that is asked.
    current: watch::Sender<usize>,
    /// Whether the last request came to nothing because no member answered it.
    away: AtomicBool,
    /// Counts how often a request was answered after one that was not.
    back: watch::Sender<u64>,
}

impl Signs {
    pub(super) fn new(first: usize) -> Self {
        Self {
            current: watch::Sender::new(first),
            away: AtomicBool::new(false),
            back: watch::Sender::new(0),
        }
    }

    pub(super) fn current(&self) -> usize {
        *self.current.borrow()
    }

    /// Asks `next` from now on, unless `member` is not the one that is asked any more. Whether it
    /// was.
    pub(super) fn turn(&self, member: usize, next: usize) -> bool {
        self.current.send_if_modified(|current| {
            let turns = *current == member && next != member;
            if turns {
                *current = next;
            }
            turns
        })
    }

    /// Waits until another member is asked. Cancel-safe.
    pub(super) async fn turned_away_from(&self, member: usize) {
        let mut current = self.current.subscribe();
        // The sender lives as long as `self`, so that this does not fail.
        let _ = current.wait_for(|current| *current != member).await;
    }

    /// Notes that a request was not answered.
    pub(super) fn not_answered(&self) {
        self.away.store(true, Ordering::Release);
    }

    /// Notes that a request was answered, and ends the pauses of all others if they wait for that.
    pub(super) fn answered(&self) {
        if self.away.load(Ordering::Relaxed) && self.away.swap(false, Ordering::AcqRel) {
            self.back.send_modify(|times| *times += 1);
        }
    }

    /// Waits before another attempt at a store that did not answer: for this long, or until it
    /// answers any request. Cancel-safe.
    pub(super) async fn pause(&self, longest: Duration) {
        let mut back = self.back.subscribe();
        self.not_answered();
        tokio::select! {
            () = sleep(longest) => {}
            _ = back.changed() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_answer_ends_all_pauses() {
        let signs = Signs::new(0);
        let begun = Instant::now();
        let (shorter, longer) = (Duration::from_secs(3), Duration::from_secs(5));
        let answered = async {
            sleep(shorter).await;
            signs.answered();
        };
        tokio::join!(signs.pause(LONG), signs.pause(LONG), answered);
        assert_eq!(begun.elapsed(), shorter);
        // What was answered before the pause does not end it.
        signs.pause(longer).await;
        assert_eq!(begun.elapsed(), shorter + longer);
    }

    #[tokio::test(start_paused = true)]
    async fn one_member_is_left_once() {
        let signs = Signs::new(0);
        assert!(signs.turn(0, 1));
        assert!(!signs.turn(0, 1), "another task has done it");
        assert_eq!(signs.current(), 1);
        signs.turned_away_from(0).await;
        assert!(!signs.turn(1, 1), "there is no other");
        let turned = async {
            sleep(LONG).await;
            assert!(signs.turn(1, 0));
        };
        tokio::join!(signs.turned_away_from(1), turned);
    }
}
