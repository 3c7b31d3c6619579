//! The in-process driver of pac-concurrency: for tests, for replays, and for one process that
//! wants exact queues without a server.
//!
//! State lives as long as the [`MemoryDriver`] and is gone with the process: it survives the
//! death of a manager, not of the process. Several managers share one store by sharing the
//! driver. It runs on tokio's clock, so that paused time moves it.
//!
//! ```
//! use pac_memory::{MemoryDriver, MemoryOptions};
//!
//! let driver = MemoryDriver::new(MemoryOptions::default());
//! ```

mod clock;
mod driver;
mod options;
mod sessions;
mod store;
mod watch;

pub use driver::MemoryDriver;
pub use options::MemoryOptions;
