//! `pac migrate` that is killed in the middle, again and again: what it left is found, the rest is
//! done, and nothing is lost, doubled, or in another order.

use std::process::Stdio;
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::servers::etcd::OwnEtcd;
use super::servers::{Store, variable};
use super::{OLD_TABLES, ask, both, names, old_keys, put, put_lease, sql, succeeded};

/// Each Repository with five runs, of which two run.
const REPOSITORIES: usize = 30;

/// A Repository that takes etcd several commits.
const BIG: usize = 250;

/// Repositories by name: their limits, what runs with its tokens, and what waits, in order.
type Books = Vec<(String, Value, Vec<(String, Value)>, Vec<String>)>;

#[test]
fn a_migration_that_is_killed_is_done_by_the_next_one_on_postgresql_and_between_stores() {
    let old = format!("old_killed_{}", std::process::id());
    let rows = format!(
        "CREATE SCHEMA {old}; SET search_path = {old}; {OLD_TABLES};
         DELETE FROM concurrency_slots;
         INSERT INTO concurrency_slots
           (repository_key, pipeline_run_key, state, expires_at, created_at)
           SELECT 'ci/r' || r, 'ci/r' || r || '-' || (runs - n),
             CASE WHEN n < 2 THEN 'running' ELSE 'queued' END, now(), now()
           FROM (SELECT r, CASE r WHEN 0 THEN {BIG} ELSE 5 END AS runs
             FROM generate_series(0, {REPOSITORIES}) r) s, generate_series(0, runs - 1) n
           ORDER BY r, n"
    );
    sql(&rows);
    let (first, etcd, second) = (Store::postgres(), Store::etcd(), Store::postgres());
    let mut in_the_middle = false;
    let migrate = ["migrate", "--from", "postgresql", "--legacy-schema", &old];
    in_the_middle |= kill_in_the_middle(&first, &migrate, || rows_of(&first));
    let books = books(&first);
    assert_eq!(names_of(&books), expected(REPOSITORIES, BIG));
    let remove = [&migrate[..], &["--remove"]].concat();
    succeeded(&first.run(&remove));
    assert_eq!(
        sql(&format!("SELECT count(*) FROM {old}.concurrency_slots")),
        "0"
    );
    sql(&format!("DROP SCHEMA {old} CASCADE"));

    let endpoint = variable("PAC_TEST_ETCD");
    let entries = || entries_of(&etcd, &endpoint);
    let there = ["migrate", "--from", "postgresql", "--to", "etcd"];
    let there = [&both(&first, &etcd)[..], &there].concat();
    in_the_middle |= kill_in_the_middle(&etcd, &there, entries);
    assert_eq!(self::books(&etcd), books);
    let remove = [&there[..], &["--remove"]].concat();
    in_the_middle |= kill_in_the_middle(&etcd, &remove, || rows_of(&first));
    assert_eq!((rows_of(&first), self::books(&etcd)), (0, books.clone()));

    let back = ["migrate", "--from", "etcd", "--to", "postgresql"];
    let back = [&both(&etcd, &second)[..], &back].concat();
    in_the_middle |= kill_in_the_middle(&second, &back, || rows_of(&second));
    let remove = [&back[..], &["--remove"]].concat();
    in_the_middle |= kill_in_the_middle(&second, &remove, entries);
    assert_eq!((entries(), self::books(&second)), (0, books));
    assert!(in_the_middle, "every kill came before or after the work");
}

