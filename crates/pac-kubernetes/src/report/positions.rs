//! Keeping positions up to date on the runs that wait.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use pac_core::manager::{RepositoryStatus, RepositoryWatch};
use pac_core::{Error, PipelineRunKey, RepositoryKey, Uid};
use pac_pipelines::sections::is_section;
use pac_pipelines::{Noticed, PipelinesController, What, vocabulary};
use tokio::time::{Instant, sleep};

use super::each::each_repository;
use super::options::ReportOptions;
use super::pace::Write as Paced;
use super::writes::{Failing, Writes};
use crate::client::Client;
use crate::error::{Failure, FailureKind};
use crate::patch;

/// How long a queue may change before it is looked at: a batch is one change.
const SETTLES: Duration = Duration::from_millis(250);

/// How long until a queue is followed again that could not be.
const AGAIN: Duration = Duration::from_secs(5);

/// The position that a run is to bear.
type Write = Paced<PipelineRunKey, usize>;

/// The next state of a queue; `None` when the manager has ended.
type Looked = Result<Option<(RepositoryWatch, RepositoryStatus)>, Error>;

/// Keeps positions up to date until the controller is gone.
pub(super) async fn report(
    client: &Client,
    options: &ReportOptions,
    controller: &PipelinesController,
) {
    let mut notices = controller.notices();
    let mut keeper = Keeper {
        controller,
        writes: Writes::new(
            options.position_interval,
            options.positions_per_second,
            Failing::GivesUp,
        ),
        followed: HashMap::new(),
        looks: FuturesUnordered::new(),
    };
    let send = sender(client, options.request_timeout);
    loop {
        tokio::select! {
            next = notices.next() => match next {
                Some(Noticed::Notice(notice)) => match notice.what {
                    What::Queued { .. } => keeper.follow(&notice.repository),
                    What::Started { .. } => keeper.started(&notice.run, &notice.uid),
                    _ => {}
                },
                Some(_) => keeper.follow_all().await,
                None => return,
            },
            Some((repository, looked)) = keeper.looks.next() => {
                keeper.looked(repository, looked);
            }
            (write, written) = keeper.writes.next(&send) => {
                if let Err(failure) = written {
                    tracing::debug!(run = %write.key, error = %failure, "a position is not written");
                }
            }
        }
    }
}

struct Keeper<'a> {
    controller: &'a PipelinesController,
    writes: Writes<'a, PipelineRunKey, usize>,
    /// The queues that are followed: those with runs that this controller looks after.
    followed: HashMap<RepositoryKey, Followed>,
    looks: FuturesUnordered<BoxFuture<'a, (RepositoryKey, Looked)>>,
}

#[derive(Debug, Default)]
struct Followed {
    /// The runs whose positions are kept.
    runs: HashMap<PipelineRunKey, Uid>,
    /// A run was queued since the queue was looked at last.
    again: bool,
}

impl<'a> Keeper<'a> {
    fn follow(&mut self, repository: &RepositoryKey) {
        if let Some(followed) = self.followed.get_mut(repository) {
            followed.again = true;
            return;
        }
        let followed = Followed::default();
        self.followed.insert(repository.clone(), followed);
        self.look(repository.clone(), None, SETTLES);
    }

    /// Notices were missed: whatever waits is followed.
    async fn follow_all(&mut self) {
        let controller = self.controller;
        let followed = each_repository(controller, |summary| {
            // A run in the queue of a section has started, and has no position to show.
            if summary.queued > 0 && !is_section(&summary.repository) {
                self.follow(&summary.repository);
            }
        });
        if let Err(error) = followed.await {
            tracing::warn!(%error, "positions are not written for a while");
        }
    }

