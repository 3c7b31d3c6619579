//! Neighbours that write under the prefix what this software does not write, and one that may write
//! nothing and renews the leases of others.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use etcd_client::{Client, GetOptions, PutOptions, Txn, TxnOp};
use pac_conformance::{durable, queued, repository, started};
use pac_core::driver::{Driver, ListFilter, Retention};
use pac_core::manager::{ConcurrencyManager, ManagerOptions, Turn};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, MAX_FLOOR, RepositoryKey};
use pac_etcd::EtcdOptions;
use support::own::Member;
use tokio::time::{Instant, sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const SOON: Duration = Duration::from_secs(20);

fn on_the_oldest() -> EtcdOptions {
    support::options([support::member::variable("PAC_TEST_ETCD")])
}

async fn client(options: &EtcdOptions) -> Client {
    support::raw(options.endpoints.first().unwrap()).await
}

/// The value of the only key.
async fn value(client: &mut Client, key: &str) -> String {
    let found = client.get(key, None).await.unwrap();
    found.kvs().first().unwrap().value_str().unwrap().to_owned()
}

/// The fields of a head.
const LAST_TICKET: usize = 5;
const LAST_TOKEN: usize = 6;

/// Sets a number in the record of a head.
async fn set(client: &mut Client, key: &str, field: usize, to: u64) {
    let before = value(client, key).await;
    let to = to.to_string();
    let fields = before.split(',').enumerate();
    let fields = fields.map(|(n, before)| if n == field { &to } else { before });
    let after = fields.collect::<Vec<_>>().join(",");
    client.put(key, after, None).await.unwrap();
}

/// All repositories, page by page as readers take them.
async fn listed(driver: &dyn Driver) -> Vec<RepositoryKey> {
    let mut all: Vec<RepositoryKey> = Vec::new();
    loop {
        let page = driver.list(ListFilter::All, all.last(), 1_000).await;
        let page = page.unwrap();
        let last = page.len() < 1_000;
        all.extend(page.into_iter().map(|(key, _)| key));
        if last {
            return all;
        }
    }
}

async fn turn(
    waits: impl Future<Output = Result<Turn, pac_core::Error>>,
) -> pac_core::manager::Lease {
    match timeout(SOON, waits).await.unwrap().unwrap() {
        Turn::Started(lease) => lease,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_near_its_end_harms_its_repository_alone() {
    let options = on_the_oldest();
    let mut raw = client(&options).await;
    for (n, field) in [LAST_TOKEN, LAST_TICKET].into_iter().enumerate() {
        let (poisoned, later) = (
            repository(&format!("poisoned-{n}")),
            repository(&format!("later-{n}")),
        );
        let manager = support::manager(&options).await;
        manager
            .set_limit(&poisoned, Limit::new(1), None)
            .await
            .unwrap();
        let held = started(&manager, &poisoned, durable("held")).await;
        let waits = queued(&manager, &poisoned, durable("waits")).await;
        let mut watch = manager.watch(&poisoned).await.unwrap();
        let head = format!("{}heads/{poisoned}", options.prefix);
        set(&mut raw, &head, field, (1 << 63) - 3).await;

        let told = timeout(SOON, waits).await.expect("the waiter hangs");
        let told = told.map(drop).unwrap_err();
        assert_eq!(told.kind(), ErrorKind::Corrupt, "{told}");
        let over = async { while watch.next().await.is_some() {} };
        timeout(SOON, over).await.expect("the watch hangs");
        assert_eq!(watch.failure().unwrap().kind(), ErrorKind::Corrupt);
        for refused in [
            manager.remove_repository(&poisoned).await.map(drop),
            manager.release(held, DONE).await.map(drop),
            manager.admit(&poisoned, durable("new")).await.map(drop),
        ] {
            let error = refused.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
            let shown = error.to_string();
            for part in [poisoned.as_str(), "9223372036854775805", "2^62", "backup"] {
                assert!(shown.contains(part), "{part} is not in: {shown}");
            }
        }
        // Below the end for its own repository, and too high to be carried to all others.
        set(&mut raw, &head, field, MAX_FLOOR + 1).await;
        let other = support::manager(&options).await;
        let error = other.remove_repository(&poisoned).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");

        other.set_limit(&later, Limit::new(1), None).await.unwrap();
        let first = started(&other, &later, durable("first")).await;
        let waits = queued(&manager, &later, durable("second")).await;
        let token = first.token();
        other.release(first, DONE).await.unwrap();
        let second = turn(waits).await;
        assert!(second.token() > token && second.token().get() < MAX_FLOOR);
        manager.release(second, DONE).await.unwrap();
        for manager in [manager, other] {
            drop(manager.close().await);
        }
    }
}

/// Once their keys are no text, a page does not end at the key that its text says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_no_text_end_no_list() {
    let options = on_the_oldest();
    let (mut raw, driver) = (client(&options).await, support::driver(&options).await);
    let manager = support::manager(&options).await;
    for name in ["aa", "zz"] {
        let key = repository(name);
        manager.set_limit(&key, Limit::new(1), None).await.unwrap();
    }
    for (place, value) in [("heads/ci/m", "{}"), ("sessions/", ""), ("held/", "")] {
        for chunk in (0..1_100_u32).collect::<Vec<_>>().chunks(100) {
            let puts = chunk.iter().map(|n| {
                let start = format!("{}{place}", options.prefix).into_bytes();
                let key = [start.as_slice(), b"\xff\xfe", n.to_string().as_bytes()].concat();
                TxnOp::put(key, value, None)
            });
            let txn = Txn::new().and_then(puts.collect::<Vec<_>>());
            raw.txn(txn).await.unwrap();
        }
    }
    // A session of which nothing makes sense, and a key that is on no lease.
    for (part, value) in [("record", "{\"session_ttl\":-1e400"), ("lease", "x")] {
        let key = format!("{}sessions/00000000000000aa/{part}", options.prefix);
        raw.put(key, value, None).await.unwrap();
    }
    let all = timeout(SOON, listed(&*driver))
        .await
        .expect("it is endless");
    assert_eq!(all, [repository("aa"), repository("zz")]);
    timeout(SOON, driver.dead_sessions())
        .await
        .expect("it is endless")
        .unwrap();
    let found = driver.diagnose().await.unwrap();
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(
        shown
            .iter()
            .any(|text| text.contains("100 keys or more") && text.contains(r"\xff\xfe")),
        "{shown:?}"
    );
    manager.close().await.unwrap();
}

/// More than one answer may have, in heads, in keys of sessions and in what a dead session notes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_keys_and_values_stop_nothing() {
    let options = on_the_oldest();
    let (mut raw, driver) = (client(&options).await, support::driver(&options).await);
    let (web, doomed) = (repository("web"), support::manager(&options).await);
    doomed.set_limit(&web, Limit::new(1), None).await.unwrap();
    drop(started(&doomed, &web, durable("a")).await);
    let session = doomed.session();
    drop(doomed);
    let large = "x".repeat(1_400_000);
    let prefix = &options.prefix;
    for n in 10..60 {
        let of_big = format!("big/repository-{n}");
        raw.put(format!("{prefix}heads/{of_big}"), large.as_str(), None)
            .await
            .unwrap();
        let note = format!("{prefix}held/{:016x}/{of_big}", session.get());
        raw.put(note, "", None).await.unwrap();
        let key = format!("{prefix}sessions/{large}{n}");
        raw.put(key, "", None).await.unwrap();
    }
    assert_eq!(listed(&*driver).await, std::slice::from_ref(&web));
    let big: RepositoryKey = "big/repository-10".parse().unwrap();
    let refused = driver.load(&big, None).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
    assert!(refused.to_string().contains("1400000 bytes"), "{refused}");

    // Others go on: the dead session is found, its run is ended, and a repository is removed.
    let manager = support::manager(&options).await;
    let begun = Instant::now();
    while !driver
        .dead_sessions()
        .await
        .unwrap()
        .iter()
        .any(|dead| dead.0 == session)
    {
        assert!(begun.elapsed() < SOON, "the dead session is not found");
        sleep(Duration::from_millis(200)).await;
    }
    let left = driver.repositories_of(session).await.unwrap();
    assert!(left.contains(&web) && left.contains(&big), "{left:?}");
    manager.remove_repository(&web).await.unwrap();
    let found = driver.diagnose().await.unwrap();
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(shown.concat().contains("big/repository-10"), "{shown:?}");
    assert!(shown.concat().len() < 10_000);
    drop(manager.close().await);
    let all = etcd_client::DeleteOptions::new().with_prefix();
    raw.delete(prefix.as_str(), Some(all)).await.unwrap();
}

/// Far more finished runs than are kept: what is read is bounded by what is kept, and the rest is
/// deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn finished_runs_beyond_those_that_are_kept_cost_no_reader_much() {
    const STORED: usize = 20_000;
    let member = Member::single(&[]);
    let mut options = support::options([member.endpoint()]);
    options.retention = Retention::new(Duration::from_secs(3_600), 100);
    let (mut raw, web) = (client(&options).await, repository("web"));
    let manager = support::manager(&options).await;
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let held = started(&manager, &web, durable("held")).await;
    queued(&manager, &web, durable("waits")).await.detach();
    let ended = {
        let lease = started(&manager, &repository("api"), durable("ended")).await;
        manager.release(lease, DONE).await.unwrap();
        let key = format!("{}entries/ci/api/ci/ended", options.prefix);
        value(&mut raw, &key).await
    };
    manager.close().await.unwrap();
    // As newer versions may, with more in each record.
    let more = format!(",0,false,null,\"{}\"]", "x".repeat(2_000));
    let padded = ended.strip_suffix(']').unwrap().to_owned() + &more;
    let lease = raw.lease_grant(3_600, None).await.unwrap().id();
    for chunk in (0..STORED).collect::<Vec<_>>().chunks(100) {
        let puts = chunk.iter().map(|n| {
            let key = format!("{}entries/{web}/ci/run-{n}", options.prefix);
            TxnOp::put(
                key,
                padded.as_str(),
                Some(PutOptions::new().with_lease(lease)),
            )
        });
        let txn = Txn::new().and_then(puts.collect::<Vec<_>>());
        raw.txn(txn).await.unwrap();
    }
    // The records of a repository come with its tickets.
    let head = format!("{}heads/{web}", options.prefix);
    set(&mut raw, &head, LAST_TICKET, 10).await;
    set(&mut raw, &head, LAST_TOKEN, 10).await;

    let driver = support::driver(&options).await;
    let before = member.sent_bytes();
    let read = driver.load(&web, None).await.unwrap();
    let bytes = member.sent_bytes() - before;
    assert!(bytes < 5_000_000, "{bytes} bytes for one read");
    let finished = read.entries.iter().filter(|entry| entry.is_finished());
    let live = read.entries.iter().filter(|entry| !entry.is_finished());
    assert_eq!((finished.count(), live.count()), (100, 2));

    let begun = Instant::now();
    let prefix = format!("{}entries/{web}/", options.prefix);
    loop {
        driver.dead_sessions().await.unwrap();
        let count = GetOptions::new().with_prefix().with_count_only();
        let left = raw.get(prefix.as_str(), Some(count)).await.unwrap().count();
        if left <= 102 {
            assert_eq!(left, 102, "those that are kept");
            break;
        }
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "{left} are left"
        );
    }
    let read = driver.load(&web, None).await.unwrap();
    assert_eq!(read.entries.len(), 102);
    drop(held);
}

