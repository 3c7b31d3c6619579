//! A token bucket: so many requests in a second on average.

use std::time::Duration;

use tokio::time::Instant;

/// How many requests may go at once after a pause, in seconds' worth of them.
const BURST_SECONDS: u32 = 2;

/// A bucket of tokens. Pure but for the instants that it is given.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Between two tokens.
    interval: Duration,
    burst: u32,
    /// When the bucket was, or will be, empty: so many intervals ago as there are tokens.
    empty_at: Option<Instant>,
}

impl Bucket {
    pub(super) fn new(per_second: u32) -> Self {
        let per_second = per_second.max(1);
        Self {
            interval: Duration::from_secs(1) / per_second,
            burst: per_second.saturating_mul(BURST_SECONDS),
            empty_at: None,
        }
    }

    /// When there is a token: `now`, or later.
    pub(super) fn next(&self, now: Instant) -> Instant {
        self.empty_at
            .map_or(now, |at| (at + self.interval).max(now))
    }

    /// Takes a token, if there is one.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        if self.next(now) > now {
            return false;
        }
        let full = now.checked_sub(self.interval.saturating_mul(self.burst));
        let full = full.unwrap_or(now);
        let before = self.empty_at.map_or(full, |at| at.max(full));
        self.empty_at = Some(before + self.interval);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn so_many_go_at_once_and_so_many_in_a_second() {
        tokio::time::advance(Duration::from_secs(60)).await;
        let mut bucket = Bucket::new(10);
        let taken = |bucket: &mut Bucket| {
            std::iter::repeat_with(|| bucket.take(Instant::now()))
                .take_while(|taken| *taken)
                .count()
        };
        assert_eq!(taken(&mut bucket), 20);
        tokio::time::advance(Duration::from_millis(450)).await;
        assert_eq!(taken(&mut bucket), 4);
        let next = bucket.next(Instant::now()) - Instant::now();
        assert_eq!(next, Duration::from_millis(50));
        tokio::time::advance(Duration::from_secs(3600)).await;
        assert_eq!(taken(&mut bucket), 20);
    }
}
