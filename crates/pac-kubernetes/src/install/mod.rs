//! What a cluster needs for the controller: the objects to apply, and applying, examining and
//! removing them.
//!
//! [`Install`] says what is wanted; [`Install::manifests`] makes the objects of it and does no
//! I/O.

mod manifest;
mod options;
mod policies;
mod rbac;
mod settings;
mod workload;

pub use manifest::{Manifest, ManifestError, to_document, to_yaml};
pub use options::{Install, InstallMode, StoreDriver};
