//! The etcd driver of pac-concurrency: state that survives every controller, on etcd 3.4 or
//! later, one member or a cluster.
//!
//! Requests per operation: a batch of commits is one transaction, and so one entry of the raft log;
//! a read of a repository is one request; opening a session takes three requests, each renewal two
//! messages on open streams, and every third one a small write, however many runs the session holds.
//!
//! A session ends with its etcd lease, or when its process has written nothing for long although
//! somebody renews that lease; see `docs/adr` 35. The time of a transition comes from the clock of the
//! committing process, because etcd tells its clients no time; see `docs/adr` 30.
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
#[cfg(test)]
mod fuzz;
mod keys;
mod legacy;
mod options;
#[cfg(feature = "bench")]
mod raw;
mod record;
mod sessions;
mod store;
mod watch;

pub use driver::EtcdDriver;
pub use legacy::LegacyEtcd;
pub use options::EtcdOptions;
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use raw::RawEtcd;
