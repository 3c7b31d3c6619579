//! How the store is kept small: compaction, leases that are shared, dead sessions that are
//! forgotten. And how soon a watch hears of a store that answers again.

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{durable, repository, started};
use pac_core::Limit;
use pac_core::driver::{Driver, Level, Retention, SessionTtl, WatchEvent};
use pac_core::manager::{ConcurrencyManager, KeepAliveOn, ManagerOptions};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, SessionId};
use pac_etcd::{EtcdDriver, EtcdOptions};
use pac_etcd_mock::{Fault, MockEtcd, Operation};
use tokio::time::{Instant, sleep};

const MINUTE: Duration = Duration::from_secs(60);

async fn mock() -> MockEtcd {
    MockEtcd::builder().start().await.unwrap()
}

async fn compacting(etcd: &MockEtcd) -> Arc<EtcdDriver> {
    let mut options = EtcdOptions::default();
    options.compaction = Some(5 * MINUTE);
    let driver = EtcdDriver::connect_over(&options, etcd.channel()).await;
    Arc::new(driver.unwrap())
}

async fn driver(etcd: &MockEtcd) -> Arc<EtcdDriver> {
    let driver = EtcdDriver::connect_over(&EtcdOptions::default(), etcd.channel()).await;
    Arc::new(driver.unwrap())
}

fn asked(etcd: &MockEtcd, operation: Operation) -> u64 {
    etcd.counts().get(&operation).copied().unwrap_or(0)
}

/// Writes so many revisions, and returns the last.
async fn written(etcd: &MockEtcd, revisions: usize) -> i64 {
    let mut client = etcd.client().await.unwrap();
    let mut last = 0;
    for _ in 0..revisions {
        let put = client.put("other/key", "value", None).await.unwrap();
        last = put.header().unwrap().revision();
    }
    last
}

async fn can_be_read(etcd: &MockEtcd, revision: i64) -> bool {
    let mut client = etcd.client().await.unwrap();
    let at = etcd_client::GetOptions::new().with_revision(revision);
    client.get("other/key", Some(at)).await.is_ok()
}

/// Three processes are asked to compact: one of them does, once in each interval, and keeps what is
/// younger.
#[tokio::test(start_paused = true)]
async fn one_process_compacts_what_is_old_enough() {
    let etcd = mock().await;
    let drivers = [
        compacting(&etcd).await,
        compacting(&etcd).await,
        compacting(&etcd).await,
    ];
    let sweep = async |minutes: u32| {
        for _ in 0..minutes {
            for driver in &drivers {
                driver.dead_sessions().await.unwrap();
            }
            sleep(MINUTE).await;
        }
    };
    let old = written(&etcd, 100).await;
    sweep(4).await;
    let young = written(&etcd, 100).await;
    assert_eq!(asked(&etcd, Operation::Compact), 0, "nothing is old enough");
    sweep(4).await;
    assert_eq!(asked(&etcd, Operation::Compact), 1);
    assert!(!can_be_read(&etcd, old - 1).await);
    assert!(can_be_read(&etcd, old + 1).await && can_be_read(&etcd, young).await);
    sweep(40).await;
    let times = asked(&etcd, Operation::Compact);
    assert!((7..=9).contains(&times), "{times} times in 48 minutes");
    assert!(!can_be_read(&etcd, young - 1).await);
}

/// A full store is compacted again and again, to a later revision each time; and a compaction that
/// was not answered is made up for by the next round.
#[tokio::test(start_paused = true)]
async fn a_full_store_and_a_slow_one_are_compacted_too() {
    let etcd = mock().await;
    let driver = compacting(&etcd).await;
    let sweep = async |minutes: u32| {
        for _ in 0..minutes {
            driver.dead_sessions().await.unwrap();
            sleep(MINUTE).await;
        }
    };
    let old = written(&etcd, 100).await;
    etcd.faults().exceed_quota(true);
    sweep(8).await;
    assert!(!can_be_read(&etcd, old - 1).await);
    let mut client = etcd.client().await.unwrap();
    let deleted = client.delete("other/key", None).await.unwrap();
    let deleted = deleted.header().unwrap().revision();
    sweep(16).await;
    assert!(!can_be_read(&etcd, deleted - 1).await, "it stands still");

    etcd.faults().exceed_quota(false);
    let slow = Fault::AnsweredLate(Duration::from_secs(20));
    let failing = Fault::Refused("etcdserver: request timed out".to_owned());
    for fault in [slow, failing] {
        let injected = etcd.faults().inject([Operation::Compact], 1, fault);
        let mut minutes = 0;
        while injected.hits() == 0 {
            assert!(minutes < 30, "it is never this process's turn");
            minutes += 1;
            sweep(1).await;
        }
        let times = asked(&etcd, Operation::Compact);
        sweep(2).await;
        assert_eq!(asked(&etcd, Operation::Compact), times + 1, "made up for");
    }
}

