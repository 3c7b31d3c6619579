//! The schema: its name, its versions, and the role that uses it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use pac_core::driver::{Driver, Level, Retention};
use pac_core::protocol::{Admitted, Command, Outcome};
use pac_core::{ErrorKind, SessionId};
use pac_postgres::{LegacyPostgres, Migrate, PostgresDriver, PostgresSchema};
use support::own::OwnServer;
use support::{
    SYSTEM, TTL, command, durable, failures, key, options, port, raw, set_limit, unique, value,
};
use tokio::time::timeout;

/// Starts a run, and lets a second one wait.
async fn starts_one(driver: &PostgresDriver) -> SessionId {
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    set_limit(driver, session, &key("web"), 1).await;
    for (name, starts) in [("a", true), ("b", false)] {
        let outcome = command(driver, session, &key("web"), &Command::Admit(durable(name))).await;
        let Outcome::Admitted { admitted, .. } = outcome else {
            panic!("{outcome:?}");
        };
        let started = matches!(admitted, Admitted::Started { .. });
        assert_eq!(started, starts, "{admitted:?}");
    }
    session
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_schema_may_be_named_by_a_word_of_the_language() {
    let server = OwnServer::start(SYSTEM, "", "");
    for name in ["user", "select", "_"] {
        let mut options = options(server.port);
        name.clone_into(&mut options.schema);
        let driver = PostgresDriver::connect(options.clone()).await.unwrap();
        assert!(driver.is_notified());
        let mut watch = driver.watch(SessionId::new(0)).await.unwrap();
        let session = starts_one(&driver).await;
        let hint = timeout(Duration::from_secs(20), watch.next()).await;
        hint.unwrap().unwrap();
        assert_eq!(driver.repositories_of(session).await.unwrap(), [key("web")]);
        assert_eq!(driver.dead_sessions().await.unwrap(), []);
        assert_eq!(failures(&driver).await, []);
        command(&driver, session, &key("web"), &Command::RemoveRepository).await;
        driver.close_session(session).await.unwrap();
        assert!(LegacyPostgres::find(&driver).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_schema_is_changed_only_where_that_is_allowed() {
    let mut options = options(port(SYSTEM));
    let client = raw(port(SYSTEM)).await;
    let there = format!(
        "SELECT count(*) FROM pg_namespace WHERE nspname = '{}'",
        options.schema
    );
    // Readers create nothing, nor does a driver that may not.
    let existing = PostgresDriver::connect_existing(options.clone()).await;
    assert!(existing.unwrap().is_none());
    options.migrate = Migrate::Never;
    let error = PostgresDriver::connect(options.clone()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("pac schema apply"), "{error}");
    let schema = PostgresSchema::new(&options).unwrap();
    let status = schema.status().await.unwrap();
    assert_eq!((status.found, status.needed), (None, 1));
    assert_eq!(value::<i64>(&client, &there).await, 0);
    // What is printed is what is applied.
    client.batch_execute(&status.sql).await.unwrap();
    let status = schema.status().await.unwrap();
    assert_eq!((status.found, status.sql.as_str()), (Some(1), ""));
    schema.apply().await.unwrap();
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    starts_one(&driver).await;
    // An empty schema is one that is still to be created.
    let mut empty = options.clone();
    empty.schema = unique("empty");
    let create = format!("CREATE SCHEMA {}", empty.schema);
    client.batch_execute(&create).await.unwrap();
    let schema = PostgresSchema::new(&empty).unwrap();
    assert_eq!(schema.status().await.unwrap().found, None);
    schema.apply().await.unwrap();
    assert_eq!(schema.status().await.unwrap().found, Some(1));
}

#[tokio::test]
async fn a_schema_of_another_version_is_refused_and_left_alone() {
    let mut options = options(port(SYSTEM));
    let running = PostgresDriver::connect(options.clone()).await.unwrap();
    let client = raw(port(SYSTEM)).await;
    let everything = format!(
        "SELECT array_agg(c.relname || c.relfilenode ORDER BY c.oid)::text FROM pg_class c \
         WHERE c.relnamespace = '{}'::regnamespace",
        options.schema
    );
    let before = value::<String>(&client, &everything).await;
    for (version, cure) in [(2, "a newer version"), (0, "pac schema apply")] {
        let set = format!("UPDATE {}.meta SET version = {version}", options.schema);
        client.batch_execute(&set).await.unwrap();
        for migrate in [Migrate::Never, Migrate::New] {
            options.migrate = migrate;
            let error = PostgresDriver::connect(options.clone()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Incompatible, "{error}");
            let text = error.to_string();
            assert!(
                text.contains(cure) && text.contains(&format!("version {version},")),
                "{error}"
            );
        }
        let existing = PostgresDriver::connect_existing(options.clone()).await;
        assert_eq!(existing.unwrap_err().kind(), ErrorKind::Incompatible);
        // Asked for, too, nothing is made of what no version has left, or a newer one.
        let schema = PostgresSchema::new(&options).unwrap();
        assert_eq!(schema.status().await.unwrap().found, Some(version));
        let kind = match version {
            0 => ErrorKind::Corrupt,
            _ => ErrorKind::Incompatible,
        };
        options.migrate = Migrate::Always;
        for error in [
            schema.apply().await.unwrap_err(),
            PostgresDriver::connect(options.clone()).await.unwrap_err(),
        ] {
            assert_eq!(error.kind(), kind, "{error}");
        }
        assert_eq!(value::<String>(&client, &everything).await, before);
        // A process that is connected goes on: its functions are still there.
        running.open_session(TTL, &support::me()).await.unwrap();
    }
    starts_one(&running).await;
}

#[tokio::test]
async fn every_privilege_that_is_revoked_is_named() {
    let owner = options(port(SYSTEM));
    let schema = owner.schema.clone();
    drop(PostgresDriver::connect(owner.clone()).await.unwrap());
    let client = raw(port(SYSTEM)).await;
    let role = unique("role");
    let create = format!("CREATE ROLE {role} LOGIN");
    client.batch_execute(&create).await.unwrap();
    let sql = include_str!("../../../docs/deploy/postgresql.sql")
        .replace("pac_runtime", &role)
        .replace("SCHEMA pac", &format!("SCHEMA {schema}"))
        .replace(" pac.", &format!(" {schema}."));
    client.batch_execute(&sql).await.unwrap();
    let functions = format!("REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} FROM PUBLIC");
    client.batch_execute(&functions).await.unwrap();
    let mut options = owner;
    options.username.clone_from(&role);
    let driver = PostgresDriver::connect(options).await.unwrap();
    assert_eq!(failures(&driver).await, []);
    let granted = format!(
        "SELECT privilege_type || ' ON ' || table_schema || '.' || table_name \
           FROM information_schema.role_table_grants WHERE grantee = '{role}' \
         UNION ALL SELECT 'EXECUTE ON FUNCTION ' || f.oid::regprocedure FROM pg_proc f \
           WHERE f.pronamespace = '{schema}'::regnamespace AND prorettype <> 'trigger'::regtype \
         UNION ALL SELECT 'USAGE ON SCHEMA {schema}'"
    );
    let granted = client.query(&granted, &[]).await.unwrap();
    assert!(granted.len() > 30, "{}", granted.len());
    for row in granted {
        let privilege: String = row.get(0);
        let revoke = format!("REVOKE {privilege} FROM {role}");
        client.batch_execute(&revoke).await.unwrap();
        let found = failures(&driver).await;
        let [finding] = found.as_slice() else {
            panic!("{privilege}: {found:?}");
        };
        assert_eq!(finding.level(), Level::Failure(ErrorKind::Unauthorised));
        // The types of a function's parameters come after their names.
        let name = privilege.split('(').next().unwrap();
        assert!(finding.text().contains(name), "{privilege}: {finding}");
        assert!(!finding.text().contains("), "), "{privilege}: {finding}");
        let grant = format!("GRANT {privilege} TO {role}");
        client.batch_execute(&grant).await.unwrap();
    }
    assert_eq!(failures(&driver).await, []);
}

/// A database in which a role may create schemas, and that is all.
#[tokio::test]
async fn an_ordinary_owner_can_run_the_grants_of_the_guide() {
    let client = raw(port(SYSTEM)).await;
    let (owner, role) = (unique("owner"), unique("role"));
    let create = format!("CREATE ROLE {owner} LOGIN; GRANT CREATE ON DATABASE postgres TO {owner}");
    client.batch_execute(&create).await.unwrap();
    let mut options = options(port(SYSTEM));
    let schema = options.schema.clone();
    options.username.clone_from(&owner);
    drop(PostgresDriver::connect(options.clone()).await.unwrap());
    let config = format!(
        "host=127.0.0.1 port={} user={owner} dbname=postgres",
        port(SYSTEM)
    );
    let (as_owner, connection) = tokio_postgres::connect(&config, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let grants = include_str!("../../../docs/deploy/postgresql.sql")
        .replace("pac_runtime", &role)
        .replace("SCHEMA pac", &format!("SCHEMA {schema}"))
        .replace(" pac.", &format!(" {schema}."));
    let error = as_owner.batch_execute(&grants).await.unwrap_err();
    let hint = error.as_db_error().and_then(|error| error.hint());
    assert!(hint.unwrap().contains("CREATE ROLE"), "{error:?}");
    let create = format!("CREATE ROLE {role} LOGIN");
    client.batch_execute(&create).await.unwrap();
    for _ in 0..2 {
        as_owner.batch_execute(&grants).await.unwrap();
    }
    options.username = role;
    let driver = PostgresDriver::connect(options).await.unwrap();
    assert_eq!(failures(&driver).await, []);
    starts_one(&driver).await;
}

#[tokio::test]
async fn commits_are_at_read_committed_whatever_is_the_default() {
    let client = raw(port(SYSTEM)).await;
    for isolation in ["repeatable read", "serializable"] {
        let role = unique("role");
        let create = format!(
            "CREATE ROLE {role} SUPERUSER LOGIN; \
             ALTER ROLE {role} SET default_transaction_isolation = '{isolation}'"
        );
        client.batch_execute(&create).await.unwrap();
        let mut options = options(port(SYSTEM));
        options.username = role;
        // They create the schema at the same time, and each sees what the others have made.
        let starts = (0..4).map(|_| tokio::spawn(PostgresDriver::connect(options.clone())));
        for start in starts.collect::<Vec<_>>() {
            start.await.unwrap().unwrap();
        }
        let driver = PostgresDriver::connect_existing(options).await.unwrap();
        starts_one(&driver.unwrap()).await;
    }
}

#[tokio::test]
async fn finished_runs_whose_deletion_failed_are_deleted_later() {
    let mut options = options(port(SYSTEM));
    let schema = options.schema.clone();
    options.retention = Retention::new(Duration::from_secs(24 * 60 * 60), 1);
    let driver = PostgresDriver::connect(options).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    for name in ["a", "b", "c"] {
        command(
            &driver,
            session,
            &key("web"),
            &Command::Admit(durable(name)),
        )
        .await;
        let cancel = Command::cancel(durable(name).run, None);
        command(&driver, session, &key("web"), &cancel).await;
    }
    let client = raw(port(SYSTEM)).await;
    let finished = format!("SELECT count(*) FROM {schema}.history");
    for (from, to, left) in [("purge_excess", "away", 3), ("away", "purge_excess", 1)] {
        let rename = format!("ALTER FUNCTION {schema}.{from} RENAME TO {to}");
        client.batch_execute(&rename).await.unwrap();
        driver.dead_sessions().await.unwrap();
        assert_eq!(value::<i64>(&client, &finished).await, left);
    }
}
