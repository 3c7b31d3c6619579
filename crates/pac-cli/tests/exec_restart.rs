//! Waiting `pac exec` when the store is stopped and started again: how long slots stay idle.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]
#![allow(
    clippy::print_stdout,
    reason = "how long slots were idle is of interest"
)]

use crate::servers;

use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use servers::{Store, read};

/// How many commands there are, how many may run at once, and how long one runs.
const COMMANDS: usize = 16;
const LIMIT: usize = 2;
const WORK: f64 = 2.0;
/// When the store is stopped, in seconds from the first command, and for how long.
const STOPS: [(f64, f64); 2] = [(4.0, 2.0), (14.0, 1.0)];
/// A slot may be idle for so long after the store answers again, and at any other time, on a machine
/// that is busy with other tests, too. Mostly it is less than a second; when a hint was lost and
/// the back-stop found it, it was between four and eight.
const LONGEST: f64 = 3.5;

/// A server that can be stopped.
trait Stop {
    fn stop(&mut self);
    fn start_again(&mut self);
}

#[cfg(feature = "postgres")]
impl Stop for servers::own::OwnServer {
    fn stop(&mut self) {
        servers::own::OwnServer::stop(self);
    }

    fn start_again(&mut self) {
        servers::own::OwnServer::start_again(self);
    }
}

#[cfg(feature = "etcd")]
impl Stop for servers::etcd::OwnEtcd {
    fn stop(&mut self) {
        self.kill_9();
    }

    fn start_again(&mut self) {
        servers::etcd::OwnEtcd::start_again(self);
    }
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_slots_are_in_use_again_soon_after_a_restart() {
    let mut server = servers::own::OwnServer::start("PAC_TEST_POSTGRES", "", "");
    let store = Store::at_postgres(&server.port.to_string()).prepared();
    slots_are_in_use_again(&store, &mut server);
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_slots_are_in_use_again_soon_after_a_restart() {
    let mut server = servers::etcd::OwnEtcd::start();
    let store = Store::at_etcd(&server.endpoint());
    slots_are_in_use_again(&store, &mut server);
}

fn slots_are_in_use_again(store: &Store, server: &mut impl Stop) {
    let limit = LIMIT.to_string();
    assert_eq!(store.exec(&["--limit", &limit], "true").wait().code, 0);
    let log = store.file("log");
    let script = format!(
        "echo start $(date +%s.%N) >> {log}; sleep {WORK}; echo end $(date +%s.%N) >> {log}",
        log = log.display()
    );
    let first = now();
    let commands: Vec<_> = (0..COMMANDS).map(|_| store.exec(&[], &script)).collect();
    let mut away = Vec::new();
    for (at, length) in STOPS {
        sleep(Duration::from_secs_f64((first + at - now()).max(0.0)));
        let stopped = now();
        server.stop();
        sleep(Duration::from_secs_f64(length));
        server.start_again();
        away.push((stopped, now()));
    }
    for command in commands {
        let finished = command.wait();
        assert_eq!(finished.code, 0, "{}", finished.stderr);
    }
    let gaps = gaps(&log, &away);
    println!("idle after each stop, and at most at other times: {gaps:?}");
    assert!(gaps.iter().all(|gap| *gap < LONGEST), "{gaps:?}");
}

/// The longest time in seconds for which a slot was idle although commands waited: after the store
/// was back from each of its absences, and apart from these.
fn gaps(log: &Path, away: &[(f64, f64)]) -> Vec<f64> {
    let text = read(log);
    let mut moments: Vec<(f64, bool)> = text
        .lines()
        .map(|line| {
            let (what, at) = line.split_once(' ').unwrap();
            (at.parse().unwrap(), what == "start")
        })
        .collect();
    moments.sort_by(|a, b| a.0.total_cmp(&b.0));
    let starts: Vec<f64> = moments.iter().filter(|m| m.1).map(|m| m.0).collect();
    let ends: Vec<f64> = moments.iter().filter(|m| !m.1).map(|m| m.0).collect();
    assert_eq!((starts.len(), ends.len()), (COMMANDS, COMMANDS), "{text}");
    let mut gaps = vec![0.0_f64; away.len() + 1];
    // The slot that is freed by the n-th end is taken by the start after the first ones.
    for (end, next) in ends.iter().zip(&starts[LIMIT..]) {
        let absence = away.iter().position(|(from, to)| end < to && next > from);
        let (number, idle) = match absence {
            Some(number) => (number, next - end.max(away[number].1)),
            None => (away.len(), next - end),
        };
        gaps[number] = gaps[number].max(idle);
    }
    gaps
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}
