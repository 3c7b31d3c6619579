//! Which events were made lately, so that none is made twice and those that repeat become a series.
//! Pure.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How many events are remembered; the oldest ones are forgotten.
const REMEMBERED: usize = 8_192;

/// The events that were made.
#[derive(Debug)]
pub(super) struct Memory {
    interval: Duration,
    events: HashMap<String, Made>,
}

#[derive(Debug)]
struct Made {
    count: i32,
    written: Instant,
}

/// What is to be done about something that has happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Do {
    /// Make the event.
    Make,
    /// Write that it has happened so often.
    Count(i32),
    /// Nothing: it was written a short while ago.
    Nothing,
}

impl Memory {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            events: HashMap::new(),
        }
    }

    /// Takes in what has happened.
    pub(super) fn happened(&mut self, event: &str, now: Instant) -> Do {
        if let Some(made) = self.events.get_mut(event) {
            made.count = made.count.saturating_add(1);
            if now.saturating_duration_since(made.written) < self.interval {
                return Do::Nothing;
            }
            made.written = now;
            return Do::Count(made.count);
        }
        if self.events.len() >= REMEMBERED {
            self.forget_half();
        }
        let made = Made {
            count: 1,
            written: now,
        };
        self.events.insert(event.to_owned(), made);
        Do::Make
    }

    /// An event could not be written: the next time it is made anew.
    pub(super) fn forget(&mut self, event: &str) {
        self.events.remove(event);
    }

    fn forget_half(&mut self) {
        let mut written: Vec<Instant> = self.events.values().map(|made| made.written).collect();
        let middle = written.len() / 2;
        let (_, middle, _) = written.select_nth_unstable(middle);
        let middle = *middle;
        self.events.retain(|_, made| made.written > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_repeats_is_counted_and_written_now_and_then() {
        let mut memory = Memory::new(Duration::from_secs(60));
        let mut happened = |event: &str| memory.happened(event, Instant::now());
        assert_eq!(happened("a"), Do::Make);
        assert_eq!([happened("a"), happened("a")], [Do::Nothing, Do::Nothing]);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!([happened("a"), happened("a")], [Do::Count(4), Do::Nothing]);
        assert_eq!(happened("b"), Do::Make);
    }

    #[tokio::test(start_paused = true)]
    async fn the_oldest_are_forgotten() {
        let mut memory = Memory::new(Duration::from_secs(60));
        for at in 0..3 * REMEMBERED {
            tokio::time::advance(Duration::from_millis(1)).await;
            assert_eq!(memory.happened(&at.to_string(), Instant::now()), Do::Make);
            assert!(memory.events.len() <= REMEMBERED);
        }
        let newest = (3 * REMEMBERED - 1).to_string();
        assert_eq!(memory.happened(&newest, Instant::now()), Do::Nothing);
    }
}
