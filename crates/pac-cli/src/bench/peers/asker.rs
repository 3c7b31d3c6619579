//! A task's place of a limit, kept by this project or by a peer, and the process that has such tasks.

use std::time::{Duration, Instant};

use pac_concurrency::raw::{PEER_TTL, RawPlace};
use pac_concurrency::{ConcurrencyManager, Lease, RepositoryKey, RunOutcome, RunRequest};
use tokio::task::JoinSet;
use tokio::time::{timeout, timeout_at};

use super::turns::{Part, Turn};
use crate::bench::contended::now;
use crate::bench::load::{Names, acquire};
use crate::bench::place::{Place, bug, repository};
use crate::bench::worker::Asked;
use crate::exit::Failure;

/// At the beginning of a round, this does not count.
const WARM_UP: Duration = Duration::from_millis(100);

/// After a round, tasks wait for so long for the turn that they have asked for. The lock service of
/// etcd 3.4 wakes nobody any more, until etcd is restarted, after many have given up waiting.
const DRAIN: Duration = Duration::from_secs(2);

/// What a worker is asked to do.
#[derive(Debug, Clone, Copy, serde::Serialize, serde::Deserialize)]
pub(super) enum Step {
    /// All tasks take turns for so long. The process does no more after that.
    Round(Duration),
    /// One task takes the place and keeps it.
    Take,
    /// It gives it back, and tells when it began to.
    Give,
    /// One task asks, for so long at most, tells when it ran, and gives the place back.
    Wait(Duration),
}

/// The repository whose limit is compared.
pub(super) fn limited(limit: u32) -> Result<RepositoryKey, Failure> {
    repository(&format!("peers-{limit}"))
}

/// One task and what it asks for its turns.
enum Asker {
    Ours {
        manager: ConcurrencyManager,
        repository: RepositoryKey,
        names: Names,
        lease: Option<Lease>,
    },
    Theirs(Box<dyn RawPlace>),
}

impl Asker {
    async fn acquire(&mut self) -> Result<(), Failure> {
        match self {
            Self::Ours {
                manager,
                repository,
                names,
                lease,
            } => {
                let RunRequest { run, uid, .. } = names.next()?;
                // The process that asks does the work itself, as all others here do.
                let request = RunRequest::ephemeral(run, uid);
                *lease = Some(acquire(manager, repository, request).await?);
            }
            Self::Theirs(place) => place.acquire().await?,
        }
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Failure> {
        match self {
            Self::Ours { manager, lease, .. } => {
                if let Some(lease) = lease.take() {
                    manager.release(lease, RunOutcome::Completed).await?;
                }
            }
            Self::Theirs(place) => place.release().await?,
        }
        Ok(())
    }

    /// Takes turns until the end. A turn that comes later does not count.
    async fn take_turns(mut self, end: Instant) -> Result<Vec<Turn>, Failure> {
        let mut turns = Vec::new();
        while Instant::now() < end {
            let asked = now();
            let mut acquiring = Box::pin(self.acquire());
            let Ok(acquired) = timeout_at(end.into(), &mut acquiring).await else {
                turns.push(Turn::awaited(asked));
                if let Ok(acquired) = timeout(DRAIN, acquiring).await {
                    acquired?;
                    self.release().await?;
                }
                break;
            };
            drop(acquiring);
            acquired?;
            let got = now();
            // Yield while holding the place, as working tasks do.
            tokio::task::yield_now().await;
            let gave = now();
            self.release().await?;
            turns.push(Turn { asked, got, gave });
        }
        Ok(turns)
    }
}

/// Runs one of the processes.
pub(in crate::bench) async fn take_part(
    place: &Place,
    peer: Option<usize>,
    limit: u32,
    tasks: usize,
    asked: &mut Asked,
) -> Result<(), Failure> {
    let (manager, mut askers) = askers(place, peer, limit, tasks).await?;
    asked.answer(&"ready")?;
    while let Some(step) = asked.next() {
        let first = askers.first_mut().ok_or_else(|| bug("no task"))?;
        match serde_json::from_str(&step).map_err(bug)? {
            Step::Round(length) => {
                asked.answer(&round(askers, length).await?)?;
                return close(manager).await;
            }
            Step::Take => {
                first.acquire().await?;
                asked.answer(&"taken")?;
            }
            Step::Give => {
                let gave = now();
                first.release().await?;
                asked.answer(&gave)?;
            }
            Step::Wait(longest) => {
                asked.answer(&"waiting")?;
                let Ok(ran) = timeout(longest, first.acquire()).await else {
                    // What was asked for may still come, so this process does no more.
                    return asked.answer(&None::<u64>);
                };
                ran?;
                asked.answer(&Some(now()))?;
                first.release().await?;
            }
        }
    }
    drop(askers);
    close(manager).await
}

async fn close(manager: Option<ConcurrencyManager>) -> Result<(), Failure> {
    match manager {
        Some(manager) => Ok(manager.close().await?),
        None => Ok(()),
    }
}

/// The tasks of a process; with our manager, if they use it.
async fn askers(
    place: &Place,
    peer: Option<usize>,
    limit: u32,
    tasks: usize,
) -> Result<(Option<ConcurrencyManager>, Vec<Asker>), Failure> {
    let mut askers = Vec::new();
    let Some(peer) = peer else {
        let mut settings = place.settings().clone();
        settings.manager.session_ttl = PEER_TTL;
        let manager = pac_concurrency::connect(&settings).await?;
        let names = Names::new(&format!("peer-{}", std::process::id()));
        for _ in 0..tasks {
            askers.push(Asker::Ours {
                manager: manager.clone(),
                repository: limited(limit)?,
                names: names.clone(),
                lease: None,
            });
        }
        return Ok((Some(manager), askers));
    };
    let raw = place.raw().await?;
    let raw = raw.ok_or_else(|| bug("a store without peers"))?;
    let peer = raw.peers().get(peer).ok_or_else(|| bug("no such peer"))?;
    for _ in 0..tasks {
        askers.push(Asker::Theirs(raw.place(*peer, limit).await?));
    }
    Ok((None, askers))
}

async fn round(askers: Vec<Asker>, length: Duration) -> Result<Part, Failure> {
    let end = Instant::now() + WARM_UP + length;
    let from = now() + nanos(WARM_UP);
    let mut part = Part {
        turns: Vec::new(),
        from,
        to: from + nanos(length),
    };
    let mut tasks = JoinSet::new();
    for asker in askers {
        tasks.spawn(asker.take_turns(end));
    }
    while let Some(task) = tasks.join_next().await {
        part.turns.extend(task.map_err(bug)??);
    }
    Ok(part)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
