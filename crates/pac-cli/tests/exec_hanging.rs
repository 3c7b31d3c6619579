//! `pac exec` while the store does not answer: a signal and `--wait-timeout` end it nevertheless,
//! long before the command timeout (10 s) would.

#![cfg(all(unix, feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use servers::{Running, Store, WEB, eventually, psql, read, wait_for_text};

/// The longest time from a signal or a deadline to the end: the store is asked to confirm that a
/// place is given up, and to close the session, each for 2 s; the rest is for a busy machine.
const AT_ONCE: Duration = Duration::from_secs(7);

const SIGNALS: [(&str, i32); 2] = [("TERM", 15), ("INT", 2)];

/// What `pac exec` asks the store for, one after the other, by the lock that keeps it from an
/// answer: reading the limit waits for the first lock, the admission for the second.
const QUESTIONS: [(&str, &str); 2] = [
    ("repositories", "ACCESS EXCLUSIVE"),
    ("slots", "SHARE ROW EXCLUSIVE"),
];

#[test]
fn postgres_a_signal_ends_the_asking_at_once_although_the_store_hangs() {
    let store = prepared();
    for (table, mode) in QUESTIONS {
        for (name, number) in SIGNALS {
            let lock = Lock::take(&store, table, mode);
            let mut asking = start(&store, &[]);
            lock.wait_until_it_holds_up_another();
            asking.signal(name);
            ends_at_once(asking, Instant::now(), 128 + number);
        }
    }
    nothing_has_run(&store);
}

#[test]
fn postgres_a_wait_timeout_ends_the_asking_although_the_store_hangs() {
    let store = prepared();
    let timeout = Duration::from_secs(3);
    for (table, mode) in QUESTIONS {
        let lock = Lock::take(&store, table, mode);
        let began = Instant::now();
        let asking = start(&store, &["--wait-timeout", "3s"]);
        lock.wait_until_it_holds_up_another();
        let said = ends_at_once(asking, began + timeout, 75);
        assert!(began.elapsed() >= timeout, "{:?}", began.elapsed());
        assert!(said.contains("--wait-timeout"), "{said}");
    }
    nothing_has_run(&store);
}

#[test]
fn postgres_a_signal_or_the_wait_timeout_ends_connecting_to_a_store_that_says_nothing() {
    for (name, number) in SIGNALS {
        let (listener, store) = silent();
        let mut connecting = start(&store, &["--limit", "1"]);
        let _connection = listener.accept().unwrap();
        connecting.signal(name);
        ends_at_once(connecting, Instant::now(), 128 + number);
    }
    let (_listener, store) = silent();
    let began = Instant::now();
    let connecting = start(&store, &["--limit", "1", "--wait-timeout", "1s"]);
    ends_at_once(connecting, began + Duration::from_secs(1), 75);
}

#[test]
fn postgres_a_waiter_ends_in_time_although_the_store_hangs() {
    let store = prepared();
    let go = store.file("go");
    let script = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let holder = store.exec(&["--ttl", "3s"], &script);
    store.wait_for_counts(1, 0);
    for (name, number) in SIGNALS {
        let mut waiter = start(&store, &[]);
        store.wait_for_counts(1, 1);
        let lock = Lock::take(&store, "queue", "SHARE ROW EXCLUSIVE");
        waiter.signal(name);
        ends_at_once(waiter, Instant::now(), 128 + number);
        // Without a lock the place goes with the session, as that of a killed process does.
        drop(lock);
        store.wait_for_counts(1, 0);
    }
    let began = Instant::now();
    let waiter = start(&store, &["--wait-timeout", "5s"]);
    store.wait_for_counts(1, 1);
    let lock = Lock::take(&store, "queue", "SHARE ROW EXCLUSIVE");
    ends_at_once(waiter, began + Duration::from_secs(5), 75);
    drop(lock);
    std::fs::write(&go, "").unwrap();
    assert_eq!(holder.wait().code, 0);
    nothing_has_run(&store);
}

/// A store that takes connections and says nothing.
fn silent() -> (TcpListener, Store) {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    (silent, Store::at_postgres(&port))
}

/// A store with the limit 1, so that its tables are there.
fn prepared() -> Store {
    let store = Store::postgres();
    let limited = store.run(&["limit", WEB, "1"]);
    assert_eq!(limited.code, 0, "{limited:?}");
    store
}

fn start(store: &Store, args: &[&str]) -> Running {
    let script = format!("echo ran >> {}", store.file("ran").display());
    store.exec(&[&["--ttl", "3s"], args].concat(), &script)
}

/// Waits for the end, which must be due now, and returns what was said.
fn ends_at_once(mut running: Running, due: Instant, code: i32) -> String {
    while !running.has_ended() {
        let late = Instant::now().saturating_duration_since(due);
        assert!(late < AT_ONCE, "{late:?} late, and runs on");
        std::thread::sleep(Duration::from_millis(20));
    }
    let finished = running.wait();
    assert_eq!(finished.code, code, "{finished:?}");
    finished.stderr
}

/// No invocation that was ended has run its command, and none of them keeps the slot.
fn nothing_has_run(store: &Store) {
    let ran = store.file("ran");
    assert_eq!(read(&ran), "");
    assert_eq!(start(store, &[]).wait().code, 0);
    wait_for_text(&ran, "ran");
}

/// A lock on a table of the store, held by a transaction until this is dropped.
struct Lock {
    table: String,
    psql: Child,
}

impl Lock {
    fn take(store: &Store, table: &str, mode: &str) -> Self {
        let mut settings = store.settings().iter();
        let schema = settings.find(|(key, _)| key == "postgresql-schema");
        let table = format!("{}.{table}", schema.unwrap().1);
        let mut psql = psql(&["-v", "ON_ERROR_STOP=1"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let script = format!("BEGIN; LOCK TABLE {table} IN {mode} MODE; SELECT 'locked';\n");
        let stdin = psql.stdin.as_mut().unwrap();
        stdin.write_all(script.as_bytes()).unwrap();
        let mut line = String::new();
        let mut stdout = BufReader::new(psql.stdout.take().unwrap());
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim(), "locked");
        Self { table, psql }
    }

    fn wait_until_it_holds_up_another(&self) {
        let count = format!(
            "SELECT count(*) FROM pg_locks WHERE relation = '{}'::regclass AND NOT granted",
            self.table
        );
        eventually("another that waits for the lock", || {
            let output = psql(&["-c", &count]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap().trim() != "0"
        });
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.psql.kill();
        let _ = self.psql.wait();
    }
}
