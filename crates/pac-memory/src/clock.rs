//! The store's clock.

use pac_core::Timestamp;
use tokio::time::Instant;

/// Starts at an epoch and follows tokio's monotonic clock: setting the machine's clock does
/// not move it, pausing tokio's time does.
#[derive(Debug)]
pub(crate) struct Clock {
    epoch: Timestamp,
    start: Instant,
}

impl Clock {
    pub(crate) fn starting_at(epoch: Timestamp) -> Self {
        Self {
            epoch,
            start: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.epoch.plus(self.start.elapsed())
    }
}
