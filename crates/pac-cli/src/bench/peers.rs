//! A limit that this project keeps, beside what people use instead on the same store: 64 tasks of
//! four processes hand it over as fast as they can.

mod asker;
mod turns;

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::raw::{PEER_TTL, RawStore};
use pac_concurrency::{DriverKind, Limit};
use tokio::time::sleep;

use super::contended::{now, violations_in};
use super::measurement::{Goal, Kept, Measurement};
use super::place::{Place, micros};
use super::statistics::{median, quantile};
use super::worker::{Work, Worker};
use crate::exit::Failure;
use crate::output::note;
use asker::{Step, limited};
use turns::{Part, Turn, overtaken, rate};

pub(super) use asker::take_part;

const PROCESSES: usize = 4;
const TASKS: usize = 16;
const LIMITS: [u32; 2] = [1, 5];

/// How long a task waits, at least, before the holder gives its place back: by then it has asked.
const ASKING: Duration = Duration::from_millis(50);
/// And up to this much longer, so that looking from time to time is met at any moment.
const AT_ANY_TIME: u64 = 100;

/// A way to keep the limit.
#[derive(Debug, Clone, Copy)]
struct Way {
    by: &'static str,
    /// The number of the store's peer; `None`: this project.
    peer: Option<usize>,
}

/// What was measured of one way.
#[derive(Debug, Default)]
struct Found {
    rates: Vec<f64>,
    overtaken: usize,
    violations: usize,
    /// From giving back until the next one ran, in microseconds.
    wakes: Vec<f64>,
    /// From the death of the holder until the next one ran, in seconds; `Some(None)`: it never did.
    after_kill: Option<Option<f64>>,
}

#[derive(Debug, Clone, Copy)]
struct Extent {
    rounds: usize,
    round: Duration,
    wakes: usize,
    /// How long the next one waits for a holder that was killed.
    patience: Duration,
}

impl Extent {
    fn new(quick: bool) -> Self {
        Self {
            rounds: if quick { 3 } else { 10 },
            round: Duration::from_millis(if quick { 300 } else { 1_000 }),
            wakes: if quick { 10 } else { 100 },
            patience: PEER_TTL * if quick { 3 } else { 10 },
        }
    }
}

pub(super) async fn measure(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let Some(raw) = place.raw().await? else {
        note("peers: left out; no other process can reach the memory of this one");
        return Ok(Vec::new());
    };
    let extent = Extent::new(quick);
    let mut rows = Vec::new();
    for limit in LIMITS {
        let manager = place.manager().await?;
        let key = limited(limit)?;
        manager.set_limit(&key, Limit::new(limit), None).await?;
        manager.close().await?;
        let store = Store {
            place,
            raw: &raw,
            limit,
        };
        rows.extend(store.compare(extent).await?);
    }
    Ok(rows)
}

struct Store<'a> {
    place: &'a Place,
    raw: &'a Arc<dyn RawStore>,
    limit: u32,
}