/// Somebody who may read and write nothing renews both leases of a dead controller.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_that_a_stranger_renews_keep_no_slot() {
    let member = Member::single(&[]);
    let mut options = support::options([member.endpoint()]);
    let raw = client(&options).await;
    let mut auth = raw.auth_client();
    auth.user_add("evil", "evil", None).await.unwrap();
    auth.user_add("root", "root", None).await.unwrap();
    auth.role_add("root").await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    let web = repository("web");
    auth.auth_enable().await.unwrap();
    options.username = Some("root".to_owned());
    let options = options.with_password("root");

    let open = async || {
        let short = ManagerOptions::default()
            .with_session_ttl(Duration::from_secs(5))
            .with_lease_ttl(Duration::from_secs(7))
            .with_poll_interval(Duration::from_secs(2))
            .with_sweep_interval(Duration::from_millis(300));
        let driver = support::driver(&options).await;
        ConcurrencyManager::open(driver, short).await.unwrap()
    };
    let (doomed, survivor) = (open().await, open().await);
    doomed.set_limit(&web, Limit::new(1), None).await.unwrap();
    drop(started(&doomed, &web, durable("a")).await);
    let waits = queued(&survivor, &web, durable("b")).await;
    let (own, session) = (survivor.session(), doomed.session());

    let as_user = |name: &str| etcd_client::ConnectOptions::new().with_user(name, name);
    let mut root = Client::connect([member.endpoint()], Some(as_user("root")))
        .await
        .unwrap();
    let key = format!("{}sessions/{:016x}/lease", options.prefix, session.get());
    let second = root.get(key, None).await.unwrap();
    let second = second.kvs().first().unwrap().lease();
    let mut evil = Client::connect([member.endpoint()], Some(as_user("evil")))
        .await
        .unwrap();
    let refused = evil.get(options.prefix.as_str(), None).await.unwrap_err();
    assert!(
        refused.to_string().contains("permission denied"),
        "{refused}"
    );
    let first = i64::try_from(session.get()).unwrap();
    let renews = tokio::spawn(async move {
        let mut streams = Vec::new();
        for lease in [first, second] {
            streams.push(evil.lease_keep_alive(lease).await.unwrap());
        }
        loop {
            for (keeper, answers) in &mut streams {
                keeper.keep_alive().await.unwrap();
                let answer = answers.message().await.unwrap().unwrap();
                assert!(answer.ttl() > 0, "the lease has ended by itself");
            }
            sleep(Duration::from_millis(500)).await;
        }
    });
    drop(doomed);

    let turn = timeout(Duration::from_secs(200), waits).await;
    assert!(!renews.is_finished(), "it renews to the end");
    renews.abort();
    let turn = turn.expect("the slot is kept by a stranger").unwrap();
    let Turn::Started(lease) = turn else {
        panic!("{turn:?}");
    };
    survivor.release(lease, DONE).await.unwrap();
    assert_eq!(survivor.session(), own, "whose process lives is not ended");

    let found = support::driver(&options).await.diagnose().await.unwrap();
    let shown: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(shown.concat().contains("in plain text"), "{shown:?}");
    assert!(shown.concat().contains("etcd-ca-file"), "{shown:?}");
}
