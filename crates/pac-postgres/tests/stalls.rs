//! Servers that stall, and clocks that are set: no session dies of it, and no dead one lives on.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use pac_core::driver::{Driver, SessionTtl};
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions, Turn};
use pac_core::protocol::{Command, Death};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, SessionId};
use pac_postgres::PostgresDriver;
use support::own::OwnServer;
use support::{
    SYSTEM, TTL, command, committed, durable, key, options, port, raw, set_limit, value,
};
use tokio::time::{Instant, sleep, timeout};

/// A stall of 2 s is noticed where sessions live for so long.
const SHORT: SessionTtl = SessionTtl::new(Duration::from_secs(3), Duration::from_secs(60 * 60));

/// Three sessions on one server: `kept` lives, `late` will be renewed late, and `silent`, which has
/// a queued run, never.
struct Three {
    driver: PostgresDriver,
    schema: String,
    kept: SessionId,
    late: SessionId,
    silent: SessionId,
}

impl Three {
    async fn on(server: &OwnServer) -> Self {
        let options = options(server.port);
        let schema = options.schema.clone();
        let driver = PostgresDriver::connect(options).await.unwrap();
        let kept = driver.open_session(SHORT, &support::me()).await.unwrap();
        set_limit(&driver, kept, &key("web"), 1).await;
        command(
            &driver,
            kept,
            &key("web"),
            &Command::Admit(durable("first")),
        )
        .await;
        let silent = driver.open_session(SHORT, &support::me()).await.unwrap();
        command(
            &driver,
            silent,
            &key("web"),
            &Command::Admit(durable("next")),
        )
        .await;
        let late = driver.open_session(SHORT, &support::me()).await.unwrap();
        for _ in 0..10 {
            assert_eq!(driver.dead_sessions().await.unwrap(), []);
            sleep(Duration::from_millis(50)).await;
        }
        Self {
            driver,
            schema,
            kept,
            late,
            silent,
        }
    }

    /// Asserts that all live, and that the silent one dies a TTL later, although its deadline was
    /// before, or would have been in an hour.
    async fn have_one_ttl(&self) {
        let (driver, start) = (&self.driver, Instant::now());
        assert_eq!(driver.dead_sessions().await.unwrap(), []);
        driver.keep_alive(self.kept).await.unwrap();
        driver.keep_alive(self.late).await.unwrap();
        let dies = async {
            loop {
                let dead = driver.dead_sessions().await.unwrap();
                if !dead.is_empty() {
                    return dead;
                }
                driver.keep_alive(self.kept).await.unwrap();
                driver.keep_alive(self.late).await.unwrap();
                sleep(Duration::from_millis(100)).await;
            }
        };
        let dead = timeout(Duration::from_secs(30), dies).await.unwrap();
        assert_eq!(dead, [(self.silent, Death::Session)]);
        // What came before this look took a moment.
        assert!(start.elapsed() > SHORT.session / 2, "{:?}", start.elapsed());
        let lost = driver.keep_alive(self.silent).await.unwrap_err();
        assert_eq!(lost.kind(), ErrorKind::SessionLost);
    }
}

