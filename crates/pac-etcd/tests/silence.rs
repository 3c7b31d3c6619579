//! Members that are silent, and a server that stands still for longer than sessions last.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use pac_conformance::{durable, ephemeral, queued, repository, run, started};
use pac_core::driver::Driver;
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, RunStatus, Turn};
use pac_core::state::RunOutcome;
use pac_core::{Error, Limit, RepositoryKey};
use pac_etcd::EtcdDriver;
use support::own::{Cluster, Member};
use support::proxy::{Line, Proxy};
use tokio::time::{sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;

/// As long as a test waits for what has to come.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server with users and two ways to it, of which the first is silent.
async fn behind_a_silent_line() -> (Member, [Proxy; 2]) {
    let member = Member::single(&[]);
    let mut auth = support::raw(&member.endpoint()).await.auth_client();
    auth.user_add("root", "open-sesame", None).await.unwrap();
    auth.role_add("root").await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.auth_enable().await.unwrap();
    let ways = [
        Proxy::before(member.endpoint()).await,
        Proxy::before(member.endpoint()).await,
    ];
    ways[0].set(Line::Silent);
    (member, ways)
}

/// A driver begins with any of its members. One that takes connections and says nothing has its
/// share of the time, and the next one is asked: for a token, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_member_is_passed_over_when_connecting() {
    let (_member, ways) = behind_a_silent_line().await;
    let mut options = support::options(ways.iter().map(|way| &way.endpoint));
    options.username = Some("root".to_owned());
    let options = options.with_password("open-sesame");
    for _ in 0..6 {
        let driver = EtcdDriver::connect(&options).await.unwrap();
        assert!(!driver.load(&repository("web"), None).await.unwrap().exists);
    }
}

/// The first word to a new connection is a question: a write that goes to a silent member would be
/// one whose outcome is unknown.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_does_not_go_to_a_member_that_has_said_nothing() {
    let member = Member::single(&[]);
    let ways = [
        Proxy::before(member.endpoint()).await,
        Proxy::before(member.endpoint()).await,
    ];
    let driver = support::driver(&support::options(ways.iter().map(|way| &way.endpoint))).await;
    let manager = support::manager_on(driver).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(9), None).await.unwrap();
    for (n, silent) in [0, 1, 0, 1].into_iter().enumerate() {
        ways[silent].set(Line::Silent);
        // The connections that there were end, and new ones are silent.
        let lease = timeout(
            PATIENCE,
            started(&manager, &web, durable(&format!("run-{n}"))),
        );
        manager.release(lease.await.unwrap(), DONE).await.unwrap();
        ways[silent].set(Line::Sound);
    }
    assert!(manager.health().is_ready());
}

/// Requests, hints and renewals all leave a member that falls silent. Only the watch tells this
/// manager that it is its turn: it neither polls nor sweeps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_falls_silent_is_left_by_the_watch_and_the_session() {
    let member = Member::single(&[]);
    let ways = [
        Proxy::before(member.endpoint()).await,
        Proxy::before(member.endpoint()).await,
    ];
    let mut options = support::options([member.endpoint()]);
    let other = support::manager(&options).await;
    options.endpoints = ways.iter().map(|way| way.endpoint.clone()).collect();
    let never = Duration::from_secs(3_600);
    let listens = ManagerOptions::default()
        .with_session_ttl(Duration::from_secs(6))
        .with_poll_interval(never)
        .with_sweep_interval(never);
    let manager = ConcurrencyManager::open(support::driver(&options).await, listens);
    let manager = manager.await.unwrap();
    let session = manager.session();
    let web = repository("web");
    other.set_limit(&web, Limit::new(1), None).await.unwrap();
    for silent in [0, 1] {
        let a = started(&other, &web, durable(&format!("a-{silent}"))).await;
        let b = queued(&manager, &web, durable(&format!("b-{silent}"))).await;
        ways[silent].set(Line::Silent);
        other.release(a, DONE).await.unwrap();
        let turn = timeout(PATIENCE, b).await.unwrap().unwrap();
        let Turn::Started(b) = turn else {
            panic!("{turn:?}");
        };
        manager.release(b, DONE).await.unwrap();
        // Longer than the session TTL.
        sleep(Duration::from_secs(8)).await;
        ways[silent].set(Line::Sound);
    }
    assert_eq!(manager.session(), session, "kept alive");
}

