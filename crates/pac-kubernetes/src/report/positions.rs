//! Keeping positions up to date on the runs that wait.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use pac_core::manager::{RepositoryStatus, RepositoryWatch};
use pac_core::{Error, PipelineRunKey, RepositoryKey, Uid};
use pac_pipelines::sections::is_section;
use pac_pipelines::{Noticed, PipelinesController, What, vocabulary};
use tokio::time::{Instant, sleep, sleep_until};

use super::bucket::Bucket;
use super::options::ReportOptions;
use super::pace::{Pace, Write};
use crate::client::Client;
use crate::error::{Failure, FailureKind};
use crate::patch;

/// How many writes are under way at once at most.
const AT_ONCE: usize = 4;

/// How long a queue may change before it is looked at: a batch is one change.
const SETTLES: Duration = Duration::from_millis(250);

/// How long until a queue is followed again that could not be.
const AGAIN: Duration = Duration::from_secs(5);

/// How many repositories of the store are read in one page.
const PAGE: usize = 1_000;

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
        client,
        options,
        controller,
        pace: Pace::new(options.position_interval),
        bucket: Bucket::new(options.positions_per_second),
        followed: HashMap::new(),
        looks: FuturesUnordered::new(),
        writes: FuturesUnordered::new(),
    };
    loop {
        let due = keeper.next_write();
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
            Some((write, written)) = keeper.writes.next() => keeper.wrote(&write, &written),
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => keeper.write(),
        }
    }
}

struct Keeper<'a> {
    client: &'a Client,
    options: &'a ReportOptions,
    controller: &'a PipelinesController,
    pace: Pace,
    bucket: Bucket,
    /// The queues that are followed: those with runs that this controller looks after.
    followed: HashMap<RepositoryKey, Followed>,
    looks: FuturesUnordered<BoxFuture<'a, (RepositoryKey, Looked)>>,
    writes: FuturesUnordered<BoxFuture<'a, (Write, Result<(), Failure>)>>,
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
        let mut after: Option<RepositoryKey> = None;
        loop {
            let page = self.controller.manager().list(after.as_ref(), PAGE).await;
            let Ok(page) = page.inspect_err(|error| {
                tracing::warn!(%error, "positions are not written for a while");
            }) else {
                return;
            };
            let is_last = page.len() < PAGE;
            after = page.last().map(|summary| summary.repository.clone());
            // A run in the queue of a section has started, and has no position to show.
            let queues = page
                .iter()
                .filter(|summary| !is_section(&summary.repository));
            for summary in queues.filter(|summary| summary.queued > 0) {
                self.follow(&summary.repository);
            }
            if is_last {
                return;
            }
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
                let update = watch.next().await;
                Ok(update.map(|update| (watch, update.status)))
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
            self.pace
                .waits(&run.run, &run.uid, run.position, shown, now);
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
                self.pace.forget(&run);
            } else {
                let shown = shown(self.controller, &run, &uid);
                self.pace.left(&run, &uid, shown, now);
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
        self.pace.left(run, uid, shown, Instant::now());
    }

    /// When there is something to write, and a request may be made for it.
    fn next_write(&self) -> Option<Instant> {
        let due = self.pace.next_due()?;
        (self.writes.len() < AT_ONCE).then(|| self.bucket.next(Instant::now()).max(due))
    }

    fn write(&mut self) {
        let now = Instant::now();
        // The instant may have come for one of the two alone.
        if self.bucket.next(now) > now {
            return;
        }
        if let Some(write) = self.pace.take(now) {
            self.bucket.take(now);
            let (client, deadline) = (self.client, self.options.request_timeout);
            self.writes.push(Box::pin(async move {
                let written = send(client, &write, deadline).await;
                (write, written)
            }));
        }
    }

    fn wrote(&mut self, write: &Write, written: &Result<(), Failure>) {
        if let Err(failure) = written {
            tracing::debug!(run = %write.run, error = %failure, "a position is not written");
        }
        self.pace.wrote(write, written.is_ok(), Instant::now());
    }
}

/// The position that a run bears, as far as was seen.
fn shown(controller: &PipelinesController, run: &PipelineRunKey, uid: &Uid) -> Option<usize> {
    let view = controller.seen(run).filter(|view| view.uid == *uid)?;
    view.annotation(vocabulary::POSITION)?.parse().ok()
}

async fn send(client: &Client, write: &Write, deadline: Duration) -> Result<(), Failure> {
    let sent = async {
        match write.position {
            Some(position) => {
                let patch = patch::position(&write.uid, position);
                client.patch(&write.run, patch).await
            }
            None => {
                let gone = patch::annotate(&write.uid, &[(vocabulary::POSITION, None)]);
                client.merge(&write.run, gone).await
            }
        }
    };
    let sent = tokio::time::timeout(deadline, sent).await;
    match sent.unwrap_or_else(|_| Err(Failure::late(deadline))) {
        Ok(_) => Ok(()),
        // It is gone, or does not wait any more: nothing is to be written.
        Err(failure) if matches!(failure.kind, FailureKind::NotFound | FailureKind::Refused) => {
            tracing::debug!(run = %write.run, error = %failure, "a position is not wanted");
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}
