//! Small views of the cluster's objects: what deciding about them needs, and no more.
//!
//! Read from their real YAML or JSON; everything that is not needed is passed over. What is
//! needed and cannot be understood is an error that names the object, the field, the rule and the
//! cure.

mod document;
mod fields;
#[cfg(test)]
mod fuzz;
mod hash;
mod namespace;
mod natural;
mod object;
mod order;
mod repository;
mod run;
mod status;
mod time;
mod version;
mod yaml;

pub use document::{Object, Placed, parse_documents, parse_placed};
pub use hash::stable_hash;
pub use namespace::NamespaceView;
pub use natural::natural_order;
pub use order::{ExecutionOrder, Malformed};
pub use repository::RepositoryView;
pub use run::{RunManifest, RunView};
pub use status::{Condition, ConditionStatus, PacState, SpecStatus};
pub use version::ResourceVersion;
