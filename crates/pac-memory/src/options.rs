//! The settings of the driver.

use std::time::{Duration, SystemTime};

use pac_core::Timestamp;
use pac_core::driver::Retention;

/// Settings of a [`MemoryDriver`](crate::MemoryDriver).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemoryOptions {
    /// What the store's clock shows at the start; it then follows tokio's. Default: now.
    pub epoch: Timestamp,
    /// How long finished runs can be read. Default: 24 hours, and at most the latest 100 of
    /// each repository, since they take memory of this very process.
    pub retention: Retention,
}

impl Default for MemoryOptions {
    fn default() -> Self {
        Self {
            epoch: SystemTime::now().into(),
            retention: Retention::new(Duration::from_secs(24 * 60 * 60), 100),
        }
    }
}
