//! Writes that are paced: few under way at once, so many in a second, each object seldom.

use std::hash::Hash;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::bucket::Bucket;
use super::pace::{Pace, Write};
use crate::error::Failure;

/// How many writes are under way at once at most.
const AT_ONCE: usize = 4;

/// How long nothing is written after a failure, or the interval of an object if that is shorter;
/// doubled with every further failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What becomes of a write that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    /// It is tried a few times, and given up until another value is wanted.
    GivesUp,
    /// It is tried until it is made; nothing else is written for a while either.
    Pauses,
}

/// How a write ended.
pub(super) type Written<K, V> = (Write<K, V>, Result<(), Failure>);

/// What is to be written, and what is under way.
pub(super) struct Writes<'a, K, V> {
    pub(super) pace: Pace<K, V>,
    bucket: Bucket,
    failing: Failing,
    first_pause: Duration,
    /// Failures in a row.
    failures: u32,
    paused_until: Option<Instant>,
    under_way: FuturesUnordered<BoxFuture<'a, Written<K, V>>>,
}

impl<'a, K, V> Writes<'a, K, V>
where
    K: Clone + Ord + Hash + Send + 'a,
    V: Clone + PartialEq + Send + 'a,
{
    /// Each object at most once in an `interval`, and `per_second` on average in all.
    pub(super) fn new(interval: Duration, per_second: u32, failing: Failing) -> Self {
        let pace = match failing {
            Failing::GivesUp => Pace::new(interval),
            Failing::Pauses => Pace::new(interval).without_giving_up(),
        };
        Self {
            pace,
            bucket: Bucket::new(per_second),
            failing,
            first_pause: FIRST_PAUSE.min(interval),
            failures: 0,
            paused_until: None,
            under_way: FuturesUnordered::new(),
        }
    }

    /// Makes what is due, until a write has ended; waits for ever while nothing is wanted.
    /// Cancel-safe: what was begun is kept.
    pub(super) async fn next(
        &mut self,
        send: impl Fn(&Write<K, V>) -> BoxFuture<'a, Result<(), Failure>>,
    ) -> Written<K, V> {
        loop {
            let due = self.next_write();
            tokio::select! {
                Some((write, written)) = self.under_way.next() => {
                    self.ended(&write, written.is_ok());
                    return (write, written);
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.begin(&send);
                }
                else => std::future::pending::<()>().await,
            }
        }
    }

    /// When there is something to write, and a request may be made for it.
    fn next_write(&self) -> Option<Instant> {
        let mut due = self.pace.next_due()?;
        if let Some(until) = self.paused_until {
            due = due.max(until);
        }
        (self.under_way.len() < AT_ONCE).then(|| self.bucket.next(Instant::now()).max(due))
    }

    fn begin(&mut self, send: impl Fn(&Write<K, V>) -> BoxFuture<'a, Result<(), Failure>>) {
        let now = Instant::now();
        // The instant may have come for one of the two alone.
        if self.bucket.next(now) > now {
            return;
        }
        if let Some(write) = self.pace.take(now) {
            self.bucket.take(now);
            let sent = send(&write);
            self.under_way
                .push(Box::pin(async move { (write, sent.await) }));
        }
    }

    fn ended(&mut self, write: &Write<K, V>, made: bool) {
        let now = Instant::now();
        self.pace.wrote(write, made, now);
        if made {
            (self.failures, self.paused_until) = (0, None);
        } else if self.failing == Failing::Pauses {
            let pause = self.first_pause.saturating_mul(1 << self.failures.min(6));
            self.paused_until = Some(now + pause.min(LONGEST_PAUSE));
            self.failures = self.failures.saturating_add(1);
        }
    }
}