impl Store<'_> {
    /// One row for each way that can keep the limit, ours first.
    async fn compare(&self, extent: Extent) -> Result<Vec<Measurement>, Failure> {
        let ours = Way {
            by: Kept::OURS,
            peer: None,
        };
        let peers = self.raw.peers().iter().enumerate();
        let able = peers.filter(|(_, peer)| self.limit == 1 || peer.counts);
        let theirs = able.map(|(number, peer)| Way {
            by: peer.name,
            peer: Some(number),
        });
        let mut ways: Vec<(Way, Found)> = std::iter::once(ours)
            .chain(theirs)
            .map(|way| (way, Found::default()))
            .collect();
        for _ in 0..extent.rounds {
            for (way, found) in &mut ways {
                self.round(*way, extent.round, found).await?;
            }
        }
        // Waking the next one, and what a dead holder leaves behind, are the same for any limit.
        if self.limit == 1 {
            for (way, found) in &mut ways {
                self.wake(*way, extent.wakes, found).await?;
                self.kill(*way, extent.patience, found).await?;
            }
        }
        let others = ways.iter().filter(|(way, _)| way.peer.is_some());
        let fastest = others
            .map(|(_, found)| median(&found.rates))
            .reduce(f64::max);
        let rows = ways.iter().map(|(way, found)| {
            let row = self.row(*way, found);
            match fastest.filter(|_| way.peer.is_none()) {
                Some(fastest) if self.place.driver() == DriverKind::Etcd => {
                    row.against(fastest).goal(Goal::AtLeast(3.0))
                }
                Some(fastest) => row.against(fastest),
                None => row,
            }
        });
        Ok(rows.collect())
    }

    fn row(&self, way: Way, found: &Found) -> Measurement {
        let row = Measurement {
            violations: Some(found.violations),
            peer: Some(Kept {
                by: way.by,
                limit: self.limit,
                overtaken: found.overtaken,
                after_kill_s: found.after_kill.flatten(),
                leaked: found.after_kill.map(|after| after.is_none()),
            }),
            ..Measurement::of_rounds("peers", &found.rates, "cycles/s")
        };
        if found.wakes.is_empty() {
            return row;
        }
        row.latencies(median(&found.wakes), quantile(&found.wakes, 0.99))
    }

    fn start(&self, way: Way, tasks: usize) -> Result<Worker, Failure> {
        let (peer, limit) = (way.peer, self.limit);
        Worker::start(self.place, Work::Keep { peer, limit, tasks })
    }

    async fn prepare(&self, way: Way) -> Result<(), Failure> {
        let peer = way.peer.and_then(|number| self.raw.peers().get(number));
        match peer {
            Some(peer) => Ok(self.raw.prepare(*peer, self.limit).await?),
            None => Ok(()),
        }
    }

    /// Four processes for one round. They end with it, so that connections of only one way are open.
    async fn round(&self, way: Way, length: Duration, found: &mut Found) -> Result<(), Failure> {
        self.prepare(way).await?;
        let mut workers = Vec::new();
        for _ in 0..PROCESSES {
            workers.push(self.start(way, TASKS)?);
        }
        for worker in &mut workers {
            ask(worker, Step::Round(length))?;
        }
        let parts = workers.iter_mut().map(Worker::answer::<Part>);
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        found.rates.push(rate(&parts));
        found.overtaken = found.overtaken.max(overtaken(&parts));
        let turns = parts.iter().flat_map(|part| &part.turns);
        let held: Vec<_> = turns.filter_map(Turn::held).collect();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        found.violations += violations_in(&held, limit);
        Ok(())
    }

    /// One process gives back, one waits, and nothing else happens.
    async fn wake(&self, way: Way, times: usize, found: &mut Found) -> Result<(), Failure> {
        self.prepare(way).await?;
        let mut holder = self.start(way, 1)?;
        let mut waiter = self.start(way, 1)?;
        for _ in 0..times {
            ask(&mut holder, Step::Take)?;
            holder.answer::<String>()?;
            ask(&mut waiter, Step::Wait(PEER_TTL))?;
            waiter.answer::<String>()?;
            sleep(ASKING + Duration::from_millis(fastrand::u64(..AT_ANY_TIME))).await;
            ask(&mut holder, Step::Give)?;
            let gave: u64 = holder.answer()?;
            let Some(ran) = waiter.answer::<Option<u64>>()? else {
                // Nobody was woken; the process that waited has ended.
                found.wakes.clear();
                return Ok(());
            };
            found.wakes.push(micros(since(gave, ran)));
        }
        Ok(())
    }

    /// One process that holds the place is killed, while one waits.
    async fn kill(&self, way: Way, patience: Duration, found: &mut Found) -> Result<(), Failure> {
        self.prepare(way).await?;
        let mut holder = self.start(way, 1)?;
        let mut waiter = self.start(way, 1)?;
        ask(&mut holder, Step::Take)?;
        holder.answer::<String>()?;
        ask(&mut waiter, Step::Wait(patience))?;
        waiter.answer::<String>()?;
        sleep(ASKING * 2).await;
        let killed = now();
        holder.kill()?;
        let ran = waiter.answer::<Option<u64>>()?;
        found.after_kill = Some(ran.map(|ran| since(killed, ran).as_secs_f64()));
        Ok(())
    }
}

fn ask(worker: &mut Worker, step: Step) -> Result<(), Failure> {
    let step = serde_json::to_string(&step).map_err(super::place::bug)?;
    worker.ask(&step)
}

fn since(before: u64, after: u64) -> Duration {
    Duration::from_nanos(after.saturating_sub(before))
}
