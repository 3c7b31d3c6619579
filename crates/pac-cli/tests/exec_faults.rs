//! `pac exec` when processes are killed, stopped or asked to end.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

use servers::{
    Finished, Running, Store, WEB, eventually, is_alive, on_every_store, read, signal,
    wait_for_text,
};

on_every_store! {
    a_killed_holder_takes_its_command_along_and_the_next_starts_within_the_ttl,
    a_killed_waiter_leaves_the_queue,
    signals_reach_the_command_and_all_that_it_started,
    a_waiter_that_is_told_to_end_leaves_the_queue_at_once,
    what_is_stopped_beyond_its_ttl_ends_its_command_on_waking,
    a_waiter_whose_place_was_lost_queues_again_and_says_so,
    a_command_is_ended_when_its_run_is_cancelled,
    at_a_terminal_what_is_typed_reaches_the_command_once,
    an_ignored_signal_stays_ignored,
}

const TTL: Duration = Duration::from_secs(3);
const PROMISE: Duration = Duration::from_secs(2);

/// A holder of the only slot, whose command writes its process id and then sleeps.
fn holder(store: &Store, script: &str) -> (Running, u32) {
    let pid = store.file("pid");
    let _ = std::fs::remove_file(&pid);
    let script = format!("echo $$ > {}; {script}", pid.display());
    let running = store.exec(
        &["--limit", "1", "--ttl", "3s", "--run", "ci/holder"],
        &script,
    );
    eventually("the command", || read(&pid).ends_with('\n'));
    (running, read(&pid).trim().parse().unwrap())
}

fn waiter(store: &Store, name: &str, place: usize) -> Running {
    let started = store.file(name);
    let script = format!("echo started > {}; sleep 0.1", started.display());
    let waiter = store.exec(&["--ttl", "3s", "--run", &format!("ci/{name}")], &script);
    store.wait_for_counts(1, place);
    waiter
}

fn a_killed_holder_takes_its_command_along_and_the_next_starts_within_the_ttl(store: &Store) {
    let (mut killed, command) = holder(store, "exec sleep 300");
    let next = waiter(store, "next", 1);
    killed.signal("KILL");
    let at = Instant::now();
    eventually("the end of the command", || !is_alive(command));
    assert!(at.elapsed() < Duration::from_secs(1), "{:?}", at.elapsed());
    wait_for_text(&store.file("next"), "started");
    assert!(at.elapsed() <= TTL + PROMISE, "{:?}", at.elapsed());
    assert_eq!(next.wait().code, 0);
}

fn a_killed_waiter_leaves_the_queue(store: &Store) {
    let (mut holder, _) = holder(store, "exec sleep 300");
    let mut killed = waiter(store, "killed", 1);
    let next = waiter(store, "next", 2);
    killed.signal("KILL");
    let gone = eventually("one place less", || store.counts() == (1, 1));
    assert!(gone <= TTL + PROMISE, "{gone:?}");
    holder.signal("TERM");
    assert_eq!(next.wait().code, 0);
    assert_eq!(read(&store.file("killed")), "");
}

fn signals_reach_the_command_and_all_that_it_started(store: &Store) {
    // A process that a shell starts in the background ignores SIGINT.
    for (name, number, heard) in [("TERM", 15, 2), ("HUP", 1, 2), ("INT", 2, 1)] {
        let said = store.file(name);
        let script = format!(
            "trap 'echo {name} >> {said}; exit 3' {name}; \
             sh -c 'trap \"echo {name} >> {said}; exit\" {name}; echo up >> {said}; \
             sleep 20 & wait' >/dev/null 2>&1 & echo up >> {said}; wait",
            said = said.display()
        );
        let trapping = Detached::start(store, &script);
        eventually("both", || read(&said).matches("up").count() == 2);
        signal(name, trapping.pac);
        assert_eq!(trapping.wait().code, 3, "{name}");
        eventually(name, || read(&said).matches(name).count() == heard);

        let plain = Detached::start(store, "exec sleep 300");
        signal(name, plain.pac);
        assert_eq!(plain.wait().code, 128 + number, "{name}");
        assert_eq!(store.counts(), (0, 0), "the slot is free at once");
    }
}

/// A `pac` in a session of its own, started through an intermediate process.
struct Detached {
    running: Option<Running>,
    pac: u32,
}

impl Detached {
    fn start(store: &Store, script: &str) -> Self {
        let pid = store.file("pid-of-pac");
        let _ = std::fs::remove_file(&pid);
        let script = format!("echo $PPID > {}; {script}", pid.display());
        let exec = ["exec", "-r", WEB, "--limit", "1", "--", "sh", "-c", &script];
        let running = Running::start(store.pac(&exec));
        eventually("the command", || read(&pid).ends_with('\n'));
        let pac = read(&pid).trim().parse().unwrap();
        Self {
            running: Some(running),
            pac,
        }
    }

    fn wait(mut self) -> Finished {
        self.running.take().unwrap().wait()
    }
}

impl Drop for Detached {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _ = Command::new("kill")
            .args(["-s", "KILL", &self.pac.to_string()])
            .output();
    }
}

fn a_waiter_that_is_told_to_end_leaves_the_queue_at_once(store: &Store) {
    let (_holder, _) = holder(store, "exec sleep 300");
    for (name, number) in [("TERM", 15), ("INT", 2)] {
        let mut told = waiter(store, name.to_lowercase().as_str(), 1);
        told.signal(name);
        assert_eq!(told.wait().code, 128 + number);
        assert_eq!(store.counts(), (1, 0));
    }
}

