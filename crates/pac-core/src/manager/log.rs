//! The lines that operators look for, word for word.
//!
//! Out of line: who asks for slots without a log pays for a comparison each time, and no more.

use super::session::fence::Fence;
use crate::identity::SessionInfo;
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::protocol::Death;
use crate::value::SessionId;

#[cold]
pub(super) fn acquired(run: &PipelineRunKey) {
    tracing::info!("acquired concurrency slot for {run}");
}

#[cold]
pub(super) fn limit_reached(repository: &RepositoryKey) {
    tracing::info!("concurrency limit reached for repository {repository}");
}

/// `what` says whether it is the first.
#[cold]
pub(super) fn session_opened(what: &str, fence: &Fence) {
    let (session, _) = fence.session();
    let identity = fence.identity();
    let version = identity.version();
    tracing::info!(%session, %identity, version, "{what}");
}

#[cold]
pub(super) fn session_died(session: SessionId, death: Death, info: &SessionInfo) {
    let identity = info.identity;
    let since = info.opened_at.map(tracing::field::display);
    match death {
        Death::Session => tracing::info!(%session, %identity, since, "a session is dead"),
        Death::Lease => {
            tracing::info!(%session, %identity, since, "the lease TTL of a dead session has passed");
        }
    }
}
