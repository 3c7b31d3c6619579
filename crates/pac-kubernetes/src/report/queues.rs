//! Keeping the objects up to date that show the queues of Repositories.
//!
//! The store is asked again and again which repositories have changed, so that nothing that happens
//! can be missed; nothing is ever read back from the cluster. Of several controllers one writes:
//! the one that the next grant goes to. Where a queue is idle there is no such controller, and all
//! write the same. A controller that has written something else than what the queue turns out to be
//! writes once more, since its write may have come last: so what is there in the end is right. The
//! one that the next grant goes to may also be no controller, or one that shows no queues: what stays
//! the same for long is written by all.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, StreamExt};
use pac_core::manager::RepositorySummary;
use pac_core::{Error, Limit, RepositoryKey, Revision, Uid};
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

/// After how many looks at the same state of a queue that another process shows, it is written by
/// this controller, too.
const LATE: u32 = 30;

/// How long until the cluster's lists are asked for again that have yet to be taken.
const NOT_LISTED: Duration = Duration::from_secs(1);

/// Between two looks at least, whatever the options say.
const SHORTEST: Duration = Duration::from_millis(10);

/// What may be found before it is taken in.
const FOUND: usize = 64;

/// What an object is to show.
type Write = Paced<RepositoryKey, Queue>;

/// What a look at the store has found.
#[derive(Debug)]
enum Found {
    /// Its queue is another one.
    Changed {
        repository: RepositoryKey,
        owner: Uid,
        queue: Queue,
        /// Whether another process shows it.
        is_anothers: bool,
    },
    /// The cluster does not have it any more.
    Gone(RepositoryKey),
    /// Everything was found to be as it was told; the look began at this time.
    Complete(Instant),
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
    let interval = options.queue_interval.max(SHORTEST);
    loop {
        if !controller.has_listed() {
            sleep(NOT_LISTED.min(interval)).await;
            continue;
        }
        if let Err(error) = looker.look().await {
            tracing::debug!(%error, "queues are not shown for a while");
        }
        sleep(interval).await;
    }
}

struct Looker<'a> {
    controller: &'a PipelinesController,
    found: mpsc::Sender<Found>,
    /// What was found last.
    seen: HashMap<RepositoryKey, Seen>,
}

/// What was found of a repository.
#[derive(Debug)]
struct Seen {
    /// `None` where the store does not have it any more.
    revision: Option<Revision>,
    /// The uid of the Repository that it was shown for.
    owner: Uid,
    /// After how many looks it is written by this controller, too; `None` if it was, or is.
    late_in: Option<u32>,
}

impl Looker<'_> {
    async fn look(&mut self) -> Result<(), Error> {
        let begun = Instant::now();
        let mut is_complete = true;
        let mut changed = Vec::new();
        let mut there = HashSet::new();
        let (controller, seen) = (self.controller, &mut self.seen);
        each_repository(controller, |summary| {
            let view = controller.repository(&summary.repository);
            let Some(owner) = view.filter(|view| !view.deleting).and_then(|view| view.uid) else {
                return;
            };
            there.insert(summary.repository.clone());
            let seen = seen.get_mut(&summary.repository);
            let seen = seen.filter(|seen| seen.is(summary.revision, &owner));
            let is_late = seen.map(Seen::look);
            if is_late != Some(false) {
                changed.push((summary, owner, is_late.is_some()));
            }
        })
        .await?;
        self.tell_missing(&there).await;
        let read = |(summary, owner, is_late): (RepositorySummary, Uid, bool)| async move {
            let found = found(controller, &summary, &owner, is_late).await;
            (summary, owner, found)
        };
        let mut read = stream::iter(changed).map(read).buffer_unordered(AT_ONCE);
        while let Some((summary, owner, found)) = read.next().await {
            match found {
                Ok((found, is_anothers)) => {
                    let seen = Seen {
                        revision: Some(summary.revision),
                        owner,
                        late_in: is_anothers.then_some(LATE),
                    };
                    self.seen.insert(summary.repository, seen);
                    self.tell(found).await;
                }
                // It is not seen yet, and is read with the next look.
                Err(error) => {
                    let repository = summary.repository;
                    tracing::debug!(%repository, %error, "a queue is not shown");
                    is_complete = false;
                }
            }
        }
        if is_complete {
            self.tell(Found::Complete(begun)).await;
        }
        Ok(())
    }

    /// Tells of those that were shown, and of which the store has nothing, or that are not there
    /// any more. Of a Repository that is there, what the store has forgotten is shown as idle.
    async fn tell_missing(&mut self, there: &HashSet<RepositoryKey>) {
        let mut found = Vec::new();
        let controller = self.controller;
        self.seen.retain(|repository, seen| {
            if there.contains(repository) {
                return true;
            }
            let view = controller.repository(repository);
            let Some(owner) = view.filter(|view| !view.deleting).and_then(|view| view.uid) else {
                found.push(Found::Gone(repository.clone()));
                return false;
            };
            if seen.revision.is_none() && seen.owner == owner {
                return true;
            }
            found.push(Found::Changed {
                repository: repository.clone(),
                owner: owner.clone(),
                queue: Queue::idle(Limit::UNLIMITED),
                is_anothers: false,
            });
            *seen = Seen {
                revision: None,
                owner,
                late_in: None,
            };
            true
        });
        for found in found {
            self.tell(found).await;
        }
    }

    async fn tell(&self, found: Found) {
        // The other half ends with this one.
        let _ = self.found.send(found).await;
    }
}

impl Seen {
    /// Whether this is the state of a Repository.
    fn is(&self, revision: Revision, owner: &Uid) -> bool {
        self.revision == Some(revision) && self.owner == *owner
    }

    /// Counts a look at the same state; true when it is late.
    fn look(&mut self) -> bool {
        let left = self.late_in.map(|left| left.saturating_sub(1));
        self.late_in = left.filter(|left| *left > 0);
        left == Some(0)
    }
}

/// Reads a queue; with it, whether another process shows it.
async fn found(
    controller: &PipelinesController,
    summary: &RepositorySummary,
    owner: &Uid,
    is_late: bool,
) -> Result<(Found, bool), Error> {
    let repository = &summary.repository;
    let (queue, writer) = if summary.running == 0 && summary.queued == 0 {
        (Queue::idle(summary.limit), None)
    } else {
        let status = controller.manager().status(repository).await?;
        (Queue::of(&status), queue::writer(&status))
    };
    let session = controller.manager().session();
    let is_anothers = !is_late && writer.is_some_and(|writer| writer != session);
    let found = Found::Changed {
        repository: repository.clone(),
        owner: owner.clone(),
        queue,
        is_anothers,
    };
    Ok((found, is_anothers))
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
        Found::Complete(begun) => pace.confirm(begun),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_another_process_shows_is_written_once_when_it_has_stayed_the_same_for_long() {
        let seen = |late_in| Seen {
            revision: Some(Revision::new(7)),
            owner: "u".parse().unwrap(),
            late_in,
        };
        let mut anothers = seen(Some(LATE));
        let late: Vec<_> = (1..=3 * LATE).filter(|_| anothers.look()).collect();
        assert_eq!(late, [LATE]);
        let mut ours = seen(None);
        assert!((0..3 * LATE).all(|_| !ours.look()));
        assert!(ours.is(Revision::new(7), &"u".parse().unwrap()));
        assert!(!ours.is(Revision::new(8), &"u".parse().unwrap()));
        assert!(!ours.is(Revision::new(7), &"v".parse().unwrap()));
    }
}
