//! What the database itself refuses to any program, and what it lets a role with few privileges do.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use pac_core::driver::{Commit, CommitOutcome, Driver, RepositoryCommit};
use pac_core::protocol::{Admitted, Command, Issuer, Outcome, apply};
use pac_core::state::{RepositoryState, RunOutcome};
use pac_core::{ErrorKind, SessionIdentity};
use pac_postgres::{Password, PostgresDriver};
use support::proxy::Proxy;
use support::{
    NEWEST, SYSTEM, TTL, command, committed, durable, key, options, port, raw, set_limit, unique,
};

/// The statement with which a program that knows nothing of limits would write a started run.
fn started(schema: &str, run: &str, adopted: bool) -> String {
    format!(
        "INSERT INTO {schema}.slots (repository, run, format, uid, kind, priority, ticket, \
           token, session, orphaned, adopted, revision) \
         VALUES ('ns/web', '{run}', 1, 'u', 0, 0, 1, 1, 1, false, {adopted}, \
           (SELECT revision FROM {schema}.repositories WHERE repository = 'ns/web'))"
    )
}

async fn with_limit_two(port: u16) -> (PostgresDriver, String) {
    let options = options(port);
    let schema = options.schema.clone();
    let driver = PostgresDriver::connect(options).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    set_limit(&driver, session, &key("web"), 2).await;
    command(&driver, session, &key("web"), &Command::Admit(durable("a"))).await;
    (driver, schema)
}

#[tokio::test]
async fn a_broken_client_cannot_start_more_than_the_limit() {
    for server in [SYSTEM, NEWEST] {
        let (_driver, schema) = with_limit_two(port(server)).await;
        let client = raw(port(server)).await;
        client
            .batch_execute(&started(&schema, "ns/b", false))
            .await
            .unwrap();
        let refused = |error: tokio_postgres::Error| {
            assert_eq!(error.code().unwrap().code(), "PAC01", "{error:?}");
        };
        refused(
            client
                .batch_execute(&started(&schema, "ns/d", false))
                .await
                .unwrap_err(),
        );
        // Nor by giving the slot of a run to another one,
        let other = format!("UPDATE {schema}.slots SET run = 'ns/other' WHERE run = 'ns/b'");
        client.batch_execute(&other).await.unwrap();
        let third = format!(
            "BEGIN; ALTER TABLE {schema}.slots DISABLE TRIGGER guard_inserted; {}; \
             ALTER TABLE {schema}.slots ENABLE TRIGGER guard_inserted; COMMIT",
            started(&schema, "ns/c", false)
        );
        client.batch_execute(&third).await.unwrap();
        let other = format!("UPDATE {schema}.slots SET run = 'ns/d' WHERE run = 'ns/c'");
        refused(client.batch_execute(&other).await.unwrap_err());
        // nor by what it says of the head. A run that has a slot already may be written again.
        for head in ["(0,1)", "(0,2)", "(9,9)"] {
            let lie = started(&schema, "ns/d", false)
                .replace("adopted, revision)", "adopted, head, revision)")
                .replace(
                    "false, false, (SELECT",
                    &format!("false, false, '{head}', (SELECT"),
                );
            assert!(lie.contains(head), "{lie}");
            refused(client.batch_execute(&lie).await.unwrap_err());
        }
        let again = format!("UPDATE {schema}.slots SET token = token, revision = revision");
        client.batch_execute(&again).await.unwrap();
        let elsewhere =
            started(&schema, "ns/e", false).replace("'ns/web', 'ns/e'", "'ns/none', 'ns/e'");
        refused(client.batch_execute(&elsewhere).await.unwrap_err());
        let serializable = format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; {}",
            started(&schema, "ns/f", false)
        );
        let error = client.batch_execute(&serializable).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "PAC03", "{error:?}");
        client.batch_execute("ROLLBACK").await.unwrap();
        // Only a run that is adopted may be beyond the limit.
        client
            .batch_execute(&started(&schema, "ns/g", true))
            .await
            .unwrap();
    }
}