/// A server alone that stands still for longer than the session TTL ends the sessions when it goes
/// on: no renewal saves a lease whose time is over. Their holders have noticed before, a durable run
/// keeps its slot for the lease TTL, and its controller takes it over again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stood_still_for_too_long_ends_sessions_and_no_durable_run() {
    let member = Member::single(&[]);
    let options = support::options([member.endpoint()]);
    let (manager, other) = (
        support::manager(&options).await,
        support::manager(&options).await,
    );
    let web = repository("web");
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    let kept = started(&manager, &web, durable("kept")).await;
    let lost = started(&manager, &web, ephemeral("lost")).await;
    let next = queued(&other, &web, durable("next")).await;
    let session = manager.session();
    member.pause();
    // The session TTL is 6 s.
    sleep(Duration::from_secs(9)).await;
    assert!(!manager.holds(&kept) && !manager.holds(&lost));
    member.resume();
    let turn = timeout(PATIENCE, next).await.unwrap().unwrap();
    assert!(matches!(turn, Turn::Started(_)), "{turn:?}");
    let status = manager.run_status(&web, &run("lost")).await.unwrap();
    assert!(matches!(status, RunStatus::Finished(_)), "{status:?}");
    let again = async {
        loop {
            match manager.admit(&web, durable("kept")).await {
                Ok(Admission::Started(again)) if manager.holds(&again) => return again,
                _ => sleep(Duration::from_millis(100)).await,
            }
        }
    };
    let again = timeout(PATIENCE, again).await.unwrap();
    assert!(manager.session() != session);
    assert_eq!(manager.status(&web).await.unwrap().running.len(), 2);
    manager.release(again, DONE).await.unwrap();
}

/// Of three members, a leader that stands still for longer than the session TTL ends no session: the
/// new leader lets all leases last for their whole TTL again. When the old one goes on, it may end
/// them before it knows that it does not lead any more (as 3.4 and the first of 3.5 do): then the
/// session is a new one, and no slot is given twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_stands_still_for_long_ends_no_session() {
    let cluster = Cluster::start();
    let options = support::options(cluster.endpoints());
    let manager = support::manager(&options).await;
    let other = support::manager(&options).await;
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&manager, &web, ephemeral("a")).await;
    let b = queued(&other, &web, durable("b")).await;
    let session = manager.session();
    let leader = cluster.leader().await;
    cluster.0[leader].pause();
    sleep(Duration::from_secs(9)).await;
    assert!(manager.holds(&a) && manager.session() == session);
    cluster.0[leader].resume();
    sleep(Duration::from_secs(3)).await;
    if manager.holds(&a) {
        assert_eq!(manager.session(), session);
        manager.release(a, DONE).await.unwrap();
    }
    let started = async {
        let mut turn = b.await;
        loop {
            match turn {
                Ok(Turn::Started(lease)) if other.holds(&lease) => return lease,
                // Its session was ended too.
                _ => turn = again(&other, &web).await,
            }
        }
    };
    let b = timeout(PATIENCE, started).await.unwrap();
    assert_eq!(other.status(&web).await.unwrap().running.len(), 1);
    other.release(b, DONE).await.unwrap();
}

/// Asks for the run `b` again.
async fn again(manager: &ConcurrencyManager, web: &RepositoryKey) -> Result<Turn, Error> {
    sleep(Duration::from_millis(100)).await;
    match manager.admit(web, durable("b")).await? {
        Admission::Started(lease) => Ok(Turn::Started(lease)),
        Admission::Queued(waiter) => waiter.await,
        Admission::Finished(_) => panic!("it has not started"),
    }
}