async fn stall(server: &OwnServer) {
    server.freeze();
    sleep(Duration::from_secs(5)).await;
    server.thaw();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stall_gives_every_session_one_ttl_of_grace() {
    let server = OwnServer::start(SYSTEM, "", "");
    // A look for dead sessions comes first.
    let sweep = Three::on(&server).await;
    stall(&server).await;
    sweep.have_one_ttl().await;

    // The renewal of another session comes first, and must not hide the stall.
    let renewal = Three::on(&server).await;
    stall(&server).await;
    renewal.driver.keep_alive(renewal.kept).await.unwrap();
    renewal.have_one_ttl().await;

    // A commit comes first, which depends on another session.
    let commit = Three::on(&server).await;
    let (driver, web) = (&commit.driver, key("web"));
    let snapshot = driver.load(&web, None).await.unwrap();
    let state = pac_core::state::RepositoryState::from_snapshot(&snapshot).unwrap();
    let issuer = pac_core::protocol::Issuer {
        session: commit.kept,
        takes_ownerless: false,
    };
    let release = Command::limit(Limit::new(2), None);
    let (_, changes) = pac_core::protocol::apply(&state, issuer, &release);
    let changes = changes.unwrap();
    assert_eq!(changes.alive, [commit.silent]);
    stall(&server).await;
    let batch = vec![pac_core::driver::RepositoryCommit {
        repository: web,
        changes,
    }];
    assert_eq!(committed(driver, commit.kept, batch).await, [true]);
    commit.have_one_ttl().await;

    // A process that has just been started comes first.
    let opening = Three::on(&server).await;
    stall(&server).await;
    opening
        .driver
        .open_session(TTL, &support::me())
        .await
        .unwrap();
    opening.have_one_ttl().await;
}

/// Managers whose server stalls keep their sessions, and no waiter starts beside the holder.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_successor_starts_beside_its_holder_after_a_stall() {
    let server = OwnServer::start(SYSTEM, "", "");
    let short = ManagerOptions::default()
        .with_session_ttl(SHORT.session)
        .with_sweep_interval(Duration::from_millis(200));
    let options = options(server.port);
    let mut managers = Vec::new();
    for _ in 0..2 {
        let driver = PostgresDriver::connect(options.clone()).await.unwrap();
        let manager = ConcurrencyManager::open(Arc::new(driver), short);
        managers.push(manager.await.unwrap());
    }
    let sessions: Vec<_> = managers.iter().map(ConcurrencyManager::session).collect();
    let web = key("web");
    let one = Limit::new(1);
    managers[0].set_limit(&web, one, None).await.unwrap();
    let holder = managers[0].admit(&web, durable("holder")).await.unwrap();
    let Admission::Started(holder) = holder else {
        panic!("the slot is free");
    };
    let next = managers[1].admit(&web, durable("next")).await.unwrap();
    let Admission::Queued(mut next) = next else {
        panic!("the slot is taken");
    };
    for _ in 0..2 {
        stall(&server).await;
        // Long enough that who is not renewed would be dead.
        let turn = timeout(SHORT.session + Duration::from_secs(1), &mut next).await;
        assert!(turn.is_err(), "{turn:?}");
        let now: Vec<_> = managers.iter().map(ConcurrencyManager::session).collect();
        assert_eq!(now, sessions);
    }
    managers[0]
        .release(holder, RunOutcome::Completed)
        .await
        .unwrap();
    let turn = timeout(Duration::from_secs(20), next).await;
    assert!(matches!(turn.unwrap().unwrap(), Turn::Started(_)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_of_the_faketime_clock_gives_every_session_one_ttl_of_grace() {
    const HOUR: i64 = 60 * 60;
    let server = OwnServer::start_with_a_clock(SYSTEM);
    // Forward by an hour, and back by two: to before the server was started.
    for seconds in [HOUR, -HOUR] {
        let three = Three::on(&server).await;
        server.set_clock(seconds);
        three.have_one_ttl().await;
        let far = format!(
            "SELECT count(*) FROM {schema}.sessions \
             WHERE deadline > {schema}.now_millis() + session_ttl \
               OR lease_deadline > {schema}.now_millis() + lease_ttl",
            schema = three.schema
        );
        let client = raw(server.port).await;
        assert_eq!(value::<i64>(&client, &far).await, 0);
    }
    // The renewal of another session comes first.
    let three = Three::on(&server).await;
    server.set_clock(0);
    three.driver.keep_alive(three.kept).await.unwrap();
    three.have_one_ttl().await;
    let three = Three::on(&server).await;
    server.set_clock(-HOUR);
    three.driver.keep_alive(three.kept).await.unwrap();
    three.have_one_ttl().await;
}

/// A stall that leaves time for a renewal is none, and dead sessions get nothing from it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_stall_is_survived_without_grace() {
    let server = OwnServer::start(SYSTEM, "", "");
    let options = options(server.port);
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let minute = SessionTtl::new(Duration::from_secs(60), Duration::from_secs(60));
    let session = driver.open_session(minute, &support::me()).await.unwrap();
    let client = raw(server.port).await;
    // From the next note on the only TTL counts, three fifths of it.
    let noted = async {
        let gap = format!("SELECT gap FROM {schema}.server");
        while value::<i64>(&client, &gap).await != 36_000 {
            driver.keep_alive(session).await.unwrap();
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(20), noted).await.unwrap();
    let since = format!("SELECT since FROM {schema}.server");
    let before = value::<i64>(&client, &since).await;
    server.freeze();
    sleep(Duration::from_secs(3)).await;
    server.thaw();
    assert_eq!(driver.dead_sessions().await.unwrap(), []);
    driver.keep_alive(session).await.unwrap();
    assert_eq!(value::<i64>(&client, &since).await, before);
}

/// Where processes look so seldom that it seems like one stall after the other.
#[tokio::test]
async fn dead_sessions_are_found_by_processes_that_look_seldom() {
    let driver = PostgresDriver::connect(options(port(SYSTEM)))
        .await
        .unwrap();
    let ttl = SessionTtl::new(Duration::from_secs(1), Duration::from_secs(60 * 60));
    let silent = driver.open_session(ttl, &support::me()).await.unwrap();
    command(&driver, silent, &key("web"), &Command::Admit(durable("a"))).await;
    let mut looks = 0;
    loop {
        sleep(Duration::from_millis(2_200)).await;
        looks += 1;
        let dead = driver.dead_sessions().await.unwrap();
        if dead == [(silent, Death::Session)] {
            break;
        }
        assert!(dead.is_empty() && looks < 6, "{dead:?} after {looks} looks");
    }
    assert!(
        looks > 1,
        "nobody had seen the server for longer than a stall"
    );
}

#[tokio::test]
async fn a_dead_session_with_nothing_left_is_forgotten_at_once() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let ttl = SessionTtl::new(Duration::from_secs(1), Duration::from_secs(60 * 60));
    let (done, started) = (
        driver.open_session(ttl, &support::me()).await.unwrap(),
        driver.open_session(ttl, &support::me()).await.unwrap(),
    );
    for (session, name) in [(done, "a"), (started, "b")] {
        command(&driver, session, &key(name), &Command::Admit(durable(name))).await;
    }
    let end = Command::cancel(durable("a").run, None);
    command(&driver, done, &key("a"), &end).await;
    let dies = async {
        while driver.dead_sessions().await.unwrap() != [(started, Death::Session)] {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(20), dies).await.unwrap();
    assert_eq!(driver.repositories_of(done).await.unwrap(), []);
    assert_eq!(driver.repositories_of(started).await.unwrap(), [key("b")]);
    let client = raw(port(SYSTEM)).await;
    let kept = format!("SELECT array_agg(id::bigint) FROM {schema}.sessions");
    let id = i64::try_from(started.get()).unwrap();
    assert_eq!(value::<Vec<i64>>(&client, &kept).await, [id]);
    let lost = driver.keep_alive(done).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::SessionLost);
}

/// A renewal that comes when its session is due waits for one whose commit is under way, as where the
/// disk stands still: the earlier one has moved the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_renewal_waits_for_an_earlier_one_that_is_being_committed() {
    let options = options(port(SYSTEM));
    let sessions = format!("{}.sessions", options.schema);
    let driver = Arc::new(PostgresDriver::connect(options).await.unwrap());
    let ttl = SessionTtl::new(Duration::from_secs(6), Duration::from_secs(60));
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    let earlier = raw(port(SYSTEM)).await;
    let moved = format!(
        "BEGIN; UPDATE {sessions} SET deadline = deadline + 60000 WHERE id = {}",
        session.get()
    );
    earlier.batch_execute(&moved).await.unwrap();
    let due = Instant::now() + ttl.session + Duration::from_millis(500);
    // The server is seen all the time: this is no stall.
    while Instant::now() < due {
        assert_eq!(driver.dead_sessions().await.unwrap(), []);
        sleep(Duration::from_millis(300)).await;
    }
    let late = tokio::spawn({
        let driver = Arc::clone(&driver);
        async move { driver.keep_alive(session).await }
    });
    sleep(Duration::from_millis(300)).await;
    assert!(!late.is_finished(), "it waits");
    earlier.batch_execute("COMMIT").await.unwrap();
    late.await.unwrap().unwrap();
    driver.keep_alive(session).await.unwrap();
}
