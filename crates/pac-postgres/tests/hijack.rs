//! A role with nothing but CONNECT makes functions, operators, schemas and tables in a database where
//! every role may: none of them is ever run by the driver.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::time::Duration;

use pac_core::driver::{Driver, ListFilter, Retention};
use pac_core::migration::ClusterFacts;
use pac_core::protocol::Command;
use pac_core::{Error, ErrorKind, SessionId};
use pac_postgres::{LegacyPostgres, PostgresDriver, PostgresOptions, PostgresSchema};
use support::{
    SYSTEM, TTL, command, durable, failures, key, options, port, raw, set_limit, unique, value,
};
use tokio_postgres::{Client, NoTls};

/// Makes traps: for every function that the driver's texts name and every operator, one for all types
/// for which PostgreSQL has none, so that it has to convert or to generalise.
const TRAPS: &str = include_str!("support/traps.sql");

/// A database of a role of its own, in which every role may create functions; and the role `evil`.
struct Shared {
    database: String,
    owner: String,
    evil: String,
}

impl Shared {
    async fn make() -> Self {
        let shared = Self {
            database: unique("shared"),
            owner: unique("owner"),
            evil: unique("evil"),
        };
        let admin = raw(port(SYSTEM)).await;
        for sql in [
            format!("CREATE ROLE {} LOGIN", shared.owner),
            format!("CREATE ROLE {} LOGIN", shared.evil),
            format!("CREATE DATABASE {} OWNER {}", shared.database, shared.owner),
        ] {
            admin.batch_execute(&sql).await.unwrap();
        }
        let all = "GRANT CREATE ON SCHEMA public TO PUBLIC";
        shared
            .connect("postgres")
            .await
            .batch_execute(all)
            .await
            .unwrap();
        shared
    }

