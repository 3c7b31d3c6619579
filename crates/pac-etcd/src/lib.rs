//! The etcd driver of pac-concurrency: state that survives every controller, on etcd 3.4 or
//! later, one member or a cluster.
//!
//! What an operation costs in requests: a batch of commits one transaction, and with it one
//! entry of the raft log; a read of a repository one; a session three when it is opened and two
//! messages on open streams whenever it is renewed, however many runs it holds.
//!
//! Sessions end by the leases of the store alone. Times of transitions are those of the
//! committing processes: etcd tells its clients no time; see `docs/adr` 30.
//!
//! ```no_run
//! use pac_etcd::{EtcdDriver, EtcdOptions};
//!
//! # async fn connect() -> Result<(), pac_core::Error> {
//! let options = EtcdOptions::new(["etcd-0:2379", "etcd-1:2379", "etcd-2:2379"]);
//! let driver = EtcdDriver::connect(&options).await?;
//! # Ok(())
//! # }
//! ```

mod client;
mod clock;
mod driver;
mod keys;
mod options;
#[cfg(feature = "bench")]
mod raw;
mod record;
mod sessions;
mod store;
mod watch;

pub use driver::EtcdDriver;
pub use options::EtcdOptions;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use raw::RawEtcd;
