//! What people see of the queues: events on PipelineRuns, the position of each run that waits, and an
//! object for each Repository.
//!
//! A [`Reporter`] reads what a controller [tells](pac_pipelines::Notices), and follows the queues
//! in which the controller has runs. It works in its own task, with requests of its own that are
//! few and have deadlines: whatever becomes of them, no run starts later. What cannot be written
//! is logged and dropped.
//!
//! | reason | type | when |
//! | --- | --- | --- |
//! | `Queued` | Normal | a run waits: "queued at position 3 of 7 in ci/website, 2 running of at most 2" |
//! | `Started` | Normal | "started with token 41" |
//! | `StartedUnprepared` | Warning | it was started although Pipelines-as-Code had not prepared it in time |
//! | `StartFailed` | Warning | the cluster refused the start; the run has its old place back |
//! | `Requeued` | Warning | its slot was freed because no controller looked after it |
//! | `CancelledInStore` | Normal | it was cancelled in the store, as by `pac cancel`, and is ended in the cluster |
//! | `NotManaged` | Warning | its Repository is in two modes |
//! | `SectionQueued`, `SectionEntered` | Normal | a run waits for a section, or is in it: "in section gpu with token 41" |
//! | `SectionLost` | Warning | its slot in a section was free for others for a time |
//! | `SectionRefused` | Warning | its request for a section was ended in the store |
//! | `InvalidAnnotation` | Warning | an annotation breaks its rule and counts as absent |
//!
//! An event has a name that follows from the run and what has happened, so that several controllers
//! make it once. What happens to a run again and again is one event with a series.

mod bucket;
mod each;
mod event;
mod events;
mod memory;
mod options;
mod pace;
mod positions;
mod queues;
mod writes;

pub use options::ReportOptions;

use pac_pipelines::PipelinesController;

use crate::client::Client;
use crate::cluster::KubernetesCluster;

/// Writes events, positions and queues for people to see.
#[derive(Debug, Clone)]
pub struct Reporter {
    client: Client,
    options: ReportOptions,
}

impl Reporter {
    /// A reporter to a cluster.
    #[must_use]
    pub fn new(cluster: &KubernetesCluster, options: ReportOptions) -> Self {
        Self {
            client: cluster.client(),
            options,
        }
    }

    /// Reports what a controller does from now on. It never ends: drop it to end it, in a task of
    /// its own beside [`PipelinesController::run`]. Dropped, a request that is under way is done or
    /// not done.
    pub async fn run(&self, controller: &PipelinesController) {
        tokio::join!(
            async {
                if self.options.events {
                    events::report(&self.client, &self.options, controller).await;
                }
            },
            async {
                if self.options.positions {
                    positions::report(&self.client, &self.options, controller).await;
                }
            },
            async {
                if self.options.queues {
                    queues::report(&self.client, &self.options, controller).await;
                }
            },
        );
    }
}