    /// Looks at a queue as soon as it differs from the last look, after a while.
    fn look(&self, repository: RepositoryKey, watch: Option<RepositoryWatch>, wait: Duration) {
        let controller = self.controller;
        self.looks.push(Box::pin(async move {
            sleep(wait).await;
            let looked = async {
                let mut watch = match watch {
                    Some(watch) => watch,
                    None => controller.manager().watch(&repository).await?,
                };
                match (watch.next().await, watch.failure()) {
                    (Some(update), _) => Ok(Some((watch, update.status))),
                    (None, Some(unreadable)) => Err(unreadable),
                    (None, None) => Ok(None),
                }
            };
            let looked = looked.await;
            (repository, looked)
        }));
    }

    fn looked(&mut self, repository: RepositoryKey, looked: Looked) {
        let (watch, status) = match looked {
            Ok(Some(looked)) => looked,
            Ok(None) => {
                self.followed.remove(&repository);
                return;
            }
            Err(error) => {
                tracing::debug!(%repository, %error, "positions are not written for a while");
                self.look(repository, None, AGAIN);
                return;
            }
        };
        let Some(followed) = self.followed.get_mut(&repository) else {
            return;
        };
        let now = Instant::now();
        let session = self.controller.manager().session();
        let mut waiting = HashMap::new();
        // One controller writes: the one that the grant goes to.
        let ours = status.queued.iter();
        for run in ours.filter(|run| run.owner == Some(session)) {
            let shown = || shown(self.controller, &run.run, &run.uid);
            self.writes
                .pace
                .wants(&run.run, &run.uid, run.position, shown, now);
            waiting.insert(run.run.clone(), run.uid.clone());
        }
        let waits = |run: &PipelineRunKey, uid: &Uid| {
            let mut queued = status.queued.iter();
            queued.any(|queued| queued.run == *run && queued.uid == *uid)
        };
        for (run, uid) in std::mem::take(&mut followed.runs) {
            if waiting.get(&run) == Some(&uid) {
                continue;
            }
            if waits(&run, &uid) {
                // Another controller's by now, which writes it.
                self.writes.pace.forget(&run);
            } else {
                let shown = shown(self.controller, &run, &uid);
                self.writes.pace.clears(&run, &uid, shown, now);
            }
        }
        if waiting.is_empty() && !std::mem::take(&mut followed.again) {
            self.followed.remove(&repository);
            return;
        }
        followed.again = false;
        followed.runs = waiting;
        self.look(repository, Some(watch), SETTLES);
    }

    fn started(&mut self, run: &PipelineRunKey, uid: &Uid) {
        let shown = shown(self.controller, run, uid);
        self.writes.pace.clears(run, uid, shown, Instant::now());
    }
}

/// The position that a run bears, as far as was seen.
fn shown(controller: &PipelinesController, run: &PipelineRunKey, uid: &Uid) -> Option<usize> {
    let view = controller.seen(run).filter(|view| view.uid == *uid)?;
    view.annotation(vocabulary::POSITION)?.parse().ok()
}

/// How a write is made.
fn sender<'a>(
    client: &'a Client,
    deadline: Duration,
) -> impl Fn(&Write) -> BoxFuture<'a, Result<(), Failure>> {
    move |write| Box::pin(send(client, write.clone(), deadline))
}

async fn send(client: &Client, write: Write, deadline: Duration) -> Result<(), Failure> {
    let sent = async {
        match write.value {
            Some(position) => {
                let patch = patch::position(&write.uid, position);
                client.patch(&write.key, patch).await
            }
            None => {
                let gone = patch::annotate(&write.uid, &[(vocabulary::POSITION, None)]);
                client.merge(&write.key, gone).await
            }
        }
    };
    let sent = tokio::time::timeout(deadline, sent).await;
    match sent.unwrap_or_else(|_| Err(Failure::late(deadline))) {
        Ok(_) => Ok(()),
        // It is gone, or does not wait any more: nothing is to be written.
        Err(failure) if matches!(failure.kind, FailureKind::NotFound | FailureKind::Refused) => {
            tracing::debug!(run = %write.key, error = %failure, "a position is not wanted");
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}
