//! Writes that are paced: few under way at once, so many in a second, each object seldom.

use std::collections::BTreeSet;
use std::hash::Hash;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::time::{Instant, sleep_until};

use super::bucket::Bucket;
use super::pace::{Pace, Write};
use crate::error::{Failure, FailureKind};

/// How many writes are under way at once at most.
const AT_ONCE: usize = 4;

/// How long nothing is written after a failure, or the interval of an object if that is shorter;
/// doubled with every further failure in a row.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// So many objects that are refused one after the other, and none that is not: then it is not about
/// the objects.
const SEVERAL: usize = 8;

/// What becomes of a write that fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failing {
    /// It is tried a few times, and given up until another value is wanted.
    GivesUp,
    /// It is tried until it is made, ever more seldom. Nothing else is written for a while either,
    /// unless it is this object that is refused.
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
    /// Failures in a row that were not about one object.
    failures: u32,
    /// Objects that were refused since the last write that was made, up to [`SEVERAL`].
    refused: BTreeSet<K>,
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
            refused: BTreeSet::new(),
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
                    self.ended(&write, written.as_ref().err());
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

    fn ended(&mut self, write: &Write<K, V>, failure: Option<&Failure>) {
        let now = Instant::now();
        self.pace.wrote(write, failure.is_none(), now);
        let Some(failure) = failure else {
            (self.failures, self.paused_until) = (0, None);
            self.refused.clear();
            return;
        };
        if self.failing == Failing::Pauses && !self.is_about_one(&write.key, failure) {
            let pause = self.first_pause.saturating_mul(1 << self.failures.min(6));
            self.paused_until = Some(now + pause.min(LONGEST_PAUSE));
            self.failures = self.failures.saturating_add(1);
        }
    }

    /// Whether a failure says nothing about other objects.
    fn is_about_one(&mut self, key: &K, failure: &Failure) -> bool {
        let is_refused = matches!(
            failure.kind,
            FailureKind::Refused | FailureKind::NotFound | FailureKind::Conflict
        );
        if is_refused && self.refused.len() < SEVERAL {
            self.refused.insert(key.clone());
        }
        is_refused && self.refused.len() < SEVERAL
    }
}

#[cfg(test)]
mod tests {
    use pac_core::RepositoryKey;
    use tokio::time::timeout;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    type Objects = Writes<'static, RepositoryKey, u32>;

    fn wants(writes: &mut Objects, name: &str) {
        let key = RepositoryKey::new("ci", name).unwrap();
        let uid = "u".parse().unwrap();
        writes.pace.wants(&key, &uid, 1, || None, Instant::now());
    }

    /// Makes writes for a time, where those to names that begin so fail, and answers with the names
    /// of those that were made.
    async fn made(writes: &mut Objects, within: Duration, bad: (&str, FailureKind)) -> Vec<String> {
        let (prefix, kind) = (bad.0.to_owned(), bad.1);
        let send = |write: &Write<RepositoryKey, u32>| {
            let fails = write.key.name().starts_with(&prefix);
            let failure = fails.then(|| Failure::new(kind, "no"));
            let sent: BoxFuture<'static, _> = Box::pin(async move { failure.map_or(Ok(()), Err) });
            sent
        };
        let mut made = Vec::new();
        let all = async {
            loop {
                let (write, written) = writes.next(&send).await;
                if written.is_ok() {
                    made.push(write.key.name().to_owned());
                }
            }
        };
        let ended: Result<(), _> = timeout(within, all).await;
        assert!(ended.is_err());
        made
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_that_is_refused_slows_no_other() {
        let refused = ("bad", FailureKind::Refused);
        let mut writes = Objects::new(INTERVAL, 10, Failing::Pauses);
        wants(&mut writes, "bad");
        assert_eq!(made(&mut writes, 50 * INTERVAL, refused).await, [""; 0]);
        wants(&mut writes, "good");
        let at_once = Duration::from_secs(1);
        assert_eq!(made(&mut writes, at_once, refused).await, ["good"]);
        assert!(writes.pace.next_due().is_some(), "it is tried again");
        // Where everything is refused, or nothing answers, nothing is asked for a while.
        for (prefix, kind, objects) in [
            ("a", FailureKind::NotFound, SEVERAL),
            ("b", FailureKind::Unavailable, 1),
        ] {
            let mut writes = Objects::new(INTERVAL, 10, Failing::Pauses);
            for at in 0..objects {
                wants(&mut writes, &format!("{prefix}{at}"));
            }
            assert_eq!(
                made(&mut writes, at_once / 2, (prefix, kind)).await,
                [""; 0]
            );
            wants(&mut writes, "good");
            let at_once = made(&mut writes, at_once / 4, (prefix, kind)).await;
            assert_eq!(at_once, [""; 0], "{kind:?}");
            let later = made(&mut writes, INTERVAL, (prefix, kind)).await;
            assert_eq!(later, ["good"], "{kind:?}");
        }
    }
}