/// Upkeep that takes long keeps nobody from hearing of dead sessions.
#[tokio::test(start_paused = true)]
async fn dead_sessions_are_told_while_the_store_is_tidied_and_compacted() {
    let etcd = mock().await;
    let driver = compacting(&etcd).await;
    let slow = Fault::Delayed(Duration::from_secs(4));
    let injected = etcd.faults().inject([Operation::Compact], 1, slow);
    let longest = async |sweeps: u32| {
        let mut longest = Duration::ZERO;
        for _ in 0..sweeps {
            written(&etcd, 10).await;
            let begun = Instant::now();
            driver.dead_sessions().await.unwrap();
            longest = longest.max(begun.elapsed());
            sleep(Duration::from_secs(1)).await;
        }
        longest
    };
    let longest = longest(12 * 60).await;
    assert_eq!(injected.hits(), 1);
    assert!(longest < Duration::from_millis(100), "{longest:?}");
    assert!(asked(&etcd, Operation::Compact) > 1, "one after the other");
}

/// What is due in many repositories at once is done for all of them, also if it takes long.
#[tokio::test(start_paused = true)]
async fn every_repository_is_tidied_also_by_a_slow_store() {
    let etcd = mock().await;
    let mut options = EtcdOptions::default();
    options.retention = Retention::new(60 * MINUTE, 8);
    let driver = EtcdDriver::connect_over(&options, etcd.channel()).await;
    let driver = Arc::new(driver.unwrap());
    let manager = ConcurrencyManager::open(
        Arc::clone(&driver) as Arc<dyn Driver>,
        ManagerOptions::default()
            .with_keep_alive_on(KeepAliveOn::Task)
            .with_sweep_interval(60 * MINUTE),
    );
    let manager = manager.await.unwrap();
    for n in 0..20 {
        for name in ["a", "b", "c", "d", "e", "f"] {
            let run = durable(&format!("run-{n}"));
            let lease = started(&manager, &repository(name), run).await;
            manager.release(lease, RunOutcome::Completed).await.unwrap();
        }
    }
    let slow = Fault::Delayed(Duration::from_millis(700));
    etcd.faults().inject([Operation::Txn], 6, slow);
    for _ in 0..10 {
        driver.dead_sessions().await.unwrap();
        sleep(Duration::from_secs(1)).await;
    }
    let mut client = etcd.client().await.unwrap();
    let prefix = etcd_client::GetOptions::new().with_prefix();
    let left = client.get("/pac/v1/entries/", Some(prefix)).await.unwrap();
    assert_eq!(left.count(), 6 * 8);
}

