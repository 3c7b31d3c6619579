//! The cluster of `pac_pipelines` on a Kubernetes API: beside an unmodified Pipelines-as-Code.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use pac_kubernetes::{KubernetesCluster, KubernetesError, KubernetesOptions};
//! use pac_pipelines::Cluster;
//!
//! # async fn example() -> Result<(), KubernetesError> {
//! let options = KubernetesOptions::default().with_namespace("ci");
//! let cluster: Arc<dyn Cluster> = Arc::new(KubernetesCluster::connect(&options).await?);
//! # Ok(())
//! # }
//! ```
//!
//! PipelineRuns and Repositories are read as far as limits and queues go; nothing else of them is
//! kept. Every change is one patch that holds only for the uid that was meant. Nothing is sent
//! twice by itself: where an answer is lost, the object is read before anything is said about it.
//!
//! TLS is rustls with ring. A program whose dependencies bring a second provider of rustls has to
//! install one of them for the process before it connects.
//!
//! # What it needs to be allowed
//!
//! | resource | verbs |
//! | --- | --- |
//! | `pipelineruns` of `tekton.dev` | get, list, watch, patch |
//! | `repositories` of `pipelinesascode.tekton.dev` | get, list, watch |
//! | `namespaces`, with [lanes](KubernetesOptions::lanes) | get, list, watch |
//! | `events` of `events.k8s.io`, for a [`Reporter`] | create, patch |
//! | `concurrencyqueues` of `concurrency.pipelinesascode.tekton.dev`, for one that writes [them](ReportOptions::queues) | create, patch |
//!
//! An installation ([`install`]) and an admission webhook ([`webhook`]) have their own.
//!
//! A [`SectionStep`](section::SectionStep) runs in the pod of a Task, under an account that may get
//! and patch `pipelineruns` of its namespace.
//!
//! # What people see
//!
//! A [`Reporter`] makes events on PipelineRuns and writes the positions of those that wait: queued,
//! started, given back, not managed and why. It never holds a controller up, and nothing reads what
//! it has written.
//!
//! | annotation on a PipelineRun that waits | value |
//! | --- | --- |
//! | `concurrency.pipelinesascode.tekton.dev/queue-position` | its position in the queue of its Repository, 1 is next; written at most every 10 s, gone once it has started |
//!
//! On request it also keeps an object for each Repository, `concurrencyqueues` of
//! `concurrency.pipelinesascode.tekton.dev`, whose `status` has `limit`, `running`, `waiting` and
//! `oldestWaitingSince`. Its definition is installed on request alone
//! ([`Install::with_queues`](install::Install::with_queues)).

mod cache;
mod client;
mod cluster;
mod decide;
mod error;
pub mod install;
mod kubeconfig;
mod object;
mod options;
mod origin;
mod patch;
mod queue;
mod report;
pub mod section;
mod watch;
pub mod webhook;

pub use cluster::KubernetesCluster;
pub use error::KubernetesError;
pub use options::KubernetesOptions;
pub use origin::{RunOrigin, RunOrigins};
pub use report::{ReportOptions, Reporter};
