//! Repositories, runs and uids for the cases.

use pac_core::protocol::RunRequest;
use pac_core::{PipelineRunKey, Priority, RepositoryKey, Uid};

/// Names of repositories that are easily confused: prefixes of each other, and the same text
/// split at another place.
pub const PREFIX_NAMES: [&str; 7] = [
    "team/web",
    "team/web-api",
    "team/web.api",
    "team/webapi",
    "team-web/api",
    "team-w/eb",
    "tea/m-web",
];

/// The repository `ci/<name>`.
#[must_use]
pub fn repository(name: &str) -> RepositoryKey {
    RepositoryKey::new("ci", name).unwrap()
}

/// The run `ci/<name>`.
#[must_use]
pub fn run(name: &str) -> PipelineRunKey {
    PipelineRunKey::new("ci", name).unwrap()
}

/// The uid that [`durable`] and [`ephemeral`] give to the run of this name.
#[must_use]
pub fn uid(name: &str) -> Uid {
    format!("uid-of-{name}").parse().unwrap()
}

/// A run that the cluster executes.
#[must_use]
pub fn durable(name: &str) -> RunRequest {
    RunRequest::durable(run(name), uid(name))
}

/// A run that the asking process executes.
#[must_use]
pub fn ephemeral(name: &str) -> RunRequest {
    RunRequest::ephemeral(run(name), uid(name))
}

/// A run that the cluster executes, with a priority.
#[must_use]
pub fn at_priority(name: &str, priority: i32) -> RunRequest {
    durable(name).with_priority(Priority::new(priority))
}
