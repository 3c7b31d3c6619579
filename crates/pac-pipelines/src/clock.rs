//! The clock that creation times are compared with.

use std::time::SystemTime;

use pac_core::Timestamp;
use tokio::time::Instant;

use crate::integration::ControllerOptions;

/// Shows the epoch when it is made, and goes on by measured time: a system clock that is set
/// back changes nothing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    epoch: Timestamp,
    made: Instant,
}

impl Clock {
    pub(crate) fn of(options: &ControllerOptions) -> Self {
        Self {
            epoch: options.epoch.unwrap_or_else(|| SystemTime::now().into()),
            made: Instant::now(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.epoch.plus(self.made.elapsed())
    }
}