fn what_is_stopped_beyond_its_ttl_ends_its_command_on_waking(store: &Store) {
    let said = store.file("said");
    let script = format!(
        "trap 'echo ended >> {}; exit 0' TERM; sleep 300 & wait",
        said.display()
    );
    let (mut stopped, command) = holder(store, &script);
    let next = waiter(store, "next", 1);
    stopped.signal("STOP");
    wait_for_text(&store.file("next"), "started");
    assert!(
        is_alive(command),
        "nobody can end it yet: its token is out of date"
    );
    stopped.signal("CONT");
    let at = Instant::now();
    wait_for_text(&said, "ended");
    assert!(at.elapsed() < Duration::from_secs(1), "{:?}", at.elapsed());
    let stopped = stopped.wait();
    assert_eq!(stopped.code, 71, "{stopped:?}");
    assert!(stopped.stderr.contains("the lease was lost"), "{stopped:?}");
    assert_eq!(next.wait().code, 0);
}

fn a_waiter_whose_place_was_lost_queues_again_and_says_so(store: &Store) {
    let (mut holder, _) = holder(store, "exec sleep 300");
    let mut stopped = waiter(store, "stopped", 1);
    stopped.signal("STOP");
    store.wait_for_counts(1, 0);
    stopped.signal("CONT");
    store.wait_for_counts(1, 1);
    assert_eq!(read(&store.file("stopped")), "");
    holder.signal("TERM");
    let stopped = stopped.wait();
    assert_eq!(stopped.code, 0, "{stopped:?}");
    assert!(stopped.stderr.contains("queueing again"), "{stopped:?}");
    assert_eq!(read(&store.file("stopped")), "started\n");
}

fn a_command_is_ended_when_its_run_is_cancelled(store: &Store) {
    let (cancelled, _) = holder(store, "exec sleep 300");
    let ended = store.json(&["cancel", WEB, "ci/holder"]);
    assert_eq!(
        (&ended["result"], &ended["outcome"]),
        (&"ended".into(), &"cancelled".into())
    );
    let cancelled = cancelled.wait();
    assert_eq!(cancelled.code, 71);
    assert!(
        cancelled.stderr.contains("the run was ended as cancelled"),
        "{cancelled:?}"
    );

    // While the run waits in the queue, there is no command yet.
    let (_holder, _) = holder(store, "exec sleep 300");
    let waiting = waiter(store, "waiting", 1);
    assert_eq!(store.run(&["cancel", WEB, "ci/waiting"]).code, 0);
    let waiting = waiting.wait();
    assert_eq!(waiting.code, 75, "{waiting:?}");
    assert_eq!(read(&store.file("waiting")), "");
}

fn at_a_terminal_what_is_typed_reaches_the_command_once(store: &Store) {
    let said = store.file("said");
    // The script reads from the terminal, which only the foreground group may. A signal may end
    // a `read`.
    let script = format!(
        "trap 'echo INT >> {said}' INT; echo ready >> {said}; \
         while [ \"$line\" != bye ]; do read line && echo $line >> {said}; done; exit 5",
        said = said.display()
    );
    let mut pac = store.pac_itself(&["exec", "-r", WEB, "--limit", "1", "--", "sh", "-c", &script]);
    let words: Vec<_> = std::iter::once(pac.get_program())
        .chain(pac.get_args())
        .map(|word| format!("'{}'", word.to_str().unwrap().replace('\'', r"'\''")))
        .collect();
    // `script` of util-linux makes a terminal. `exec`: a remaining shell would die of its own
    // signal.
    let typescript = store.file("typescript");
    pac = Command::new("script");
    pac.args([
        "--quiet",
        "--return",
        "--command",
        &format!("exec {}", words.join(" ")),
    ])
    .arg(&typescript)
    .stdin(std::process::Stdio::piped())
    .stdout(std::process::Stdio::piped())
    .stderr(std::process::Stdio::piped());
    let mut running = Running::start(pac);
    let mut keyboard = running.child().stdin.take().unwrap();
    let mut type_in = |text: &str| {
        let typed = std::io::Write::write_all(&mut keyboard, text.as_bytes());
        typed.unwrap_or_else(|error| panic!("{text:?}: {error}: {}", read(&typescript)));
    };
    wait_for_text(&said, "ready");
    type_in("hello\n");
    wait_for_text(&said, "hello");
    type_in("\u{3}");
    wait_for_text(&said, "INT");
    sleep(Duration::from_millis(300));
    type_in("world\n");
    wait_for_text(&said, "world");
    type_in("bye\n");
    assert_eq!(running.wait().code, 5);
    assert_eq!(read(&said), "ready\nhello\nINT\nworld\nbye\n");
}

fn an_ignored_signal_stays_ignored(store: &Store) {
    let pac = store.pac_itself(&[
        "exec",
        "-r",
        WEB,
        "--limit",
        "1",
        "--",
        "sh",
        "-c",
        "echo up; sleep 1; exit 4",
    ]);
    let mut nohup = Command::new("nohup");
    nohup
        .arg(pac.get_program())
        .args(pac.get_args())
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    let mut running = Running::start(nohup);
    let mut up = [0; 3];
    std::io::Read::read_exact(running.child().stdout.as_mut().unwrap(), &mut up).unwrap();
    running.signal("HUP");
    assert_eq!(running.wait().code, 4);
}
