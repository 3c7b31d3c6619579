//! The lines that operators look for, word for word.
//!
//! Out of line: who asks for slots without a log pays for a comparison each time, and no more.

use crate::name::{PipelineRunKey, RepositoryKey};

#[cold]
pub(super) fn acquired(run: &PipelineRunKey) {
    tracing::info!("acquired concurrency slot for {run}");
}

#[cold]
pub(super) fn limit_reached(repository: &RepositoryKey) {
    tracing::info!("concurrency limit reached for repository {repository}");
}
