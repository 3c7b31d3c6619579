//! What a controller for Tekton PipelineRuns calls: creation, reconciliation, completion, limits
//! and recovery of the runs of Repositories, over the concurrency manager of this workspace.
//!
//! It knows no Kubernetes library. It works on small [views](model) of PipelineRuns and
//! Repositories, read from their YAML or JSON, and asks for changes through the trait
//! [`Cluster`]. The [controller](integration) does the rest.

pub mod annotations;
mod clock;
mod cluster;
mod ending;
mod error;
#[cfg(test)]
mod fuzz;
pub mod integration;
pub mod lanes;
pub mod migration;
pub mod model;
pub mod policy;
pub mod queue_manager;
pub mod sections;
pub mod state_manager;
#[cfg(feature = "testing")]
pub mod testing;
pub mod vocabulary;

pub use cluster::{
    Cluster, ClusterEvent, ClusterWatch, EndOutcome, HoldOutcome, Listing, StartOutcome,
    Unreadable, UnreadableObject,
};
pub use error::{ClusterError, ClusterErrorKind, ModelError, PipelinesError};
pub use integration::{
    ControllerOptions, Creation, Mode, Notice, Noticed, Notices, PipelinesController, Preparation,
    Recovery, What,
};
