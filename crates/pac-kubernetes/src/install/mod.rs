//! What a cluster needs for the controller: the objects to apply, and applying, examining and
//! removing them.
//!
//! [`Install`] says what is wanted; [`Install::manifests`] makes the objects of it and does no
//! I/O. [`apply`], [`remove`] and [`check`] work on a cluster over a [`ClusterAccess`];
//! [`onboard`] and [`offboard`] do so where runs wait and run meanwhile.

mod api;
mod apply;
mod canary;
mod check;
mod compare;
mod error;
mod handover;
mod manifest;
mod options;
mod policies;
mod queues;
mod rbac;
mod runs;
mod settings;
mod steps;
mod webhook;
mod workload;

pub use api::ClusterAccess;
pub(crate) use api::{Change, Place, REPOSITORY, SECRET, WEBHOOK_CONFIGURATION};
pub use apply::{ObjectOutcome, Report, apply, remove};
pub use check::{CheckOptions, CheckResult, CheckStep, FoundSettings, JudgeSettings, check};
pub use error::{InstallError, InstallErrorKind};
pub use handover::{HandoverOptions, StepOutcome, Steps, offboard, onboard};
pub use manifest::{Manifest, ManifestError, to_document, to_yaml};
pub use options::{Admission, Install, InstallMode, StoreDriver};
pub use steps::StepActions;
