//! Rows that no commit of this software writes, where no rule of the database has kept them out: each
//! spoils its own repository or session, and no other.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::collections::BTreeSet;
use std::time::Duration;

use pac_core::driver::{Commit, CommitOutcome, Driver, ListFilter, RepositoryCommit, Retention};
use pac_core::driver::{Level, SessionTtl};
use pac_core::protocol::{Admitted, Command, Death, Issuer, Outcome, apply};
use pac_core::state::RepositoryState;
use pac_core::{ErrorKind, RepositoryKey, SessionId};
use pac_postgres::PostgresDriver;
use support::{SYSTEM, TTL, command, durable, failures, key, options, port, raw, set_limit, value};
use tokio::time::{sleep, timeout};
use tokio_postgres::Client;

const SOON: Duration = Duration::from_secs(20);

/// A store with the repository `good`, in which one run has started and one waits.
struct Store {
    driver: PostgresDriver,
    client: Client,
    schema: String,
    session: SessionId,
}

impl Store {
    async fn new() -> Self {
        let mut options = options(port(SYSTEM));
        options.retention = Retention::new(Duration::from_secs(3_600), 10);
        let schema = options.schema.clone();
        let driver = PostgresDriver::connect(options).await.unwrap();
        let session = driver.open_session(TTL, &support::me()).await.unwrap();
        let store = Self {
            driver,
            client: raw(port(SYSTEM)).await,
            schema,
            session,
        };
        store.fill(&key("good")).await;
        store
    }

    /// With the rules of all domains and tables dropped, as if a broken program had written before
    /// there were any.
    async fn without_rules() -> Self {
        let store = Self::new().await;
        let drop = format!(
            "DO $$ DECLARE c record; BEGIN
               FOR c IN SELECT k.conname, t.typname, r.relname FROM pg_constraint k
                 LEFT JOIN pg_type t ON t.oid = k.contypid
                 LEFT JOIN pg_class r ON r.oid = k.conrelid
                 WHERE k.contype = 'c' AND k.connamespace = '{0}'::regnamespace LOOP
                 EXECUTE CASE WHEN c.typname IS NULL
                   THEN format('ALTER TABLE {0}.%I DROP CONSTRAINT %I', c.relname, c.conname)
                   ELSE format('ALTER DOMAIN {0}.%I DROP CONSTRAINT %I', c.typname, c.conname) END;
               END LOOP;
             END $$",
            store.schema
        );
        store.client.batch_execute(&drop).await.unwrap();
        store
    }

    /// Starts one run, and lets one wait.
    async fn fill(&self, repository: &RepositoryKey) {
        set_limit(&self.driver, self.session, repository, 1).await;
        for name in ["a", "b"] {
            let admit = Command::Admit(durable(name));
            command(&self.driver, self.session, repository, &admit).await;
        }
    }

