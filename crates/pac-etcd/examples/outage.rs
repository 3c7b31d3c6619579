//! Measures how long slots stay idle after etcd was away.
//!
//! Sixteen processes' worth of managers, each with connections of its own, share a limit of two. A
//! server of its own is killed and started again 2 s later, and once more for 1 s. The figures are
//! milliseconds from the server's first answer.
//!
//! ```sh
//! PAC_TEST_ETCD_BIN=/usr/bin/etcd cargo run --release -p pac-etcd --example outage -- 10 kept
//! ```
//!
//! The first argument is the number of runs. The second is `kept`, for managers that live as long
//! as the measurement; `fresh`, for a new one with each run, as `pac exec` has it; `paused`, for
//! managers that are kept and a server that is stopped by SIGSTOP instead; or `leader` and
//! `leader-paused`, for three members of which the one that leads is killed, or stopped by SIGSTOP,
//! twice for 5 s. The figures are then milliseconds from that moment, so that they hold the election
//! of another leader.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program that measures, with servers of its own"
)]

#[path = "../tests/support/mod.rs"]
mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pac_conformance::{ephemeral, repository};
use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, Turn};
use pac_core::state::RunOutcome;
use pac_core::{Limit, SessionId};
use pac_etcd::EtcdOptions;
use support::own::{Cluster, Member};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

const WORKERS: usize = 16;
const LIMIT: u32 = 2;
const WORK: Duration = Duration::from_millis(100);
const END: u64 = 24;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Kept,
    Fresh,
    Paused,
    Leader,
    LeaderPaused,
}

impl Mode {
    fn pauses(self) -> bool {
        matches!(self, Self::Paused | Self::LeaderPaused)
    }