/// What counts is slots, also for a program that knows nothing of them: two runs that take two each do
/// not fit into three, nor does one that becomes heavier.
#[tokio::test]
async fn slots_are_counted_by_what_a_run_takes() {
    let (driver, schema) = with_limit_two(port(SYSTEM)).await;
    let session = driver
        .open_session(TTL, &SessionIdentity::of_this_process())
        .await
        .unwrap();
    set_limit(&driver, session, &key("web"), 4).await;
    let client = raw(port(SYSTEM)).await;
    let refused = async |sql: String| {
        let error = client.batch_execute(&sql).await.unwrap_err();
        assert_eq!(error.code().unwrap().code(), "PAC01", "{sql}: {error:?}");
    };
    let with_weight = |run: &str, weight: u16| {
        let sql = started(&schema, run, false);
        let sql = sql.replace("adopted, revision)", "adopted, terms, revision)");
        let terms = format!(r#"false, false, '{{"weight": {weight}}}', (SELECT"#);
        sql.replace("false, false, (SELECT", &terms)
    };
    // One is taken, and two by this one.
    client.batch_execute(&with_weight("ns/b", 2)).await.unwrap();
    refused(with_weight("ns/c", 2)).await;
    client.batch_execute(&with_weight("ns/c", 1)).await.unwrap();
    refused(started(&schema, "ns/d", false)).await;
    let change =
        |terms: &str| format!("UPDATE {schema}.slots SET terms = '{terms}' WHERE run = 'ns/b'");
    refused(change(r#"{"weight": 3}"#)).await;
    for lighter in [
        r#"{"weight": 2, "asked": 7}"#,
        "",
        r#"{"weight": 2}"#,
        r#"{"group": "g"}"#,
    ] {
        client.batch_execute(&change(lighter)).await.unwrap();
    }
    client
        .batch_execute(&started(&schema, "ns/d", false))
        .await
        .unwrap();
    refused(change(r#"{"weight": 2}"#)).await;
}

#[tokio::test]
async fn two_broken_clients_at_once_cannot_either() {
    let (_driver, schema) = with_limit_two(port(SYSTEM)).await;
    let (one, other) = (raw(port(SYSTEM)).await, raw(port(SYSTEM)).await);
    one.batch_execute(&format!("BEGIN; {}", started(&schema, "ns/b", false)))
        .await
        .unwrap();
    let sql = started(&schema, "ns/c", false);
    let second = tokio::spawn(async move { other.batch_execute(&sql).await });
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert!(
        !second.is_finished(),
        "it has to wait for the first to be over"
    );
    one.batch_execute("COMMIT").await.unwrap();
    let error = second.await.unwrap().unwrap_err();
    assert_eq!(error.code().unwrap().code(), "PAC01");
}

#[tokio::test]
async fn one_repository_that_the_database_refuses_spoils_no_other() {
    let (driver, schema) = with_limit_two(port(SYSTEM)).await;
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    let (web, api) = (key("web"), key("api"));
    let mut batch = Vec::new();
    for (repository, name) in [(&web, "c"), (&api, "x")] {
        let state = driver.load(repository, None).await.unwrap();
        let state = RepositoryState::from_snapshot(&state).unwrap();
        let (_, changes) = apply(&state, issuer, &Command::Admit(durable(name)));
        batch.push(RepositoryCommit {
            repository: repository.clone(),
            changes: changes.unwrap(),
        });
    }
    // Another program takes the last slot without changing the head.
    let client = raw(port(SYSTEM)).await;
    client
        .batch_execute(&started(&schema, "ns/b", false))
        .await
        .unwrap();
    let Commit::Pending(answer) = driver.commit(session, batch) else {
        panic!("a server answers later");
    };
    let outcomes = answer.await.unwrap();
    match &outcomes[0] {
        CommitOutcome::Refused(error) => assert_eq!(error.kind(), ErrorKind::Corrupt),
        other => panic!("{other:?}"),
    }
    assert!(
        matches!(outcomes[1], CommitOutcome::Committed(_)),
        "{outcomes:?}"
    );
    let error = RepositoryState::from_snapshot(&driver.load(&web, None).await.unwrap());
    assert!(error.unwrap_err().contains("the head counts"));
}

/// An unknown outcome in its column is reported, and not passed over.
#[tokio::test]
async fn an_outcome_that_nobody_knows_is_not_overlooked() {
    for server in [SYSTEM, NEWEST] {
        let (driver, schema) = with_limit_two(port(server)).await;
        let client = raw(port(server)).await;
        let web = key("web");
        let known = driver.load(&web, None).await.unwrap().head.version();
        let update = format!(
            "ALTER DOMAIN {schema}.run_outcome DROP CONSTRAINT run_outcome_check; \
             UPDATE {schema}.repositories SET revision = revision + 1"
        );
        client.batch_execute(&update).await.unwrap();
        for outcome in [-1, 7, i16::MIN, i16::MAX] {
            let update = format!(
                "DELETE FROM {schema}.history; \
                 INSERT INTO {schema}.history (repository, run, format, uid, kind, priority, \
                   ticket, outcome, abandoned, revision) \
                 SELECT repository, 'ns/x', 1, 'u', 0, 0, 1, {outcome}, false, revision \
                   FROM {schema}.repositories"
            );
            client.batch_execute(&update).await.unwrap();
            for since in [None, Some(known)] {
                let error = driver.load(&web, since).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{outcome}: {error}");
                assert!(error.to_string().contains("outcome holds"), "{error}");
            }
        }
    }
}

/// Commands that are planned together end in one commit, which the guard has to let pass although
/// two of its runs are beyond the limit.
#[tokio::test]
async fn adoptions_beyond_the_limit_pass_with_what_was_granted_before_them() {
    let (driver, _schema) = with_limit_two(port(SYSTEM)).await;
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    let state = driver.load(&key("web"), None).await.unwrap();
    let state = RepositoryState::from_snapshot(&state).unwrap();
    let mut plan = pac_core::protocol::Plan::new(&state, issuer, 100);
    plan.apply(&Command::Admit(durable("b")));
    plan.apply(&Command::Adopt(durable("c")));
    plan.apply(&Command::Adopt(durable("d")));
    let changes = plan.finish().unwrap();
    assert_eq!(changes.adopted.len(), 2);
    let commit = RepositoryCommit {
        repository: key("web"),
        changes,
    };
    assert_eq!(committed(&driver, session, vec![commit]).await, [true]);
    let admitted = command(&driver, session, &key("web"), &Command::Admit(durable("e"))).await;
    let queued = matches!(
        admitted,
        Outcome::Admitted {
            admitted: Admitted::Queued { .. },
            ..
        }
    );
    assert!(queued, "{admitted:?}");
}

#[tokio::test]
async fn the_documented_grants_are_enough_and_less_is_said() {
    for server in [SYSTEM, NEWEST] {
        let owner = options(port(server));
        let schema = owner.schema.clone();
        let role = unique("role");
        let client = raw(port(server)).await;
        client
            .batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'secret-word'"))
            .await
            .unwrap();
        let mut options = owner.clone();
        options.username = role.clone();
        options.password = Password::new("secret-word");
        // It may not create the schema,
        let error = PostgresDriver::connect(options.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
        assert!(
            error.to_string().contains("docs/deploy/postgresql.sql"),
            "{error}"
        );
        drop(PostgresDriver::connect(owner).await.unwrap());
        // nor use one that it was not let into,
        let error = PostgresDriver::connect(options.clone()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
        let grants = include_str!("../../../docs/deploy/postgresql.sql");
        let grants = grants
            .replace("pac_runtime", &role)
            .replace("SCHEMA pac", &format!("SCHEMA {schema}"));
        let grants = grants.replace(" pac.", &format!(" {schema}."));
        // Once more changes nothing.
        for _ in 0..2 {
            client.batch_execute(&grants).await.unwrap();
        }
        // and with the grants of the guide it works.
        let driver = PostgresDriver::connect(options.clone()).await.unwrap();
        let session = driver.open_session(TTL, &support::me()).await.unwrap();
        driver.keep_alive(session).await.unwrap();
        set_limit(&driver, session, &key("web"), 1).await;
        command(&driver, session, &key("web"), &Command::Admit(durable("a"))).await;
        assert_eq!(driver.repositories_of(session).await.unwrap(), [key("web")]);
        driver.dead_sessions().await.unwrap();
        command(&driver, session, &key("web"), &Command::RemoveRepository).await;
        driver.close_session(session).await.unwrap();
        let config = format!(
            "host=127.0.0.1 port={} user={role} dbname=postgres password=x",
            port(server)
        );
        let (own, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
            .await
            .unwrap();
        tokio::spawn(connection);
        for sql in [
            format!("DROP TABLE {schema}.queue"),
            format!("CREATE TABLE {schema}.t ()"),
        ] {
            let error = own.batch_execute(&sql).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "42501", "{sql}");
        }
    }
}

#[tokio::test]
async fn many_start_at_once_and_a_newer_schema_is_refused() {
    let options = options(port(SYSTEM));
    let starts = (0..8).map(|_| tokio::spawn(PostgresDriver::connect(options.clone())));
    for start in starts.collect::<Vec<_>>() {
        start.await.unwrap().unwrap();
    }
    let client = raw(port(SYSTEM)).await;
    let newer = format!("UPDATE {}.meta SET version = 99", options.schema);
    client.batch_execute(&newer).await.unwrap();
    let error = PostgresDriver::connect(options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Incompatible);
    assert!(error.to_string().contains("version 99"), "{error}");
}

/// A repository of many revisions and a new one start runs in one transaction: what the database
/// counts of each goes by its own revisions.
#[tokio::test]
async fn old_and_new_repositories_start_runs_together() {
    let proxy = Proxy::to(port(SYSTEM)).await;
    let driver = PostgresDriver::connect(options(proxy.port)).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    let both = [key("old"), key("new")];
    for repository in &both {
        set_limit(&driver, session, repository, 1).await;
    }
    for n in 0..120 {
        let run = durable(&format!("run-{n}"));
        let end = Command::Release {
            run: run.run.clone(),
            uid: run.uid.clone(),
            token: None,
            outcome: RunOutcome::Completed,
        };
        command(&driver, session, &both[0], &Command::Admit(run)).await;
        command(&driver, session, &both[0], &end).await;
    }
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    let mut batch = Vec::new();
    for repository in &both {
        let snapshot = driver.load(repository, None).await.unwrap();
        let state = RepositoryState::from_snapshot(&snapshot).unwrap();
        let (_, changes) = apply(&state, issuer, &Command::Admit(durable("together")));
        batch.push(RepositoryCommit {
            repository: repository.clone(),
            changes: changes.unwrap(),
        });
    }
    proxy.clear();
    assert_eq!(committed(&driver, session, batch).await, [true, true]);
    assert_eq!(proxy.requests_with("commit_batch"), 1);
}
