//! Three members under load, while one of them is killed, paused, started again or cut off.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use pac_conformance::{History, durable, ephemeral, repository};
use pac_core::Limit;
use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, Turn};
use pac_core::state::RunOutcome;
use support::own::Cluster;
use support::proxy::{Line, Proxy};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const LIMIT: u32 = 2;

/// Tasks that admit and release on two repositories through two managers until told to stop.
struct Load {
    managers: Vec<ConcurrencyManager>,
    driver: Arc<dyn Driver>,
    histories: Vec<Arc<History>>,
    done: Arc<AtomicUsize>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    async fn start(endpoints: &[String]) -> Self {
        let options = support::options(endpoints);
        let managers = vec![
            support::manager(&options).await,
            support::manager(&options).await,
        ];
        let mut load = Self {
            managers,
            driver: support::driver(&options).await,
            histories: vec![Arc::default(), Arc::default()],
            done: Arc::default(),
            stop: Arc::default(),
            tasks: JoinSet::new(),
        };
        for repository in ["even", "odd"].map(repository) {
            let limit = Limit::new(LIMIT);
            load.managers[0]
                .set_limit(&repository, limit, None)
                .await
                .unwrap();
        }
        for task in 0..8 {
            let manager = load.managers[task % 2].clone();
            let (done, stop) = (Arc::clone(&load.done), Arc::clone(&load.stop));
            let history = Arc::clone(&load.histories[task / 2 % 2]);
            let name = if task / 2 % 2 == 0 { "even" } else { "odd" };
            load.tasks.spawn(async move {
                let mut round = 0;
                while !stop.load(Ordering::Relaxed) {
                    round += 1;
                    let run = format!("run-{task}-{round}");
                    cycle(&manager, name, &run, &history, &done).await;
                }
            });
        }
        load.progresses().await;
        load
    }

    /// Waits until runs end again.
    async fn progresses(&self) {
        let (before, begun) = (self.done.load(Ordering::Relaxed), Instant::now());
        while self.done.load(Ordering::Relaxed) < before + 20 {
            assert!(begun.elapsed() < Duration::from_secs(60), "nothing goes on");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Stops, and checks that no slot was given twice and none got lost.
    async fn end(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        timeout(Duration::from_secs(60), ended).await.unwrap();
        for history in &self.histories {
            history.assert_limit(LIMIT as usize);
        }
        for repository in ["even", "odd"].map(repository) {
            let begun = Instant::now();
            loop {
                let head = self.driver.load(&repository, None).await.unwrap().head;
                if (head.started, head.queued) == (0, 0) {
                    break;
                }
                assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "left over: {head:?}"
                );
                sleep(Duration::from_millis(200)).await;
            }
        }
        for manager in &self.managers {
            let health = manager.health();
            assert!(health.is_ready() && health.panics == 0, "{health:?}");
        }
    }
}

/// Takes one run from its admission to its release, and asks again after an error.
async fn cycle(
    manager: &ConcurrencyManager,
    name: &str,
    run: &str,
    history: &Arc<History>,
    done: &AtomicUsize,
) {
    let repository = repository(name);
    let mut span = history.ask(run);
    let lease = loop {
        let turn = match manager.admit(&repository, ephemeral(run)).await {
            Ok(Admission::Started(lease)) => break lease,
            Ok(Admission::Queued(waiter)) => waiter.await,
            // The run has ended with a session that was lost.
            Ok(Admission::Finished(_)) => return,
            Err(error) => Err(error),
        };
        match turn {
            Ok(Turn::Started(lease)) => break lease,
            Ok(Turn::TakenOver) => {}
            Ok(Turn::Ended(_) | Turn::Gone) => return,
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    };
    if !manager.holds(&lease) {
        return;
    }
    span.held(lease.token());
    sleep(Duration::from_millis(2)).await;
    span.gives_back();
    if manager.release(lease, DONE).await.is_ok() {
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_leader_may_be_killed_paused_and_started_again() {
    let mut cluster = Cluster::start();
    let load = Load::start(&cluster.endpoints()).await;

    let leader = cluster.leader().await;
    cluster.0[leader].kill();
    load.progresses().await;
    cluster.0[leader].start();
    cluster.0[leader].wait_until_healthy();
    load.progresses().await;

    let leader = cluster.leader().await;
    cluster.0[leader].pause();
    load.progresses().await;
    sleep(Duration::from_secs(3)).await;
    load.progresses().await;
    cluster.0[leader].resume();
    load.progresses().await;
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_durable_run_keeps_its_slot_and_place_while_the_leader_changes() {
    let mut cluster = Cluster::start();
    let options = support::options(cluster.endpoints());
    let manager = support::manager(&options).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let Admission::Started(a) = manager.admit(&web, durable("a")).await.unwrap() else {
        panic!("it is the first one");
    };
    let Admission::Queued(b) = manager.admit(&web, durable("b")).await.unwrap() else {
        panic!("it is the second one");
    };
    let session = manager.session();
    for _ in 0..2 {
        let leader = cluster.leader().await;
        cluster.0[leader].kill();
        sleep(Duration::from_secs(4)).await;
        cluster.0[leader].start();
        cluster.0[leader].wait_until_healthy();
    }
    assert!(manager.session() == session && manager.holds(&a));
    manager.release(a, DONE).await.unwrap();
    let turn = timeout(Duration::from_secs(10), b).await.unwrap().unwrap();
    assert!(matches!(turn, Turn::Started(_)), "{turn:?}");
}

/// Nothing reaches the member any more; connections to it stay open, or are cut.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_behind_a_silent_line_is_left_for_another() {
    let cluster = Cluster::start();
    let mut proxies = Vec::new();
    for endpoint in cluster.endpoints() {
        proxies.push(Proxy::before(endpoint).await);
    }
    let endpoints: Vec<_> = proxies.iter().map(|proxy| proxy.endpoint.clone()).collect();
    let load = Load::start(&endpoints).await;
    for line in [Line::Silent, Line::Cut] {
        for proxy in &proxies {
            proxy.set(line);
            load.progresses().await;
            sleep(Duration::from_secs(1)).await;
            load.progresses().await;
            proxy.set(Line::Sound);
        }
    }
    load.end().await;
}

/// Clients reach the member as before, but it knows no leader, or leads without followers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_is_cut_off_from_the_others_is_left_for_one_of_them() {
    let (cluster, lines) = Cluster::with_lines().await;
    let load = Load::start(&cluster.endpoints()).await;
    for member in 0..3 {
        let id = cluster.id(member).await;
        lines.cut_off(Some((member, id)));
        load.progresses().await;
        sleep(Duration::from_secs(3)).await;
        assert!(!cluster.0[member].is_healthy(), "it is cut off");
        load.progresses().await;
        lines.cut_off(None);
        cluster.0[member].wait_until_healthy();
        load.progresses().await;
    }
    load.end().await;
}
