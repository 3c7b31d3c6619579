//! Keeping the objects up to date that show the queues of Repositories.
//!
//! The store is asked again and again which repositories have changed, so that nothing that happens
//! can be missed; nothing is ever read back from the cluster. Of several controllers one writes:
//! the one that the next grant goes to. Where a queue is idle there is no such controller, and all
//! write the same. A controller that has written something else than what the queue turns out to be
//! writes once more, since its write may have come last: so what is there in the end is right.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use pac_core::manager::RepositorySummary;
use pac_core::{Error, RepositoryKey, Revision, Uid};
use pac_pipelines::PipelinesController;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use super::each::each_repository;
use super::options::ReportOptions;
use super::pace::Write as Paced;
use super::writes::{Failing, Writes};
use crate::client::Client;
use crate::error::Failure;
use crate::queue::{self, Queue};

/// How many queues are read from the store at once.
const AT_ONCE: usize = 8;

/// How long until the cluster's lists are asked for again that have yet to be taken.
const NOT_LISTED: Duration = Duration::from_secs(1);

/// What may be found before it is taken in.
const FOUND: usize = 64;

/// What an object is to show.
type Write = Paced<RepositoryKey, Queue>;

/// What a look at the store has found of a repository.
#[derive(Debug)]
enum Found {
    /// Its queue is another one.
    Changed {
        repository: RepositoryKey,
        owner: Uid,
        queue: Queue,
        /// Whether another controller shows it.
        is_anothers: bool,
    },
    /// The store, or the cluster, does not have it any more.
    Gone(RepositoryKey),
}

/// Keeps the objects up to date. It never ends.
pub(super) async fn report(
    client: &Client,
    options: &ReportOptions,
    controller: &PipelinesController,
) {
    let (found, taken) = mpsc::channel(FOUND);
    tokio::join!(
        look(options, controller, found),
        write(client, options, taken)
    );
}

/// Looks at the store again and again.
async fn look(
    options: &ReportOptions,
    controller: &PipelinesController,
    found: mpsc::Sender<Found>,
) {
    let mut looker = Looker {
        controller,
        found,
        seen: HashMap::new(),
    };
    loop {
        if !controller.has_listed() {
            sleep(NOT_LISTED.min(options.queue_interval)).await;
            continue;
        }
        if let Err(error) = looker.look().await {
            tracing::debug!(%error, "queues are not shown for a while");
        }
        sleep(options.queue_interval).await;
    }
}

struct Looker<'a> {
    controller: &'a PipelinesController,
    found: mpsc::Sender<Found>,
    /// What was found last: the state, and the Repository that it was shown for.
    seen: HashMap<RepositoryKey, (Revision, Uid)>,
}

impl Looker<'_> {
    async fn look(&mut self) -> Result<(), Error> {
        let mut changed = Vec::new();
        let mut there = HashSet::new();
        let (controller, seen) = (self.controller, &self.seen);
        each_repository(controller, |summary| {
            let view = controller.repository(&summary.repository);
            let Some(owner) = view.filter(|view| !view.deleting).and_then(|view| view.uid) else {
                return;
            };
            there.insert(summary.repository.clone());
            let state = (summary.revision, owner);
            if seen.get(&summary.repository) != Some(&state) {
                changed.push((summary, state));
            }
        })
        .await?;
        let mut gone = Vec::new();
        self.seen.retain(|repository, _| {
            let is_there = there.contains(repository);
            if !is_there {
                gone.push(repository.clone());
            }
            is_there
        });
        for repository in gone {
            self.tell(Found::Gone(repository)).await;
        }
        let read = |(summary, state): (RepositorySummary, (Revision, Uid))| async move {
            let found = found(controller, &summary, &state.1).await;
            (summary.repository, state, found)
        };
        let mut read = stream::iter(changed).map(read).buffer_unordered(AT_ONCE);
        while let Some((repository, state, found)) = read.next().await {
            match found {
                Ok(found) => {
                    self.seen.insert(repository, state);
                    self.tell(found).await;
                }
                // It is not seen yet, and is read with the next look.
                Err(error) => tracing::debug!(%repository, %error, "a queue is not shown"),
            }
        }
        Ok(())
    }

    async fn tell(&self, found: Found) {
        // The other half ends with this one.
        let _ = self.found.send(found).await;
    }
}

async fn found(
    controller: &PipelinesController,
    summary: &RepositorySummary,
    owner: &Uid,
) -> Result<Found, Error> {
    let repository = &summary.repository;
    let (queue, writer) = if summary.running == 0 && summary.queued == 0 {
        (Queue::idle(summary.limit), None)
    } else {
        let status = controller.manager().status(repository).await?;
        (Queue::of(&status), queue::writer(&status))
    };
    let session = controller.manager().session();
    Ok(Found::Changed {
        repository: repository.clone(),
        owner: owner.clone(),
        queue,
        is_anothers: writer.is_some_and(|writer| writer != session),
    })
}

/// Writes what was found.
async fn write(client: &Client, options: &ReportOptions, mut taken: mpsc::Receiver<Found>) {
    let mut writes = Writes::new(
        options.queue_interval,
        options.queues_per_second,
        Failing::Pauses,
    );
    let send = sender(client, options.request_timeout);
    let mut fails = false;
    loop {
        tokio::select! {
            found = taken.recv() => match found {
                Some(found) => take_in(&mut writes, found),
                None => return,
            },
            (write, written) = writes.next(&send) => {
                if let Err(failure) = &written {
                    log(&write.key, failure, fails);
                }
                fails = written.is_err();
            }
        }
    }
}

fn take_in(writes: &mut Writes<'_, RepositoryKey, Queue>, found: Found) {
    let (pace, now) = (&mut writes.pace, Instant::now());
    match found {
        Found::Changed {
            repository,
            owner,
            queue,
            is_anothers: true,
        } => pace.yields(&repository, &owner, queue, now),
        Found::Changed {
            repository,
            owner,
            queue,
            is_anothers: false,
        } => pace.wants(&repository, &owner, queue, || None, now),
        Found::Gone(repository) => pace.forget(&repository),
    }
}

/// How a write is made.
fn sender<'a>(
    client: &'a Client,
    deadline: Duration,
) -> impl Fn(&Write) -> BoxFuture<'a, Result<(), Failure>> {
    move |write| {
        let (repository, owner, queue) = (write.key.clone(), write.uid.clone(), write.value);
        Box::pin(async move {
            // Nothing else is ever asked for.
            let Some(queue) = queue else { return Ok(()) };
            let object = queue.object(&repository, &owner);
            client.apply_queue(&repository, &object, deadline).await
        })
    }
}

fn log(repository: &RepositoryKey, failure: &Failure, again: bool) {
    if again {
        tracing::debug!(%repository, error = %failure, "a queue is not shown");
    } else {
        tracing::warn!(
            %repository,
            error = %failure,
            "a queue is not shown, and is tried again; `pac kubernetes check --queues` says whether \
             its definition and the permission are there"
        );
    }
}