/// A watch that has not heard of the latest changes yet can still be resumed.
#[tokio::test(start_paused = true)]
async fn what_a_watch_has_not_told_is_not_compacted() {
    let etcd = mock().await;
    let (compacts, writes) = (compacting(&etcd).await, driver(&etcd).await);
    let manager = ConcurrencyManager::open(
        writes,
        ManagerOptions::default().with_keep_alive_on(KeepAliveOn::Task),
    );
    let manager = manager.await.unwrap();
    let mut watch = compacts.watch(SessionId::new(1)).await.unwrap();
    etcd.faults().delay_events(60 * MINUTE);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let missed = manager.status(&web).await.unwrap().revision.get();
    for _ in 0..12 {
        compacts.dead_sessions().await.unwrap();
        sleep(MINUTE).await;
    }
    assert!(asked(&etcd, Operation::Compact) > 0);
    assert!(can_be_read(&etcd, i64::try_from(missed).unwrap()).await);
    etcd.faults().clear();
    etcd.faults().cut_connections();
    let event = watch.next().await.unwrap();
    assert!(matches!(event, WatchEvent::Changed { .. }), "{event:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_nothing_compacts_is_found() {
    let etcd = mock().await;
    let last = written(&etcd, 20_001).await;
    let driver = driver(&etcd).await;
    let found = driver.diagnose().await.unwrap();
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(
        shown.len() == 1 && shown.concat().contains("--auto-compaction-retention"),
        "{shown:?}"
    );
    assert_eq!(
        compacting(&etcd).await.diagnose().await.unwrap(),
        [],
        "it is asked to compact"
    );
    etcd.client()
        .await
        .unwrap()
        .compact(last, None)
        .await
        .unwrap();
    assert_eq!(driver.diagnose().await.unwrap(), []);
}

/// Connecting and reading work in a store that takes no writes, and say so.
#[tokio::test(start_paused = true)]
async fn a_full_store_can_be_read_by_a_process_that_connects() {
    let etcd = mock().await;
    let writes = driver(&etcd).await;
    let ttl = SessionTtl::new(MINUTE, MINUTE);
    writes
        .open_session(ttl, &crate::support::me())
        .await
        .unwrap();
    etcd.faults().exceed_quota(true);
    let reads = driver(&etcd).await;
    assert!(!reads.load(&repository("web"), None).await.unwrap().exists);
    let found = reads.diagnose().await.unwrap();
    assert!(
        found
            .iter()
            .any(|f| f.level() == Level::Failure(ErrorKind::Unavailable)
                && f.text().contains("NOSPACE")),
        "{found:?}"
    );
    let refused = reads
        .open_session(ttl, &crate::support::me())
        .await
        .unwrap_err();
    assert!(refused.to_string().contains("NOSPACE"), "{refused}");
    assert_eq!(reads.dead_sessions().await.unwrap(), []);
}

/// Each process ends one run, as `pac exec` does: they share the lease by which finished runs
/// vanish.
#[tokio::test(start_paused = true)]
async fn processes_share_the_lease_of_finished_runs() {
    let etcd = mock().await;
    let web = repository("web");
    for n in 0..40 {
        let options = ManagerOptions::default().with_keep_alive_on(KeepAliveOn::Task);
        let manager = ConcurrencyManager::open(driver(&etcd).await, options).await;
        let manager = manager.unwrap();
        let lease = started(&manager, &web, durable(&format!("run-{n}"))).await;
        manager.release(lease, RunOutcome::Completed).await.unwrap();
        manager.close().await.unwrap();
    }
    let mut client = etcd.client().await.unwrap();
    let leases = client.leases().await.unwrap().leases().len();
    assert_eq!(leases, 1, "the sessions are closed");
    // They vanish all the same.
    sleep(Duration::from_secs(26 * 60 * 60)).await;
    let prefix = etcd_client::GetOptions::new().with_prefix();
    let left = client.get("/pac/v1/entries/", Some(prefix)).await.unwrap();
    assert_eq!(left.count(), 0);
    // The next one finds no lease, and makes one.
    let options = ManagerOptions::default().with_keep_alive_on(KeepAliveOn::Task);
    let manager = ConcurrencyManager::open(driver(&etcd).await, options).await;
    let manager = manager.unwrap();
    let lease = started(&manager, &web, durable("later")).await;
    manager.release(lease, RunOutcome::Completed).await.unwrap();
}

/// Sessions that died without a run are forgotten at once, however long their lease TTL is, and many
/// of them with few requests.
#[tokio::test(start_paused = true)]
async fn dead_sessions_with_nothing_left_are_forgotten_at_once() {
    let etcd = mock().await;
    let sweeper = driver(&etcd).await;
    let (short, long) = (Duration::from_secs(10), 100 * 60 * MINUTE);
    for _ in 0..100 {
        let ttl = SessionTtl::new(short, long);
        sweeper
            .open_session(ttl, &crate::support::me())
            .await
            .unwrap();
    }
    sleep(Duration::from_secs(15)).await;
    let before = (asked(&etcd, Operation::Txn), asked(&etcd, Operation::Range));
    assert_eq!(sweeper.dead_sessions().await.unwrap(), []);
    let txns = asked(&etcd, Operation::Txn) - before.0;
    let ranges = asked(&etcd, Operation::Range) - before.1;
    assert_eq!((txns, ranges), (4, 1), "transactions and ranges");
    for _ in 0..10 {
        assert_eq!(sweeper.dead_sessions().await.unwrap(), []);
    }
    let mut client = etcd.client().await.unwrap();
    let prefix = etcd_client::GetOptions::new().with_prefix();
    let left = client.get("/pac/v1/sessions/", Some(prefix)).await.unwrap();
    assert_eq!(left.count(), 0);
    assert_eq!(client.leases().await.unwrap().leases().len(), 0);
}

/// Those that have something are listed until it is seen to.
#[tokio::test(start_paused = true)]
async fn a_dead_session_with_runs_is_listed() {
    let etcd = mock().await;
    let options = ManagerOptions::default().with_keep_alive_on(KeepAliveOn::Task);
    let manager = ConcurrencyManager::open(driver(&etcd).await, options).await;
    let manager = manager.unwrap();
    let web = repository("web");
    drop(started(&manager, &web, durable("a")).await);
    let session = manager.session();
    drop(manager);
    sleep(Duration::from_secs(30)).await;
    let sweeper = driver(&etcd).await;
    for _ in 0..2 {
        let dead = sweeper.dead_sessions().await.unwrap();
        assert_eq!(dead.len(), 1);
        assert_eq!(dead.first().unwrap().0, session);
    }
}

/// As soon as the store answers anything, the watch is resumed.
#[tokio::test(start_paused = true)]
async fn any_answer_ends_the_pause_of_the_watch() {
    for _ in 0..8 {
        let etcd = mock().await;
        let driver = driver(&etcd).await;
        let mut watch = driver.watch(SessionId::new(1)).await.unwrap();
        let ttl = SessionTtl::new(60 * MINUTE, 60 * MINUTE);
        etcd.faults().lose_leader();
        // Not for so long that the watch is given up.
        sleep(Duration::from_secs(4)).await;
        etcd.faults().elect_leader();
        let begun = Instant::now();
        // Tells of a change, and is answered.
        driver
            .open_session(ttl, &crate::support::me())
            .await
            .unwrap();
        let manager = ConcurrencyManager::open(
            self::driver(&etcd).await,
            ManagerOptions::default().with_keep_alive_on(KeepAliveOn::Task),
        );
        let manager = manager.await.unwrap();
        let web = repository("web");
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        while !matches!(watch.next().await.unwrap(), WatchEvent::Changed { .. }) {}
        assert!(
            begun.elapsed() < Duration::from_millis(100),
            "{:?}",
            begun.elapsed()
        );
    }
}
