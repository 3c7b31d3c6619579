//! Without the feature `kubernetes` no cluster is asked.

use pac_concurrency::{PipelineRunKey, RepositoryStatus, Uid};

use crate::event::EventShape;
use crate::exit::{Exit, Failure};

/// There is nothing to choose.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {}

/// There is none.
#[derive(Debug)]
pub(super) enum Origins {}

#[allow(
    clippy::unused_async,
    clippy::unused_self,
    clippy::unnecessary_wraps,
    reason = "the same signature as with the feature"
)]
impl ClusterArgs {
    pub(super) async fn origins(&self) -> Result<Option<Origins>, Failure> {
        Ok(None)
    }
}

#[allow(
    clippy::unused_async,
    reason = "the same signature as with the feature"
)]
impl Origins {
    pub(super) async fn read(&mut self, _: &RepositoryStatus) {
        match *self {}
    }

    pub(super) fn of(&self, _: &PipelineRunKey, _: &Uid) -> EventShape<'_> {
        match *self {}
    }

    pub(super) fn exit(&self) -> Option<Exit> {
        match *self {}
    }
}