    /// The servers, and when one of them goes, for how long, in seconds.
    fn servers(self) -> (Vec<Member>, [(u64, u64); 2]) {
        match self {
            Self::Leader | Self::LeaderPaused => (Cluster::start().0, [(4, 5), (14, 5)]),
            _ => (vec![Member::single(&[])], [(4, 2), (14, 1)]),
        }
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let runs: usize = args.next().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mode = match args.next().as_deref() {
        Some("fresh") => Mode::Fresh,
        Some("paused") => Mode::Paused,
        Some("leader") => Mode::Leader,
        Some("leader-paused") => Mode::LeaderPaused,
        _ => Mode::Kept,
    };
    println!("run  slots idle: first  second  later   watch: first / second   runs");
    for run in 1..=runs {
        measure(run, mode).await;
    }
}

/// The spans in which a slot was in use, and when the watch told something.
#[derive(Default)]
struct Seen {
    spans: Mutex<Vec<(Instant, Instant)>>,
    told: Mutex<Vec<Instant>>,
}

async fn measure(run: usize, mode: Mode) {
    let (members, outages) = mode.servers();
    let options = support::options(members.iter().map(Member::endpoint));
    let mut cluster = Cluster(members);
    let seen = Arc::<Seen>::default();
    let begun = Instant::now();
    let until = begun + Duration::from_secs(END);
    let mut tasks = JoinSet::new();
    let driver = support::driver(&options).await;
    tasks.spawn(watch(driver, Arc::clone(&seen)));
    let first = manager(&options).await;
    let web = repository("web");
    first
        .set_limit(&web, Limit::new(LIMIT), None)
        .await
        .unwrap();
    let mut workers = JoinSet::new();
    for worker in 0..WORKERS {
        workers.spawn(work(
            worker,
            options.clone(),
            mode,
            Arc::clone(&seen),
            until,
        ));
    }
    let mut answered = Vec::new();
    for (at, away) in outages {
        sleep_until(begun + Duration::from_secs(at)).await;
        let alone = cluster.0.len() == 1;
        let stopped = if alone { 0 } else { cluster.leader().await };
        let gone = Instant::now();
        let member = &mut cluster.0[stopped];
        if mode.pauses() {
            member.pause();
        } else {
            member.kill();
        }
        sleep(Duration::from_secs(away)).await;
        if mode.pauses() {
            member.resume();
        } else {
            member.start();
        }
        while !member.is_healthy() {
            sleep(Duration::from_millis(5)).await;
        }
        answered.push(if alone { Instant::now() } else { gone });
    }
    sleep_until(until).await;
    let spans = seen.spans.lock().unwrap().clone();
    let told = seen.told.lock().unwrap().clone();
    let full = |from: Instant, to: Instant| idle(&spans, from, to);
    let end = until - Duration::from_secs(1);
    let (one, two) = (answered[0], answered[1]);
    let second = begun + Duration::from_secs(outages[1].0);
    // A leader that goes leaves slots in use for a moment: the longest gap counts then.
    let gap = |from: Instant, to: Instant| {
        let soon = full(from, to.min(from + Duration::from_secs(8)));
        match mode {
            Mode::Leader | Mode::LeaderPaused => soon.into_iter().max(),
            _ => soon.first().copied(),
        }
        .unwrap_or_default()
    };
    let (after_first, after_second) = (gap(one, second), gap(two, end));
    let settled = Duration::from_secs(1);
    let later = [
        full(begun + settled, begun + Duration::from_secs(outages[0].0)),
        full(one + after_first + settled * 2, second),
        full(two + after_second + settled * 2, end),
    ];
    let later = later.concat().into_iter().max().unwrap_or_default();
    let heard = |from: Instant| {
        let first = told.iter().find(|at| **at >= from);
        first.map_or(0, |at| at.duration_since(from).as_millis())
    };
    println!(
        "{run:>3}  {:>17}  {:>6}  {:>5}   {:>12} / {:<6}   {:>4}",
        after_first.as_millis(),
        after_second.as_millis(),
        later.as_millis(),
        heard(one),
        heard(two),
        spans.len()
    );
    workers.abort_all();
    tasks.abort_all();
    while workers.join_next().await.is_some() {}
}

/// How long at a time not all slots were in use between two moments; what lasts when the time
/// begins comes first, even if nothing does.
fn idle(spans: &[(Instant, Instant)], from: Instant, to: Instant) -> Vec<Duration> {
    let mut steps: Vec<(Instant, i32)> = spans
        .iter()
        .flat_map(|(start, end)| [(*start, 1), (*end, -1)])
        .collect();
    steps.sort();
    let limit = i32::try_from(LIMIT).unwrap();
    let mut used = 0;
    let mut since = None;
    let mut found = Vec::new();
    let mut first = true;
    for (at, step) in steps {
        if at > to {
            break;
        }
        if at >= from && first {
            first = false;
            if used < limit {
                since = Some(from);
            } else {
                found.push(Duration::ZERO);
            }
        }
        used += step;
        if at < from {
            continue;
        }
        if used >= limit {
            if let Some(since) = since.take() {
                found.push(at.duration_since(since));
            }
        } else if since.is_none() {
            since = Some(at);
        }
    }
    if first || since.is_some() {
        found.push(to.duration_since(since.unwrap_or(from)));
    }
    found
}

async fn manager(options: &EtcdOptions) -> ConcurrencyManager {
    loop {
        if let Ok(driver) = pac_etcd::EtcdDriver::connect(options).await
            && let Ok(manager) =
                ConcurrencyManager::open(Arc::new(driver), ManagerOptions::default()).await
        {
            return manager;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn work(worker: usize, options: EtcdOptions, mode: Mode, seen: Arc<Seen>, until: Instant) {
    let web = repository("web");
    let mut kept = manager(&options).await;
    let mut round = 0;
    while Instant::now() < until {
        round += 1;
        let run = format!("run-{worker}-{round}");
        let lease = loop {
            let turn = match kept.admit(&web, ephemeral(&run)).await {
                Ok(Admission::Started(lease)) => Ok(Turn::Started(lease)),
                Ok(Admission::Queued(waiter)) => waiter.await,
                Ok(_) => break None,
                Err(error) => Err(error),
            };
            match turn {
                Ok(Turn::Started(lease)) => break Some(lease),
                Ok(_) => break None,
                Err(error) => {
                    println!("{run}: {error}");
                    sleep(Duration::from_millis(50)).await;
                }
            }
        };
        let Some(lease) = lease else {
            continue;
        };
        let start = Instant::now();
        sleep(WORK).await;
        seen.spans.lock().unwrap().push((start, Instant::now()));
        if let Err(error) = kept.release(lease, RunOutcome::Completed).await {
            println!("{run}: release: {error}");
        }
        if mode == Mode::Fresh {
            let _ = kept.close().await;
            kept = manager(&options).await;
        }
    }
}

async fn watch(driver: Arc<dyn Driver>, seen: Arc<Seen>) {
    loop {
        let Ok(mut watch) = driver.watch(SessionId::default()).await else {
            sleep(Duration::from_millis(100)).await;
            continue;
        };
        while watch.next().await.is_ok() {
            seen.told.lock().unwrap().push(Instant::now());
        }
    }
}
