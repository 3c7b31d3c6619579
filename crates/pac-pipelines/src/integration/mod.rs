//! The controller: PipelineRuns of a cluster queue and start by the limits of their Repositories.
//!
//! Data flows one way. An event, a grant or a list changes what is [seen](crate::ClusterEvent) of
//! the cluster and marks a Repository; marked Repositories are looked at one by one: what the
//! cluster shows and what the store knows are put beside each other, [`decide`] says what is to
//! be done about each run, and that is carried out. So it does not matter in which order things
//! are heard, or whether some are heard twice: the next look sees them all.
//!
//! - A slot is granted by the store alone. A run that was granted one is started by a change that
//!   is conditional on its uid and on being held back, so that no run starts twice.
//! - A slot is freed when the condition `Succeeded` says that the run has ended, whatever becomes
//!   of a report to the Git provider; when the run never started and never will; or when it is
//!   gone.
//! - What the cluster runs is counted, also beyond the limit; then nothing else starts.
//! - A [section](crate::sections) is looked at in the same way, as a repository of the store that
//!   no Repository of the cluster stands behind.
//! - A run that was ended in the store alone, as by `pac cancel`, by a newer run of its group or
//!   because it has waited for as long as it may, never starts: with the next comparison at the
//!   latest, the cluster is asked to end it, and its `finally` tasks do not run.
//! - A running run that was asked to end in the store is asked to end in the cluster, as
//!   Pipelines-as-Code does it, and keeps its slot until it has ended.

mod admit;
mod asked;
mod batch;
mod carry_out;
mod creation;
mod decide;
mod ends;
mod engine;
mod follow;
mod limits;
mod notices;
mod options;
mod pass;
mod phase;
mod plan;
mod ready;
mod recovery;
mod rules;
mod sections;
pub(crate) mod seen;
mod start;
mod work;

use std::sync::Arc;

use pac_core::PipelineRunKey;
use pac_core::RepositoryKey;
use pac_core::manager::{ConcurrencyManager, RunStatus};

pub use batch::{Batches, batches};
pub use creation::Creation;
pub use decide::{Holder, Known, Step, decide};
pub use limits::{EffectiveLimit, GlobalLimit};
pub use notices::{Notice, Noticed, Notices, What};
pub use options::{ControllerOptions, Mode};
pub use phase::Phase;
pub use ready::Preparation;
pub use recovery::Recovery;

use engine::Engine;
use seen::RepositoryState;

use crate::cluster::{Cluster, ClusterEvent};
use crate::error::PipelinesError;
use crate::model::{RepositoryView, RunView};

/// What a controller for PipelineRuns calls: the limits and queues of Repositories over a
/// [`ConcurrencyManager`], and a [`Cluster`] that is asked for changes.
///
/// [`run`](Self::run) does everything by itself. A program with an event loop of its own calls
/// [`create`](Self::create), [`observe`](Self::observe) and [`recover`](Self::recover) beside it.
/// Any number of controllers may share a store and a cluster. Cheap to clone; all clones are the
/// same controller.
#[derive(Debug, Clone)]
pub struct PipelinesController {
    engine: Arc<Engine>,
}

impl PipelinesController {
    /// A controller over a manager of its own and a cluster.
    #[must_use]
    pub fn new(
        manager: ConcurrencyManager,
        cluster: Arc<dyn Cluster>,
        options: ControllerOptions,
    ) -> Self {
        Self {
            engine: Arc::new(Engine::new(manager, cluster, options)),
        }
    }

    /// Takes something in that happened in the cluster, beside what [`run`](Self::run) hears of
    /// its own watch. Events may come twice, late and out of order.
    pub fn observe(&self, event: ClusterEvent) {
        if self.engine.observe(event) {
            self.engine.look_at_everything();
        }
    }

    /// Compares the store with the cluster's lists once, and brings both together, as
    /// [`run`](Self::run) does at its start and from time to time. Two requests, or their pages,
    /// to the cluster (three in [`Mode::Gate`]), however many runs there are, and a read of each
    /// run that holds a slot or a place in the store and is not in the list: it has mostly just
    /// ended.
    ///
    /// # Errors
    /// Those of listing, in the cluster or the store. A Repository that cannot be seen to is no
    /// error: it is in [`Recovery::failed`], and tried again.
    pub async fn recover(&self) -> Result<Recovery, PipelinesError> {
        self.engine.recover().await
    }

    /// Where a run stands; one that the store does not know is [`RunStatus::Unknown`].
    ///
    /// # Errors
    /// Those of reading from the store.
    pub async fn status(
        &self,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
    ) -> Result<RunStatus, PipelinesError> {
        Ok(self.engine.manager.run_status(repository, run).await?)
    }

    /// Whether nothing is being done, and nothing is due: what has been observed is seen to.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.engine.work.is_idle() && !self.engine.is_starting()
    }

    /// Whether the cluster's lists have been taken once.
    #[must_use]
    pub fn has_listed(&self) -> bool {
        self.engine.listed.initialized()
    }

    /// The manager below.
    #[must_use]
    pub fn manager(&self) -> &ConcurrencyManager {
        &self.engine.manager
    }

    /// What happens to runs from now on, for people to see. It holds nothing up: a reader that is
    /// slow misses notices.
    #[must_use]
    pub fn notices(&self) -> Notices {
        self.engine.notices.subscribe()
    }

    /// A run of the cluster as it was seen last; `None` where there is none of this name.
    #[must_use]
    pub fn seen(&self, run: &PipelineRunKey) -> Option<Arc<RunView>> {
        self.engine.seen().run(run).cloned()
    }

    /// A Repository of the cluster as it was seen last; `None` where there is none of this name, or
    /// one that cannot be understood.
    #[must_use]
    pub fn repository(&self, repository: &RepositoryKey) -> Option<RepositoryView> {
        match self.engine.seen().repository(repository)? {
            RepositoryState::Known(view, _) => Some(view.clone()),
            RepositoryState::Unreadable(_) | RepositoryState::Deleted(_) => None,
        }
    }

    /// How many runs of the cluster are known.
    #[must_use]
    pub fn known_runs(&self) -> usize {
        self.engine.seen().len()
    }
}
