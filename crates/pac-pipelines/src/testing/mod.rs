//! A cluster in memory, for tests: it keeps objects, does what Tekton does with them, fails when
//! it is told to, and counts what is asked of it.
//!
//! Randomness comes from a seed, time from tokio's clock: a test on paused time that names its
//! seed happens the same way every time.

mod api;
mod cluster;
mod faults;
mod ledger;
mod tekton;
mod watch;
mod world;

pub use cluster::{MemoryCluster, NewRun};
pub use faults::{ClusterFaults, Requests, StartFault};
pub use tekton::TektonMode;
