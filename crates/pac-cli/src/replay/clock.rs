//! Converts between the trace's time and the replay's clock.

use std::sync::OnceLock;
use std::time::Duration;

use pac_concurrency::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::Clock;
use super::idle::Idle;

/// Longer than any replay waits, and within the range of every clock.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Maps between the trace's time, this process's, and the store's.
#[derive(Debug)]
pub(crate) struct ReplayClock {
    /// The moment of the trace at which the replay starts.
    first: Timestamp,
    start: Instant,
    /// Seconds of the trace per second.
    speed: f64,
    /// The times that the replay's clock leaves out.
    idle: Idle,
    /// The store's time at the start, computed from its first stamp.
    store: OnceLock<Timestamp>,
}

impl ReplayClock {
    /// Starts at the `first` moment of the trace. `idle` times are left out on a virtual clock.
    pub(crate) fn start(first: Timestamp, clock: Clock, idle: Idle) -> Self {
        Self {
            first,
            idle: match clock {
                Clock::Virtual => idle,
                Clock::Real { .. } => Idle::default(),
            },
            start: Instant::now(),
            speed: match clock {
                Clock::Virtual => 1.0,
                Clock::Real { speed } => speed,
            },
            store: OnceLock::new(),
        }
    }

    /// The current moment of the trace.
    pub(crate) fn now(&self) -> Timestamp {
        self.first.plus(self.in_trace(self.start.elapsed()))
    }

    /// Waits until the trace has reached `moment`.
    pub(crate) async fn reach(&self, moment: Timestamp) {
        let ahead = self.idle.left_out_of(moment.since(self.first));
        let real = if self.speed == 1.0 {
            ahead
        } else {
            Duration::try_from_secs_f64(ahead.as_secs_f64() / self.speed).unwrap_or(FAR)
        };
        sleep_until(self.start + real.min(FAR)).await;
    }

    /// The moment of the trace at which the store's clock showed `stamp`. The first call must
    /// follow right after the store has given its stamp.
    pub(crate) fn of_store(&self, stamp: Timestamp) -> Timestamp {
        let elapsed = || self.start.elapsed();
        let store = *self.store.get_or_init(|| stamp.minus(elapsed()));
        self.first.plus(self.in_trace(stamp.since(store)))
    }

    fn in_trace(&self, real: Duration) -> Duration {
        if self.speed == 1.0 {
            return self.idle.put_back_into(real);
        }
        Duration::try_from_secs_f64(real.as_secs_f64() * self.speed).unwrap_or(FAR)
    }
}