    async fn connect(&self, role: &str) -> Client {
        let port = port(SYSTEM);
        let config = format!(
            "host=127.0.0.1 port={port} user={role} dbname={}",
            self.database
        );
        let (client, connection) = tokio_postgres::connect(&config, NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn as_evil(&self, sql: &str) {
        let evil = self.connect(&self.evil).await;
        evil.batch_execute(sql).await.unwrap();
    }

    fn options(&self) -> PostgresOptions {
        let mut options = options(port(SYSTEM));
        options.database.clone_from(&self.database);
        options.username.clone_from(&self.owner);
        options
    }
}

/// The names before parentheses in the driver's sources.
fn names() -> Vec<String> {
    let mut names = Vec::new();
    let mut directories = vec![std::path::PathBuf::from(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/src"
    ))];
    while let Some(directory) = directories.pop() {
        for file in std::fs::read_dir(directory).unwrap() {
            let path = file.unwrap().path();
            if path.is_dir() {
                directories.push(path);
                continue;
            }
            let text = std::fs::read_to_string(path).unwrap();
            let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
            let before = text.split('(').map(|part| {
                let rest = part.trim_end_matches(word);
                part[rest.len()..].to_owned()
            });
            names.extend(before.filter(|name| !name.is_empty()));
        }
    }
    names.sort();
    names.dedup();
    names
}

#[tokio::test]
async fn nothing_that_another_role_has_made_is_called() {
    let shared = Shared::make().await;
    let evil = shared.connect(&shared.evil).await;
    evil.batch_execute(TRAPS).await.unwrap();
    let made: i64 = evil
        .query_one("SELECT make_traps($1)", &[&names()])
        .await
        .unwrap()
        .get(0);
    assert!(made > 5_000, "{made}");
    // They work: statements that are not careful step into them.
    let careless = shared.connect(&shared.owner).await;
    for sql in [
        "SELECT hashtextextended('x', 0)",
        "SELECT * FROM unnest(ARRAY['a'])",
        "SELECT ARRAY['a'] = ARRAY['a']",
        "SELECT oid FROM pg_class WHERE oid <> 0",
    ] {
        let error = careless.query(sql, &[]).await.unwrap_err();
        let message = error.as_db_error().unwrap().message();
        assert!(message.contains("trapped"), "{sql}: {message}");
    }
    let calls = "SELECT last_value FROM public.trapped";
    let before: i64 = value(&careless, calls).await;
    round(&shared).await;
    assert_eq!(value::<i64>(&careless, calls).await, before);
}

/// Everything that a driver does.
async fn round(shared: &Shared) {
    let mut options = shared.options();
    options.retention = Retention::new(Duration::from_millis(1), 1);
    let schema = PostgresSchema::new(&options).unwrap();
    assert_eq!(schema.status().await.unwrap().found, None);
    schema.apply().await.unwrap();
    schema.apply().await.unwrap();
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    assert!(driver.is_notified());
    let (one, two) = (
        driver.open_session(TTL, &support::me()).await.unwrap(),
        driver.open_session(TTL, &support::me()).await.unwrap(),
    );
    let mut watch = driver.watch(two).await.unwrap();
    for name in ["web", "api"] {
        set_limit(&driver, one, &key(name), 1).await;
        for run in ["a", "b", "c"] {
            let admit = Command::Admit(durable(run));
            command(&driver, one, &key(name), &admit).await;
        }
    }
    watch.next().await.unwrap();
    driver.keep_alive(one).await.unwrap();
    assert_eq!(driver.repositories_of(one).await.unwrap().len(), 2);
    for filter in [ListFilter::All, ListFilter::Startable] {
        driver.list(filter, None, 10).await.unwrap();
    }
    end_all(&driver, one).await;
    // Finished runs go by their number and by their age.
    for _ in 0..3 {
        driver.dead_sessions().await.unwrap();
    }
    let count = format!("SELECT count(*) FROM {}.history", options.schema);
    let client = shared.connect("postgres").await;
    let left = async || value::<i64>(&client, &count.replace("count", "pg_catalog.count")).await;
    let until = tokio::time::Instant::now() + Duration::from_secs(20);
    while left().await > 0 && tokio::time::Instant::now() < until {
        driver.dead_sessions().await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(left().await, 0);
    assert_eq!(failures(&driver).await, []);
    driver.server_version().await.unwrap();
    assert!(LegacyPostgres::find(&driver).await.unwrap().is_none());
    driver.close_session(one).await.unwrap();
    driver.close_session(two).await.unwrap();
    drop(driver);
    let again = PostgresDriver::connect_existing(options).await.unwrap();
    assert!(again.is_some());
}

async fn end_all(driver: &PostgresDriver, session: SessionId) {
    for name in ["web", "api"] {
        for run in ["c", "b", "a"] {
            let cancel = Command::cancel(durable(run).run, None);
            command(driver, session, &key(name), &cancel).await;
        }
    }
}

async fn refusal(options: PostgresOptions) -> Error {
    match PostgresDriver::connect(options).await {
        Ok(_) => panic!("connected"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn a_schema_of_another_role_is_refused() {
    let shared = Shared::make().await;
    let options = shared.options();
    let (schema, evil) = (&options.schema, &shared.evil);
    let admin = shared.connect("postgres").await;
    let all = format!("GRANT CREATE ON DATABASE {} TO PUBLIC", shared.database);
    admin.batch_execute(&all).await.unwrap();
    let squat = format!("CREATE SCHEMA {schema}; GRANT ALL ON SCHEMA {schema} TO PUBLIC");
    shared.as_evil(&squat).await;
    let mut apply = Vec::new();
    for _ in 0..2 {
        let error = refusal(options.clone()).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        let text = error.to_string();
        let whose = format!("belongs to the role {evil:?}");
        assert!(
            text.contains(&whose) && text.contains("DROP SCHEMA"),
            "{text}"
        );
        // A superuser counts as a member of every role, which makes none of them trusted.
        let mut superuser = options.clone();
        "postgres".clone_into(&mut superuser.username);
        assert_eq!(
            refusal(superuser).await.to_string(),
            text.replace(&shared.owner, "postgres")
        );
        let applied = PostgresSchema::new(&options).unwrap().apply().await;
        apply.push(applied.unwrap_err().kind());
        // Also when all that this software would make is there.
        let alter = format!("GRANT {evil} TO {}", shared.owner);
        admin.batch_execute(&alter).await.unwrap();
        let give = format!("REVOKE CREATE ON SCHEMA {schema} FROM PUBLIC");
        admin.batch_execute(&give).await.unwrap();
        let usable = format!("GRANT CREATE ON SCHEMA {schema} TO {}", shared.owner);
        admin.batch_execute(&usable).await.unwrap();
        drop(PostgresDriver::connect(options.clone()).await.unwrap());
        let alter = format!("REVOKE {evil} FROM {}", shared.owner);
        admin.batch_execute(&alter).await.unwrap();
    }
    assert_eq!(apply, [ErrorKind::Config; 2]);
    // What is in a schema stays its maker's, whichever role the schema is given to.
    let trap = format!("CREATE FUNCTION {schema}.trap() RETURNS int LANGUAGE sql RETURN 1");
    shared.as_evil(&trap).await;
    // The owner of the database is trusted, and a role that was let create schemas by name.
    let give = format!("ALTER SCHEMA {schema} OWNER TO {}", shared.owner);
    admin.batch_execute(&give).await.unwrap();
    let error = refusal(options.clone()).await;
    let holds = format!("holds something that the role {evil:?} has made");
    assert!(error.to_string().contains(&holds), "{error}");
    let clean = format!("DROP FUNCTION {schema}.trap()");
    admin.batch_execute(&clean).await.unwrap();
    drop(PostgresDriver::connect(options.clone()).await.unwrap());
    let open = format!("GRANT CREATE ON SCHEMA {schema} TO PUBLIC");
    admin.batch_execute(&open).await.unwrap();
    let error = refusal(options).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(
        error.to_string().contains("every role may create in"),
        "{error}"
    );
}

#[tokio::test]
async fn what_every_role_may_do_is_told_and_the_script_of_the_guide_ends_it() {
    let shared = Shared::make().await;
    let options = shared.options();
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    let admin = shared.connect("postgres").await;
    let all = format!("GRANT CREATE ON DATABASE {} TO PUBLIC", shared.database);
    admin.batch_execute(&all).await.unwrap();
    let found = driver.diagnose().await.unwrap();
    let [finding] = found.as_slice() else {
        panic!("{found:?}");
    };
    let may = "connect, create schemas, create in its schema public";
    assert!(finding.text().contains(may), "{finding}");
    assert!(
        finding.cure().contains("docs/deploy/postgresql.sql"),
        "{finding}"
    );
    let runtime = unique("runtime");
    let create = format!("CREATE ROLE {runtime} LOGIN");
    admin.batch_execute(&create).await.unwrap();
    let script = include_str!("../../../docs/deploy/postgresql.sql")
        .replace("pac_runtime", &runtime)
        .replace("SCHEMA pac", &format!("SCHEMA {}", options.schema))
        .replace(" pac.", &format!(" {}.", options.schema))
        .replace("= 'pac'", &format!("= '{}'", options.schema))
        .replace("= pac,", &format!("= {},", options.schema));
    // The owner of the database, who may not alter roles; and again, as a superuser.
    for role in [&shared.owner[..], "postgres"] {
        let client = shared.connect(role).await;
        let settings = format!(
            "SELECT count(*) FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole \
             WHERE r.rolname = '{runtime}' AND s.setconfig::text LIKE '%search_path={}, pg_temp%'",
            options.schema
        );
        client.batch_execute(&script).await.unwrap();
        let set: i64 = value(&client, &settings).await;
        assert_eq!(set == 1, role == "postgres");
    }
    assert_eq!(driver.diagnose().await.unwrap(), []);
    let config = format!(
        "host=127.0.0.1 port={} user={} dbname={}",
        port(SYSTEM),
        shared.evil,
        shared.database
    );
    let refused = tokio_postgres::connect(&config, NoTls).await;
    assert!(refused.is_err());
    // The roles that are meant come in.
    let mut least = options.clone();
    least.username = runtime;
    for options in [options, least] {
        let driver = PostgresDriver::connect(options).await.unwrap();
        assert_eq!(driver.diagnose().await.unwrap(), []);
        driver.open_session(TTL, &support::me()).await.unwrap();
    }
}

#[tokio::test]
async fn tables_of_another_role_are_no_older_layout() {
    let shared = Shared::make().await;
    let options = shared.options();
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    shared
        .as_evil(
            "CREATE SEQUENCE trapped; GRANT ALL ON SEQUENCE trapped TO PUBLIC;
             CREATE VIEW concurrency_slots AS SELECT nextval('trapped') AS id, now() AS updated_at,
               '' AS repository_key, '' AS pipeline_run_key, '' AS state, now() AS expires_at,
               now() AS created_at;
             CREATE VIEW repository_states AS SELECT * FROM concurrency_slots;
             CREATE VIEW pipeline_run_states AS SELECT * FROM concurrency_slots;
             GRANT ALL ON concurrency_slots, repository_states, pipeline_run_states TO PUBLIC",
        )
        .await;
    assert!(LegacyPostgres::find(&driver).await.unwrap().is_none());
    let read = LegacyPostgres::read(&options, "public", &ClusterFacts::default()).await;
    let error = read.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    assert!(
        error
            .to_string()
            .contains("concurrency_slots is no table of"),
        "{error}"
    );
    let evil = shared.connect(&shared.evil).await;
    let called: bool = value(&evil, "SELECT is_called FROM trapped").await;
    assert!(!called);
}
