//! The three views, as `docs/sql.md` shows them: each of its examples, by `psql`, as a role that may do
//! nothing else.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::process::Command as Program;

use pac_core::driver::Driver;
use pac_core::protocol::{Command, RunRequest};
use pac_core::state::RunOutcome;
use pac_core::{PipelineRunKey, RepositoryKey, SessionId, SessionIdentity};
use pac_postgres::PostgresDriver;
use support::{NEWEST, SYSTEM, TTL, command, options, port, raw, set_limit, unique, value};

const GUIDE: &str = include_str!("../../../docs/sql.md");

fn run(name: &str) -> RunRequest {
    RunRequest::durable(format!("ci/{name}").parse().unwrap(), name.parse().unwrap())
}

/// Two runs have ended, two run, and two wait.
async fn fill(driver: &PostgresDriver, session: SessionId) {
    let website: RepositoryKey = "ci/website".parse().unwrap();
    set_limit(driver, session, &website, 2).await;
    for name in ["one", "two", "six", "three", "five", "four"] {
        command(driver, session, &website, &Command::Admit(run(name))).await;
    }
    let key = |name: &str| -> PipelineRunKey { format!("ci/{name}").parse().unwrap() };
    let cancel = Command::cancel(key("five"), None);
    command(driver, session, &website, &cancel).await;
    let end = Command::Release {
        run: key("one"),
        uid: "one".parse().unwrap(),
        token: None,
        outcome: RunOutcome::Completed,
    };
    command(driver, session, &website, &end).await;
}

/// The blocks of the guide after its heading "Examples": statements, each with what it prints.
fn examples() -> Vec<(String, String)> {
    let (_, examples) = GUIDE.split_once("## Examples").unwrap();
    let blocks = |language: &str| -> Vec<String> {
        let begin = format!("```{language}\n");
        let parts = examples.split(begin.as_str()).skip(1);
        parts
            .map(|part| part.split_once("```").unwrap().0.to_owned())
            .collect()
    };
    let (statements, printed) = (blocks("sql"), blocks("text"));
    assert_eq!(statements.len(), printed.len());
    assert!(statements.len() >= 4);
    statements.into_iter().zip(printed).collect()
}

#[tokio::test]
async fn every_example_of_the_guide_prints_what_it_shows_to_a_role_that_may_only_read() {
    for server in [SYSTEM, NEWEST] {
        let options = options(port(server));
        let schema = options.schema.clone();
        let driver = PostgresDriver::connect(options).await.unwrap();
        let pac = SessionIdentity::cleaned("pac", "0.1.0", "ci-runner-7", Some(4242));
        let session = driver.open_session(TTL, &pac).await.unwrap();
        fill(&driver, session).await;
        let (grants, _) = GUIDE.split_once("## Examples").unwrap();
        let grants = grants.split("```sql\n").nth(1).unwrap();
        let grants = grants.split_once("```").unwrap().0;
        let reader = unique("reader");
        let here = |sql: &str| {
            sql.replace("pac_reader", &reader)
                .replace("DATABASE pac", "DATABASE postgres")
                .replace("SCHEMA pac", &format!("SCHEMA {schema}"))
                .replace(" pac.", &format!(" {schema}."))
        };
        let client = raw(port(server)).await;
        client.batch_execute(&here(grants)).await.unwrap();
        let asked = |sql: &str| {
            let mut psql = Program::new("psql");
            psql.args(["-X", "-h", "127.0.0.1", "-p", &port(server).to_string()]);
            psql.args(["-U", &reader, "-d", "postgres", "-c", &here(sql)]);
            let output = psql.output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let error = String::from_utf8(output.stderr).unwrap();
            (output.status.success(), text, error)
        };
        for (sql, expected) in examples() {
            let (success, printed, error) = asked(&sql);
            assert!(success, "{sql}: {error}");
            assert_eq!(printed, expected, "{sql}");
        }
        for sql in [
            "SELECT FROM pac.slots",
            "SELECT FROM pac.repositories",
            "UPDATE pac.ended SET priority = 1",
            "SELECT pac.open_session(1000, 1000, 'x', NULL, NULL, NULL)",
            // By it, an operator of its own would be called by others.
            "CREATE FUNCTION pg_temp.f(a pac.counter) RETURNS integer LANGUAGE sql RETURN 1",
        ] {
            let (success, _, error) = asked(sql);
            assert!(!success, "{sql}");
            assert!(error.contains("permission denied"), "{sql}: {error}");
        }
        // What no commit writes is shown, too, and fails for nobody.
        let spoil = format!(
            "ALTER DOMAIN {schema}.moment DROP CONSTRAINT moment_check; \
             UPDATE {schema}.history SET finished_at = 9223372036854775807"
        );
        client.batch_execute(&spoil).await.unwrap();
        let rows = format!("SELECT count(*) FROM {schema}.ended WHERE finished_at IS NULL");
        assert_eq!(value::<i64>(&client, &rows).await, 2);
    }
}
