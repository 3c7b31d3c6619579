//! What operations cost: round trips, durable writes, indexes, space.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use pac_core::Limit;
use pac_core::driver::{
    Commit, CommitOutcome, Driver, ListFilter, RepositoryCommit, Retention, SessionTtl,
};
use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions};
use pac_core::protocol::{Command, Death, Issuer, Plan, apply};
use pac_core::state::{RepositoryState, RunOutcome};
use pac_postgres::PostgresDriver;
use support::own::OwnServer;
use support::proxy::Proxy;
use support::{
    COMMIT, NEWEST, SYSTEM, TTL, command, durable, key, options, port, raw, set_limit, value,
};

/// For a manager that sends nothing of its own accord during a test.
fn quiet() -> ManagerOptions {
    ManagerOptions::default()
        .with_session_ttl(Duration::from_secs(600))
        .with_poll_interval(Duration::from_secs(600))
        .with_sweep_interval(Duration::from_secs(600))
}

/// How many commits have waited for the disk, on a server that only this test uses.
async fn durable_commits(client: &tokio_postgres::Client) -> i64 {
    // Each of them flushes the log once. The server's log writer flushes the commits that do not
    // wait.
    let sql = "SELECT wal_sync FROM pg_stat_wal";
    value(client, sql).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admission_and_release_are_one_round_trip_and_one_durable_commit_each() {
    // With these settings only commits write, and counters are read anew each time.
    let quiet_server = "autovacuum = off\ncheckpoint_timeout = 1h\nbgwriter_lru_maxpages = 0\n\
                        wal_writer_delay = 10s\nstats_fetch_consistency = none\n";
    let server = OwnServer::start(SYSTEM, quiet_server, "");
    let proxy = Proxy::to(server.port).await;
    let driver = Arc::new(PostgresDriver::connect(options(proxy.port)).await.unwrap());
    let manager = ConcurrencyManager::open(Arc::clone(&driver) as _, quiet())
        .await
        .unwrap();
    let web = key("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let client = raw(server.port).await;
    // A process of the server reports its counters when it has been idle for a second.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    proxy.clear();
    let before = durable_commits(&client).await;
    const CYCLES: usize = 50;
    for n in 0..CYCLES {
        let request = durable(&format!("run-{n}"));
        let Admission::Started(lease) = manager.admit(&web, request).await.unwrap() else {
            panic!("the slot is free");
        };
        manager.release(lease, RunOutcome::Completed).await.unwrap();
    }
    // The first one finds out where the head is.
    let commits = proxy.requests_with(COMMIT) + proxy.requests_with("commit_batch");
    assert_eq!(commits, 2 * CYCLES);
    let hints = proxy.requests_with("pg_notify");
    assert!(hints <= 2 * CYCLES, "{hints} hints");
    // Each statement of the driver is one packet, so this shows all that it has sent. A purge is due
    // after some seconds, which a busy machine can need for the cycles; and a commit that comes
    // before the connection of the last one is given back gets a new connection, which asks this.
    let expected = [
        COMMIT,
        "pg_notify",
        "purge_old",
        "transaction_read_only",
        "plan_cache_mode",
    ];
    let others = proxy.requests_without(&expected);
    assert!(others.is_empty(), "{others:?}");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let synced = durable_commits(&client).await - before;
    let most = i64::try_from(2 * CYCLES).unwrap() + 10;
    assert!(
        synced <= most && synced > 0,
        "{synced} syncs for {CYCLES} cycles"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn repositories_of_many_share_one_commit() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let driver = Arc::new(PostgresDriver::connect(options(proxy.port)).await.unwrap());
    let manager = ConcurrencyManager::open(driver, quiet()).await.unwrap();
    let tasks = (0..200).map(|n| {
        let manager = manager.clone();
        tokio::spawn(async move {
            let request = durable(&format!("run-{n}"));
            manager
                .admit(&key(&format!("repository-{n}")), request)
                .await
                .map(drop)
                .unwrap();
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
    let commits = proxy.requests_with("commit_batch");
    assert!(commits < 60, "{commits} statements for 200 repositories");
}

/// Every statement, on tables with 100,000 waiting runs and as many finished ones, finds what it
/// needs along an index, and reads no more of it.
#[tokio::test]
async fn every_statement_uses_an_index_however_long_the_queue_is() {
    for server in [SYSTEM, NEWEST] {
        let options = options(port(server));
        let schema = options.schema.clone();
        let driver = PostgresDriver::connect(options).await.unwrap();
        // Nobody renews it, and filling the tables may take a while.
        let ttl = SessionTtl::new(Duration::from_secs(600), Duration::from_secs(600));
        let session = driver.open_session(ttl, &support::me()).await.unwrap();
        let web = key("web");
        set_limit(&driver, session, &web, 1).await;
        command(&driver, session, &web, &Command::Admit(durable("first"))).await;
        let client = raw(port(server)).await;
        client
            .batch_execute(&format!(
                "INSERT INTO {schema}.queue (repository, run, format, uid, kind, priority, \
                   ticket, session, queued_at, revision) \
                 SELECT 'ns/web', 'ns/run-' || n, 1, 'u-' || n, 0, 0, n + 1, {session}, 0, n \
                   FROM generate_series(1, 100000) n; \
                 INSERT INTO {schema}.history (repository, run, format, uid, kind, priority, \
                   ticket, outcome, abandoned, queued_at, finished_at, revision) \
                 SELECT 'ns/web', 'ns/done-' || n, 1, 'v-' || n, 0, 0, 100001 + n, 0, false, 0, \
                   0, 100000 + n FROM generate_series(1, 100000) n; \
                 INSERT INTO {schema}.repositories (repository, format, revision, stamp, purged, \
                   run_limit, last_ticket, last_token, queued, started) \
                 SELECT 'ns/other-' || n, 1, 1, 0, 0, 1, 0, 0, 0, 0 \
                   FROM generate_series(1, 20000) n; \
                 UPDATE {schema}.repositories SET queued = 100000, last_ticket = 200001, \
                   revision = 200000, stamp = {schema}.new_stamp(200000) \
                   WHERE repository = 'ns/web'; \
                 ANALYZE {schema}.queue; ANALYZE {schema}.history; ANALYZE {schema}.repositories"
            ))
            .await
            .unwrap();
        // How many rows have been read by scans of whole tables.
        let read = format!(
            "SELECT coalesce(sum(seq_tup_read), 0)::bigint FROM pg_stat_user_tables \
             WHERE schemaname = '{schema}' AND relname IN ('queue', 'slots', 'history', 'repositories')"
        );
        let flush = "SELECT pg_stat_clear_snapshot()";
        let settle = async || {
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            client.query(flush, &[]).await.unwrap();
            value::<i64>(&client, &read).await
        };
        // Pages of indexes, and rows that were found through them: 100,000 entries are hundreds of
        // pages.
        let touched = format!(
            "SELECT (SELECT sum(idx_blks_hit + idx_blks_read) FROM pg_statio_user_indexes \
               WHERE schemaname = '{schema}' AND relname IN ('queue', 'slots', 'history'))::bigint \
             + (SELECT sum(idx_tup_fetch) FROM pg_stat_user_tables \
               WHERE schemaname = '{schema}' AND relname IN ('queue', 'slots', 'history'))::bigint"
        );
        let touches = async || {
            // A process of the server reports its counters once a second, and only when it has
            // something to do: hence the load.
            tokio::time::sleep(Duration::from_millis(1_500)).await;
            driver.load(&key("none"), None).await.unwrap();
            client.query(flush, &[]).await.unwrap();
            value::<i64>(&client, &touched).await
        };
        let all = driver.load(&web, None).await.unwrap();
        let state = RepositoryState::from_snapshot(&all).unwrap();
        let before = touches().await;
        const LOADS: i64 = 20;
        for _ in 0..LOADS {
            let known = driver.load(&web, Some(all.head.version())).await;
            assert_eq!(known.unwrap().entries.len(), 0);
        }
        let each = (touches().await - before) / LOADS;
        assert!((1..60).contains(&each), "{each} pages and rows for a load");
        // Three waiting runs are started, so that the guard has to count.
        let issuer = Issuer {
            session,
            takes_ownerless: false,
        };
        let limit_of_four = Command::limit(Limit::new(4), None);
        let (_, changes) = apply(&state, issuer, &limit_of_four);
        let changes = changes.unwrap();
        assert_eq!(changes.entries.len(), 3);
        let commit = RepositoryCommit {
            repository: web.clone(),
            changes,
        };
        let before = touches().await;
        assert_eq!(
            support::committed(&driver, session, vec![commit]).await,
            [true]
        );
        let known = driver.load(&web, Some(all.head.version())).await.unwrap();
        assert_eq!(known.entries.len(), 3);
        let all = touches().await - before;
        assert!((1..200).contains(&all), "{all} pages and rows for a commit");
        let before = settle().await;
        let known = driver.load(&web, Some(known.head.version())).await;
        assert_eq!(known.unwrap().entries.len(), 0);
        let limit = Command::limit(Limit::new(1), None);
        for name in ["new-1", "new-2", "new-3"] {
            command(&driver, session, &key(name), &Command::Admit(durable(name))).await;
            command(&driver, session, &key(name), &limit).await;
            let cancel = Command::cancel(durable(name).run, None);
            command(&driver, session, &key(name), &cancel).await;
            command(&driver, session, &key(name), &Command::RemoveRepository).await;
        }
        driver.keep_alive(session).await.unwrap();
        driver.dead_sessions().await.unwrap();
        let other = driver.open_session(TTL, &support::me()).await.unwrap();
        assert_eq!(driver.repositories_of(other).await.unwrap(), []);
        assert_eq!(
            driver
                .list(ListFilter::All, Some(&key("a")), 10)
                .await
                .unwrap()
                .len(),
            10
        );
        assert_eq!(
            driver
                .list(ListFilter::Startable, None, 10)
                .await
                .unwrap()
                .len(),
            0
        );
        driver.close_session(other).await.unwrap();
        let scanned = settle().await - before;
        assert_eq!(scanned, 0, "rows read by scans of whole tables");
        // The plans of the statements that are not inside of a function.
        let plan = |sql: String| {
            let (client, schema) = (&client, &schema);
            async move {
                let sql = format!("EXPLAIN {}", sql.replace("pac.", &format!("{schema}.")));
                let rows = client.query(&sql, &[]).await.unwrap();
                let lines = rows.iter().map(|row| row.get::<_, String>(0));
                lines.collect::<Vec<_>>().join("\n")
            }
        };
        for (sql, index) in [
            (
                "SELECT FROM pac.history WHERE repository = 'ns/web' AND revision > 199990",
                "history_changed",
            ),
            (
                "SELECT count(*) FROM pac.slots WHERE repository = 'ns/web' AND revision > 5",
                "slots_changed",
            ),
            (
                "SELECT FROM pac.history WHERE repository = 'ns/web' \
                 ORDER BY revision DESC, ticket DESC OFFSET 10 LIMIT 1",
                "history_changed",
            ),
            (
                "SELECT FROM pac.queue WHERE repository = 'ns/web' AND revision = 7 \
                 AND run = 'ns/run-7'",
                "queue_changed",
            ),
            (
                "SELECT repository FROM pac.queue WHERE session = 77",
                "queue_session",
            ),
            (
                "SELECT * FROM pac.repositories WHERE repository > 'ns/a' ORDER BY repository \
                 LIMIT 5",
                "repositories_pkey",
            ),
            (
                "SELECT min(repository) FROM pac.queue WHERE repository > 'ns/b'",
                "queue_changed",
            ),
        ] {
            let plan = plan(sql.to_owned()).await;
            assert!(
                plan.contains(index) && !plan.contains("Seq Scan"),
                "{sql}:\n{plan}"
            );
        }
    }
}

/// A scan that is disabled counts as expensive, and the server compiles plans that count as
/// expensive, which takes longer than to carry them out. So each function that disables scans
/// disables compiling.
#[tokio::test]
async fn nothing_is_compiled_for_being_discouraged() {
    for server in [SYSTEM, NEWEST] {
        let options = options(port(server));
        let schema = options.schema.clone();
        let _driver = PostgresDriver::connect(options).await.unwrap();
        let client = raw(port(server)).await;
        let functions = |condition: &str| {
            format!(
                "SELECT count(*) FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace \
                 AND 'enable_seqscan=off' = ANY (proconfig) {condition}"
            )
        };
        let all: i64 = value(&client, &functions("")).await;
        let not_compiled = functions("AND 'jit=off' = ANY (proconfig)");
        assert_eq!(value::<i64>(&client, &not_compiled).await, all);
        assert!(all > 0);
    }
}

/// When one commit ended more runs than are kept, the latest of them stay.
#[tokio::test]
async fn as_many_finished_runs_are_kept_as_are_to_be() {
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    set_limit(&driver, session, &key("web"), 1).await;
    let client = raw(port(SYSTEM)).await;
    let ended = format!(
        "INSERT INTO {schema}.history (repository, run, format, uid, kind, priority, ticket, \
           outcome, abandoned, finished_at, revision) \
         SELECT 'ns/web', 'ns/run-' || n, 1, 'u', 0, 0, n, 0, false, 0, \
           CASE WHEN n <= 3 THEN 1 ELSE 2 END FROM generate_series(1, 10) n"
    );
    client.batch_execute(&ended).await.unwrap();
    let purge = format!("SELECT {schema}.purge_excess(ARRAY['ns/web', 'ns/none'], 4, 500)");
    assert_eq!(value::<i64>(&client, &purge).await, 6);
    let left = format!("SELECT min(ticket) FROM {schema}.history");
    assert_eq!(value::<i64>(&client, &left).await, 7);
    assert_eq!(value::<i64>(&client, &purge).await, 0);
    let purged = format!("SELECT purged FROM {schema}.repositories");
    assert_eq!(value::<i64>(&client, &purged).await, 2);
}

/// (46) 10,000 runs that came and went leave the tables as large as a few hundred did.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_finished_runs_leave_the_size_flat() {
    // A transaction of another test would keep the vacuum from removing anything.
    let server = OwnServer::start(SYSTEM, "", "");
    let mut options = options(server.port);
    options.retention = Retention::new(Duration::from_secs(3_600), 100);
    let schema = options.schema.clone();
    let driver = Arc::new(PostgresDriver::connect(options).await.unwrap());
    let sweeping = ManagerOptions::default()
        .with_sweep_interval(Duration::from_millis(50))
        .with_session_ttl(Duration::from_secs(60));
    let manager = ConcurrencyManager::open(driver, sweeping).await.unwrap();
    let client = raw(server.port).await;
    let rows = format!("SELECT count(*) FROM {schema}.history");
    let bytes = format!(
        "SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class \
         WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'"
    );
    let mut sizes = Vec::new();
    for round in 0..10 {
        let tasks = (0..20).map(|task| {
            let manager = manager.clone();
            tokio::spawn(async move {
                for n in 0..50 {
                    let request = durable(&format!("run-{round}-{task}-{n}"));
                    let web = key("web");
                    let Admission::Started(lease) = manager.admit(&web, request).await.unwrap()
                    else {
                        panic!("there is no limit");
                    };
                    manager.release(lease, RunOutcome::Completed).await.unwrap();
                }
            })
        });
        for task in tasks.collect::<Vec<_>>() {
            task.await.unwrap();
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        // As autovacuum does, which comes once a minute.
        let vacuum = format!(
            "VACUUM {schema}.queue, {schema}.slots, {schema}.history, {schema}.repositories"
        );
        client.batch_execute(&vacuum).await.unwrap();
        let left: i64 = value(&client, &rows).await;
        assert!(left <= 400, "{left} records are left after round {round}");
        sizes.push(value::<i64>(&client, &bytes).await);
    }
    let (early, late) = (sizes[2], sizes[9]);
    assert!(late <= early + early / 4, "it grows: {sizes:?}");
}

/// A controller with thousands of runs has died: all are marked in one statement, which does not look
/// at all of them again for each.
#[tokio::test]
async fn thousands_of_slots_that_go_on_are_changed_by_one_batch() {
    const REPOSITORIES: usize = 64;
    const RUNS: usize = 150;
    let options = options(port(SYSTEM));
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let ttl = SessionTtl::new(Duration::from_secs(600), Duration::from_secs(600));
    let dead = driver.open_session(ttl, &support::me()).await.unwrap();
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    let keys: Vec<_> = (0..REPOSITORIES).map(|n| key(&format!("r{n}"))).collect();
    let mut states = vec![RepositoryState::absent(0); REPOSITORIES];
    let admissions = (0..RUNS).map(|n| Command::Admit(durable(&format!("run-{n}"))));
    let admissions: Vec<_> = admissions.collect();
    let end = Command::Expire {
        session: dead,
        death: Death::Session,
    };
    for (session, commands) in [(dead, &admissions[..]), (session, &[end])] {
        let issuer = Issuer {
            session,
            takes_ownerless: false,
        };
        let planned = keys.iter().zip(&states).map(|(key, state)| {
            let mut plan = Plan::new(state, issuer, usize::MAX);
            for command in commands {
                plan.apply(command);
            }
            RepositoryCommit {
                repository: key.clone(),
                changes: plan.finish().unwrap(),
            }
        });
        let batch: Vec<_> = planned.collect();
        assert!(
            batch
                .iter()
                .all(|commit| commit.changes.entries.len() == RUNS)
        );
        let Commit::Pending(answer) = driver.commit(session, batch) else {
            panic!("it is sent");
        };
        let outcomes = answer.await.unwrap();
        for (state, outcome) in states.iter_mut().zip(outcomes) {
            let CommitOutcome::Committed(delta) = outcome else {
                panic!("{outcome:?}");
            };
            state.absorb(&delta, |_, _| ()).unwrap();
        }
    }
    let client = raw(port(SYSTEM)).await;
    let orphans = format!("SELECT count(*) FROM {schema}.slots WHERE orphaned");
    let orphans: i64 = value(&client, &orphans).await;
    assert_eq!(usize::try_from(orphans).unwrap(), REPOSITORIES * RUNS);
}