#[test]
fn a_migration_that_is_killed_is_done_by_the_next_one_on_etcd() {
    const FEW: usize = 12;
    let own = OwnEtcd::start();
    let at = own.endpoint();
    let mut runs_of: Vec<_> = expected(FEW, BIG / 2);
    // The order is that of the writes, and not that of the Repositories.
    runs_of.rotate_left(FEW / 2);
    for (repository, running, queued) in &runs_of {
        for run in running {
            put_lease(&at, repository, run);
        }
        for run in running.iter().chain(queued) {
            let key = format!("/pac/concurrency/{repository}/queue/{run}");
            put(&at, &key, run, None);
        }
    }
    let store = Store::at_etcd(&at);
    let migrate = ["migrate", "--from", "etcd-v2"];
    let mut in_the_middle = kill_in_the_middle(&store, &migrate, || entries_of(&store, &at));
    let books = books(&store);
    assert_eq!(names_of(&books), expected(FEW, BIG / 2));
    let remove = [&migrate[..], &["--remove"]].concat();
    in_the_middle |= kill_in_the_middle(&store, &remove, || old_keys(&at));
    assert_eq!((old_keys(&at), self::books(&store)), (0, books));
    assert!(in_the_middle, "every kill came before or after the work");
}

/// Runs `pac` and kills it as soon as this number has changed, then runs it to its end. Says whether
/// it was killed in the middle of the work, which a busy machine may prevent: of several
/// migrations, one at least is.
fn kill_in_the_middle(store: &Store, args: &[&str], count: impl Fn() -> usize) -> bool {
    let before = count();
    let mut pac = store.pac_itself(args);
    let pac = pac.stdout(Stdio::null()).stderr(Stdio::null());
    let mut pac = pac.spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(30);
    while count() == before && pac.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "{args:?} does nothing");
        sleep(Duration::from_millis(2));
    }
    pac.kill().unwrap();
    pac.wait().unwrap();
    let killed_at = count();
    succeeded(&store.run(args));
    killed_at != before && killed_at != count()
}

fn rows_of(store: &Store) -> usize {
    let schema = &store.settings().last().unwrap().1;
    let count = sql(&format!(
        "SELECT (SELECT count(*) FROM {schema}.queue) + (SELECT count(*) FROM {schema}.slots) \
           + (SELECT count(*) FROM {schema}.history)"
    ));
    count.parse().unwrap()
}

fn entries_of(store: &Store, endpoint: &str) -> usize {
    let prefix = format!("{}entries/", store.settings().last().unwrap().1);
    let range = json!({
        "key": STANDARD.encode(&prefix), "range_end": STANDARD.encode(prefix.replace("entries/", "entries0")),
        "count_only": true
    });
    let count = ask(endpoint, "/v3/kv/range", &range)["count"].clone();
    count.as_str().map_or(0, |count| count.parse().unwrap())
}

fn books(store: &Store) -> Books {
    let status = store.json(&["status"]);
    let all = status.as_array().unwrap().iter().map(|one| {
        let running = one["running"].as_array().unwrap().iter();
        let running = running.map(|run| (text(&run["run"]), run["token"].clone()));
        let queued = names(&one["queued"]).into_iter().map(str::to_owned);
        let (repository, limit) = (text(&one["repository"]), one["limit"].clone());
        (repository, limit, running.collect(), queued.collect())
    });
    let mut books: Books = all.collect();
    books.sort_by(|a, b| a.0.cmp(&b.0));
    books
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

fn names_of(books: &Books) -> Vec<(String, Vec<String>, Vec<String>)> {
    let all = books.iter().map(|(repository, _, running, queued)| {
        let running = running.iter().map(|(run, _)| run.clone()).collect();
        (repository.clone(), running, queued.clone())
    });
    all.collect()
}

/// The Repositories `ci/r0`, with so many runs, to `ci/r<number>`, with five: by name, in the order
/// of their runs.
fn expected(number: usize, big: usize) -> Vec<(String, Vec<String>, Vec<String>)> {
    let mut all: Vec<_> = (0..=number)
        .map(|r| {
            let runs = if r == 0 { big } else { 5 };
            let name = |n: usize| format!("ci/r{r}-{n}");
            let running = [runs, runs - 1].map(name).to_vec();
            let queued = (1..runs - 1).rev().map(name).collect();
            (format!("ci/r{r}"), running, queued)
        })
        .collect();
    all.sort();
    all
}