    async fn execute(&self, sql: &str) {
        let sql = sql.replace("pac.", &format!("{}.", self.schema));
        self.client
            .batch_execute(&sql)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The commit that lets another run wait, on the state as it is now.
    async fn planned(&self, repository: &RepositoryKey) -> RepositoryCommit {
        let snapshot = self.driver.load(repository, None).await.unwrap();
        let state = RepositoryState::from_snapshot(&snapshot).unwrap();
        let issuer = Issuer {
            session: self.session,
            takes_ownerless: false,
        };
        let (_, changes) = apply(&state, issuer, &Command::Admit(durable("another")));
        RepositoryCommit {
            repository: repository.clone(),
            changes: changes.unwrap(),
        }
    }
}

/// Each with another figure that cannot be calculated with, or that means nothing.
#[tokio::test]
async fn sessions_that_cannot_be_understood_keep_no_others_from_dying() {
    let store = Store::without_rules().await;
    let driver = &store.driver;
    for (id, rest) in [
        ("1", "9223372036854775807, 9223372036854775807, 0, 0"),
        ("2", "9223372036854775807, 1, 9223372036854775807, 0"),
        ("3", "-1, -1, 0, 0"),
        ("4", "0, 0, 0, 0"),
        (
            "5",
            "-9223372036854775808, 9223372036854775807, 0, 9223372036854775807",
        ),
        ("6", "1000, 9223372036854775807, 0, 0"),
        ("-7", "9223372036854775807, 1, 0, 0"),
        // These can be understood, and die.
        (
            "8",
            "1000, 1000, -9223372036854775808, -9223372036854775808",
        ),
        ("9", "1000, 1000, 9223372036854775807, 9223372036854775807"),
    ] {
        store
            .execute(&format!(
                "INSERT INTO pac.sessions \
                   (id, session_ttl, lease_ttl, deadline, lease_deadline, opened_at, program) \
                 VALUES ({id}, {rest}, 0, 'x')"
            ))
            .await;
    }
    let short = SessionTtl::new(Duration::from_secs(2), Duration::from_secs(60));
    let silent = driver.open_session(short, &support::me()).await.unwrap();
    let web = key("web");
    command(driver, silent, &web, &Command::Admit(durable("a"))).await;
    let dies = async {
        loop {
            driver.keep_alive(store.session).await.unwrap();
            let dead = driver.dead_sessions().await.unwrap();
            if dead.contains(&(silent, Death::Session)) {
                return;
            }
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(SOON, dies).await.unwrap();
    let left = "SELECT array_agg(id ORDER BY id)::text FROM pac.sessions WHERE id < 10";
    let left = left.replace("pac.", &format!("{}.", store.schema));
    assert_eq!(
        value::<String>(&store.client, &left).await,
        "{-7,1,2,3,4,5,6}"
    );
    let lost = driver.keep_alive(SessionId::new(1)).await.unwrap_err();
    assert_eq!(lost.kind(), ErrorKind::SessionLost);
    let Commit::Pending(answer) = driver.commit(SessionId::new(2), Vec::new()) else {
        panic!("a server answers later");
    };
    assert_eq!(answer.await.unwrap_err().kind(), ErrorKind::SessionLost);
    let findings = failures(driver).await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert_eq!(findings[0].level(), Level::Failure(ErrorKind::Corrupt));
    for id in ["-7", "1", "2", "3", "4", "5", "6"] {
        assert!(findings[0].text().contains(id), "{findings:?}");
    }
}

#[tokio::test]
async fn a_counter_beyond_all_counting_spoils_its_repository_and_not_the_floor() {
    for spoilt in ["last_ticket", "last_token", "revision"] {
        let store = Store::without_rules().await;
        let (driver, bad) = (&store.driver, key("bad"));
        store.fill(&bad).await;
        let snapshot = driver.load(&bad, None).await.unwrap();
        let update = format!(
            "UPDATE pac.repositories SET {spoilt} = 9223372036854775800 WHERE repository = 'ns/bad'"
        );
        store.execute(&update).await;
        let error = driver.load(&bad, None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
        let text = error.to_string();
        for part in [
            "ns/bad",
            spoilt,
            "9223372036854775800",
            "2^62",
            "correct or remove",
        ] {
            assert!(text.contains(part), "{text}");
        }
        // A manager that has it in its cache removes it all the same.
        let state = RepositoryState::from_snapshot(&snapshot).unwrap();
        let issuer = Issuer {
            session: store.session,
            takes_ownerless: false,
        };
        let (_, changes) = apply(&state, issuer, &Command::RemoveRepository);
        let mut changes = changes.unwrap();
        if spoilt == "revision" {
            let revision = 9_223_372_036_854_775_800_u64;
            changes.expected.revision = pac_core::Revision::new(revision);
        }
        let removal = RepositoryCommit {
            repository: bad,
            changes,
        };
        let Commit::Pending(answer) = driver.commit(store.session, vec![removal]) else {
            panic!("a server answers later");
        };
        let outcome = answer.await.unwrap().remove(0);
        match outcome {
            CommitOutcome::Committed(_) => assert_ne!(spoilt, "revision"),
            // No revision comes after this one.
            CommitOutcome::Refused(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
                assert_eq!(spoilt, "revision");
            }
            other => panic!("{other:?}"),
        }
        let floor = format!("SELECT value::bigint FROM {}.floor", store.schema);
        assert!(
            value::<i64>(&store.client, &floor).await < 1_000,
            "{spoilt}"
        );
        for new in ["new-1", "new-2"] {
            let admitted = command(
                driver,
                store.session,
                &key(new),
                &Command::Admit(durable("c")),
            )
            .await;
            assert!(
                matches!(
                    admitted,
                    Outcome::Admitted {
                        admitted: Admitted::Started { .. },
                        ..
                    }
                ),
                "{admitted:?}"
            );
        }
    }
}

#[tokio::test]
async fn a_read_takes_in_no_more_finished_runs_than_it_says() {
    let store = Store::new().await;
    let (driver, good) = (&store.driver, key("good"));
    let early = driver.load(&good, None).await.unwrap();
    let fill = "INSERT INTO pac.history (repository, run, format, uid, kind, priority, ticket, \
                  outcome, abandoned, finished_at, revision) \
                SELECT 'ns/good', 'ns/done-' || n, 1, 'u', 0, 0, 2 + n, 0, false, \
                  extract(epoch FROM now())::bigint * 1000, revision + 1 + n / 10 \
                FROM generate_series(1, 50000) n, pac.repositories; \
                UPDATE pac.repositories SET revision = revision + 5001, last_ticket = 50002, \
                  stamp = pac.new_stamp(revision + 5001)";
    store.execute(fill).await;
    // Twice the ten that are kept, a thousand, and one: besides the started and the waiting run.
    let most = 2 * 10 + 1_000 + 1 + 2;
    let whole = driver.load(&good, None).await.unwrap();
    assert_eq!(whole.entries.len(), most);
    // A reader that knows an earlier version gets all there is, not a part with a gap.
    let part = driver
        .load(&good, Some(early.head.version()))
        .await
        .unwrap();
    assert_eq!((part.since, part.entries.len()), (None, most));
    let state = RepositoryState::from_snapshot(&part).unwrap();
    assert_eq!(state.head().queued, 1);
    let known = driver
        .load(&good, Some(whole.head.version()))
        .await
        .unwrap();
    assert_eq!((known.since.is_some(), known.entries.len()), (true, 0));
    // What is too much goes, a part at each look for dead sessions.
    let left = format!("SELECT count(*) FROM {}.history", store.schema);
    let goes = async {
        loop {
            driver.dead_sessions().await.unwrap();
            if value::<i64>(&store.client, &left).await <= 10 {
                return;
            }
        }
    };
    timeout(SOON * 3, goes).await.unwrap();
    assert_eq!(driver.load(&good, None).await.unwrap().entries.len(), 12);
}

/// What is wrong with each of the spoilt repositories.
const POISONS: [(&str, &str); 74] = [
    ("repositories", "revision = -1"),
    ("repositories", "revision = 9223372036854775807"),
    ("repositories", "stamp = -1"),
    ("repositories", "format = 0"),
    ("repositories", "format = 99"),
    ("repositories", "format = -32768"),
    ("repositories", "run_limit = -5"),
    ("repositories", "run_limit = 9223372036854775807"),
    ("repositories", "last_ticket = -9223372036854775808"),
    ("repositories", "last_token = 9223372036854775807"),
    ("repositories", "queued = -1"),
    ("repositories", "started = 9223372036854775807"),
    ("repositories", "purged = 9223372036854775807"),
    ("repositories", "slots_from = 9223372036854775807"),
    ("repositories", "slots_from = -9223372036854775808"),
    ("repositories", "repository = 'NO KEY ' || repository"),
    ("repositories", "repository = E'\\x1b[31m\\n' || repository"),
    ("queue", "format = 0"),
    ("queue", "format = 99"),
    ("queue", "uid = ''"),
    ("queue", "uid = repeat('x', 2000000)"),
    ("queue", "run = run || ' no key'"),
    ("queue", "run = '../../../' || run"),
    ("queue", "kind = 7"),
    ("queue", "ticket = -1"),
    ("queue", "ticket = 9223372036854775807"),
    ("queue", "session = -1"),
    ("queue", "revision = 9223372036854775807"),
    ("queue", "revision = -9223372036854775808"),
    ("queue", "repository = repository || '-elsewhere'"),
    ("slots", "format = 0"),
    ("slots", "format = 99"),
    ("slots", "uid = ''"),
    ("slots", "uid = repeat('x', 2000000)"),
    ("slots", "run = run || ' no key'"),
    ("slots", "run = '../../../' || run"),
    ("slots", "kind = 7"),
    ("slots", "ticket = -1"),
    ("slots", "ticket = 9223372036854775807"),
    ("slots", "session = -1"),
    ("slots", "revision = 9223372036854775807"),
    ("slots", "revision = -9223372036854775808"),
    ("slots", "repository = repository || '-elsewhere'"),
    ("history", "format = 0"),
    ("history", "format = 99"),
    ("history", "uid = ''"),
    ("history", "uid = repeat('x', 2000000)"),
    ("history", "run = run || ' no key'"),
    ("history", "run = '../../../' || run"),
    ("history", "kind = 7"),
    ("history", "ticket = -1"),
    ("history", "ticket = 9223372036854775807"),
    ("history", "revision = 9223372036854775807"),
    ("history", "revision = -9223372036854775808"),
    ("history", "repository = repository || '-elsewhere'"),
    ("slots", "token = -1"),
    ("slots", "token = 9223372036854775807"),
    ("slots", "head = '(4294967295,0)'"),
    (
        "slots",
        "queued_at = 9223372036854775807, started_at = -9223372036854775808",
    ),
    ("queue", "queued_at = 9223372036854775807"),
    ("history", "outcome = 9, finished_at = -9223372036854775808"),
    ("history", "token = 9223372036854775807"),
    ("queue", "terms = 'no JSON'"),
    ("queue", r#"terms = '{"weight": 1e99}'"#),
    ("slots", "terms = 'no JSON'"),
    (
        "slots",
        r#"terms = '{"weight": 1e99, "asked": 1e99, "group": {}}'"#,
    ),
    ("slots", r#"terms = '{"weight": [2]}'"#),
    ("slots", r#"terms = '{"colour": "red"}'"#),
    ("history", "terms = '[' || repeat('[', 100000)"),
    ("history", r#"terms = '{"asked": "soon"}'"#),
    ("repositories", "policy = 'no JSON'"),
    (
        "repositories",
        r#"policy = '{"needs": 1e99, "surplus": -1e99}'"#,
    ),
    (
        "repositories",
        r#"policy = '{"surplus": "x", "paused": {}}'"#,
    ),
    ("repositories", r#"policy = '{"colour": "red"}'"#),
];

#[tokio::test]
async fn one_spoilt_repository_spoils_no_other() {
    let store = Store::without_rules().await;
    let (driver, good) = (&store.driver, key("good"));
    let bad: Vec<_> = (0..POISONS.len())
        .map(|n| key(&format!("bad-{n}")))
        .collect();
    let mut batch = Vec::new();
    for repository in &bad {
        store.fill(repository).await;
        batch.push(store.planned(repository).await);
    }
    batch.push(store.planned(&good).await);
    // The triggers would refuse some.
    store
        .execute("SET session_replication_role = 'replica'")
        .await;
    for ((table, poison), repository) in POISONS.iter().zip(&bad) {
        store
            .execute(&format!(
                "UPDATE pac.{table} SET {poison} WHERE repository = '{repository}'"
            ))
            .await;
    }
    store.execute("RESET session_replication_role").await;
    // Listing,
    for filter in [ListFilter::All, ListFilter::Startable] {
        driver.list(filter, None, 100).await.unwrap();
    }
    let mut listed = BTreeSet::new();
    let mut after = None;
    loop {
        let page = driver
            .list(ListFilter::All, after.as_ref(), 5)
            .await
            .unwrap();
        let Some((last, _)) = page.last() else { break };
        after = Some(last.clone());
        listed.extend(page.into_iter().map(|(key, _)| key));
    }
    assert!(listed.contains(&good));
    // the views,
    for view in ["running", "waiting", "ended"] {
        // A row as a whole is made of all its columns.
        let read = format!("SELECT count(v::text) FROM pac.{view} v");
        store.execute(&read).await;
    }
    // what a session has,
    let of_session = driver.repositories_of(store.session).await.unwrap();
    assert!(of_session.contains(&good));
    // reads,
    for repository in &bad {
        match driver.load(repository, None).await {
            Ok(_) => {}
            Err(error) => {
                let kinds = [ErrorKind::Corrupt, ErrorKind::Incompatible];
                assert!(kinds.contains(&error.kind()), "{error}");
                assert!(error.to_string().contains(repository.as_str()), "{error}");
            }
        }
    }
    assert_eq!(driver.load(&good, None).await.unwrap().entries.len(), 2);
    // looks for dead sessions, and diagnoses,
    driver.keep_alive(store.session).await.unwrap();
    driver.dead_sessions().await.unwrap();
    driver.diagnose().await.unwrap();
    // retention, of old ones and of too many,
    let everything = "SELECT pac.purge_old(0, 500); \
                      SELECT pac.purge_excess(ARRAY(SELECT repository::text FROM pac.repositories), \
                        0, 500)";
    store.execute(everything).await;
    // and a commit to all of them at once.
    let Commit::Pending(answer) = driver.commit(store.session, batch) else {
        panic!("a server answers later");
    };
    let outcomes = answer.await.unwrap();
    let of_good = outcomes.last().unwrap();
    assert!(
        matches!(of_good, CommitOutcome::Committed(_)),
        "{of_good:?}"
    );
    assert_eq!(driver.load(&good, None).await.unwrap().entries.len(), 3);
}
