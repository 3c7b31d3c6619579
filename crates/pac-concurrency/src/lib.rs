//! Per-repository concurrency limits, strict FIFO queues, leases with fencing tokens and
//! watches, on a store that any number of controllers share.
//!
//! ```
//! use pac_concurrency::{Error, Limit, RepositoryKey, Settings};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let manager = pac_concurrency::connect(&Settings::default()).await?;
//! let website: RepositoryKey = "ci/website".parse()?;
//! manager.set_limit(&website, Limit::new(2), None).await?;
//!
//! let answer = manager.with_slot(&website, async { 6 * 7 }).await?;
//! # assert_eq!(answer, 42);
//! # Ok(())
//! # }
//! ```
//!
//! With names of one's own, and with leases:
//!
//! ```
//! use pac_concurrency::{Admission, Error, Limit, RunOutcome, RunRequest, Settings, Turn};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Error> {
//! let manager = pac_concurrency::connect(&Settings::default()).await?;
//! let repository = "ci/website".parse()?;
//! manager.set_limit(&repository, Limit::new(1), None).await?;
//!
//! let first = RunRequest::durable("ci/build-1".parse()?, "uid-1".parse()?);
//! let second = RunRequest::durable("ci/build-2".parse()?, "uid-2".parse()?);
//! let Admission::Started(lease) = manager.admit(&repository, first).await? else {
//!     unreachable!("nothing else runs");
//! };
//! let Admission::Queued(waiter) = manager.admit(&repository, second).await? else {
//!     unreachable!("the limit is 1");
//! };
//! assert_eq!(waiter.position(), Some(1));
//!
//! manager.release(lease, RunOutcome::Completed).await?;
//! let Turn::Started(lease) = waiter.await? else {
//!     unreachable!("nobody has cancelled it");
//! };
//! println!("{} runs with fencing token {}", lease.run(), lease.token());
//! # Ok(())
//! # }
//! ```
//!
//! The [`guide`] has a page for each subject: [a slot in one line](guide::slots),
//! [waiting](guide::waiting), [losing a lease](guide::losing), [controllers](guide::controllers)
//! and [closing](guide::ending).
//!
//! In code, [`Settings`] suffices. To read what operators write (ConfigMaps, Secrets,
//! environment variables, files), use a [`SettingsLoader`].
//!
//! # Features
//!
//! | feature | what it brings | default |
//! | --- | --- | --- |
//! | `memory` | [`MemoryDriver`]: state in this process | yes |
//! | `etcd` | `EtcdDriver`: state in etcd, for any number of processes; building needs `protoc` | no |
//! | `postgres` | `PostgresDriver`: state in PostgreSQL, for any number of processes | no |
//! | `full` | all of these drivers | no |
//! | `kubernetes` | the module `kubernetes`: the controller for PipelineRuns, and a cluster behind a Kubernetes API | no |

mod connect;
pub mod guide;
mod legacy;
pub mod settings;

/// The contract of a store, for those who write a driver, and the protocol and the state that
/// it speaks of.
pub mod driver {
    pub use pac_core::driver::*;
    pub use pac_core::{protocol, state};
}

/// Brings state along: from older systems, or from another store of this project.
pub mod migration {
    pub use crate::legacy::{LegacyStore, read_legacy};
    pub use pac_core::migration::*;
}

/// The queues of PipelineRuns on a Kubernetes cluster: the controller, what it asks of a cluster,
/// and a cluster behind a Kubernetes API.
///
/// ```no_run
/// use std::sync::Arc;
///
/// use pac_concurrency::Settings;
/// use pac_concurrency::kubernetes::{
///     ControllerOptions, KubernetesCluster, KubernetesOptions, Mode, PipelinesController,
/// };
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let manager = pac_concurrency::connect(&Settings::default()).await?;
/// let cluster = KubernetesCluster::connect(&KubernetesOptions::default()).await?;
/// let options = ControllerOptions::default().with_mode(Mode::Takeover);
/// let controller = PipelinesController::new(manager, Arc::new(cluster), options);
/// controller.run().await?;
/// # Ok(())
/// # }
/// ```
#[cfg(feature = "kubernetes")]
pub mod kubernetes {
    pub use pac_kubernetes::*;
    pub use pac_pipelines::*;
}

#[cfg(feature = "bench")]
#[doc(hidden)]
pub use connect::open_raw;
pub use connect::{
    connect, connect_existing, connect_if_enabled, open_driver, open_existing_driver,
};
#[doc(hidden)]
pub use pac_core::file;
pub use pac_core::manager::{
    Admission, AnyLost, ConcurrencyManager, Ending, Event, Events, FinishedRun, Grants, Health,
    Heard, KeepAliveOn, Lease, LeaseLoss, LimitChange, Lost, ManagerOptions, PauseChange, Paused,
    Permit, Permits, QueuedRun, RepositoryStatus, RepositorySummary, RepositoryWatch, RunStatus,
    RunningRun, Slots, Swept, Turn, Update, WaitReason, Waiter,
};
pub use pac_core::protocol::{
    Bump, Cancellation, Claim, Ended, HOLD_GRACE, PauseCondition, Replaces, RunRequest, SkipIf,
    Supersedes, Which,
};
#[cfg(feature = "bench")]
#[doc(hidden)]
pub use pac_core::raw;
pub use pac_core::reader::{Change, RunChange, RunStep, StoreReader, StoreWatch};
pub use pac_core::state::{Moment, Owner, Rules, RulesChange, RunKind, RunOutcome, Terms, Weight};
pub use pac_core::text;
pub use pac_core::{
    Error, ErrorKind, FencingToken, Group, InvalidValue, Limit, LimitVersion, PipelineRunKey,
    Priority, Reason, RepositoryKey, Revision, SessionId, SessionIdentity, SessionInfo, SlotName,
    SlotNames, Stamp, Ticket, Timestamp, Uid, Version,
};
#[cfg(feature = "etcd")]
pub use pac_etcd::{EtcdDriver, EtcdOptions};
#[cfg(feature = "memory")]
pub use pac_memory::{MemoryDriver, MemoryOptions};
#[cfg(feature = "postgres")]
pub use pac_postgres::{
    Authentication as PostgresAuthentication, Migrate, Password as PostgresPassword,
    PostgresDriver, PostgresOptions, PostgresSchema, SchemaStatus, SslMode,
};
pub use settings::{DriverKind, LoadedSettings, Settings, SettingsError, SettingsLoader};

/// Runs the examples of the README as tests.
#[cfg(all(doctest, feature = "memory"))]
#[doc = include_str!("../../../README.md")]
struct Readme;

/// Runs the examples of the operators' guide as tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/operations.md")]
struct Operations;
