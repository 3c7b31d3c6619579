//! `pac exec` with slots of several repositories, inside itself, and with a command that does not
//! want to end.

#![cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::spawn;

use servers::{Finished, Running, Store, WEB, on_every_store, read, variable, wait_for_text};

on_every_store! {
    several_slots_are_held_together_and_what_is_held_is_said,
    those_who_name_them_in_another_order_do_not_wait_for_each_other,
    what_is_held_is_given_back_when_the_rest_is_not_had,
    a_command_that_would_wait_for_itself_is_refused,
    within_the_slot_that_is_held_a_command_runs_at_once,
    a_run_that_was_asked_to_end_says_why_by_the_clock_of_the_store,
    who_does_not_want_to_wait_is_not_held_up_by_those_whom_it_passes,
}

const GPU: &str = "shared/gpu";

fn limited(store: &Store) {
    for repository in [WEB, GPU] {
        assert_eq!(store.run(&["limit", repository, "1"]).code, 0);
    }
}

/// `pac exec` in these repositories, with a script for `sh`.
fn exec(store: &Store, repositories: &[&str], args: &[&str], script: &str) -> Running {
    let named = repositories.iter().flat_map(|name| ["-r", name]);
    let exec: Vec<_> = ["exec"].into_iter().chain(named).collect();
    Running::start(store.pac_itself(&[&exec, args, &["--", "sh", "-c", script]].concat()))
}

/// One that has a slot of the GPU, and keeps it until the file is there that is returned with it.
/// It says in the file `up` that it has the slot.
fn holds_gpu(store: &Store, args: &[&str], up: &str) -> (Running, PathBuf) {
    let (up, go) = (store.file(up), store.file("go"));
    let script = format!(
        "echo up > {}; until [ -e {} ]; do sleep 0.05; done",
        up.display(),
        go.display()
    );
    let running = exec(store, &[GPU], args, &script);
    wait_for_text(&up, "up");
    (running, go)
}

fn is_left_alone(store: &Store) {
    for repository in [WEB, GPU] {
        assert_eq!(store.counts_of(repository), (0, 0), "{repository}");
    }
}

fn several_slots_are_held_together_and_what_is_held_is_said(store: &Store) {
    limited(store);
    let (holder, go) = holds_gpu(store, &["--run", "shared/first"], "up");
    let mut both = exec(
        store,
        &[GPU, WEB],
        &["--run", "ci/both"],
        "echo $PAC_REPOSITORY; echo $PAC_FENCING_TOKEN; echo $PAC_HELD",
    );
    let mut stderr = BufReader::new(both.child().stderr.take().unwrap());
    let mut said = String::new();
    stderr.read_line(&mut said).unwrap();
    let place = "holding ci/web, queued in shared/gpu at position 1";
    assert!(said.contains(place), "{said}");
    assert_eq!(store.counts(), (1, 0), "the first of both is held");
    std::fs::write(&go, "").unwrap();
    assert_eq!(holder.wait().code, 0);
    let both = both.wait();
    assert_eq!(both.code, 0, "{both:?}");
    let lines: Vec<_> = both.stdout.lines().collect();
    let [repository, token, held] = lines[..] else {
        panic!("{both:?}");
    };
    assert_eq!(repository, GPU, "the one that was named first");
    let [web, gpu] = held.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{held}");
    };
    assert!(web.starts_with("ci/web=ci/both#"), "{held}");
    assert_eq!(gpu, format!("shared/gpu=ci/both#{token}"));
    is_left_alone(store);
}

fn those_who_name_them_in_another_order_do_not_wait_for_each_other(store: &Store) {
    limited(store);
    let log = store.file("log");
    let script = format!("echo x >> {}; sleep 0.05", log.display());
    let crowd: Vec<_> = (0..12)
        .map(|i| {
            let order = if i % 2 == 0 { [WEB, GPU] } else { [GPU, WEB] };
            exec(store, &order, &["--wait-timeout", "60s"], &script)
        })
        .collect();
    for one in crowd {
        let one = one.wait();
        assert_eq!(one.code, 0, "{one:?}");
    }
    assert_eq!(read(&log).lines().count(), 12);
    is_left_alone(store);
}

fn what_is_held_is_given_back_when_the_rest_is_not_had(store: &Store) {
    limited(store);
    let up = store.file("up");
    let script = format!("echo up > {}; exec sleep 300", up.display());
    let mut holder = exec(store, &[GPU], &[], &script);
    wait_for_text(&up, "up");
    let ran = store.file("ran");
    let script = format!("echo ran > {}", ran.display());
    for impatient in [&["--no-wait"][..], &["--wait-timeout", "5s"]] {
        let refused = exec(store, &[WEB, GPU], impatient, &script).wait();
        assert_eq!(refused.code, 75, "{refused:?}");
        assert!(
            refused.stderr.contains("no slot of shared/gpu"),
            "{refused:?}"
        );
        assert_eq!(store.counts(), (0, 0), "given back");
    }
    assert!(!ran.exists());
    holder.child().kill().unwrap();
    holder.wait();

    let twice = exec(store, &[WEB, WEB], &[], "true").wait();
    assert_eq!(twice.code, 2, "{twice:?}");
    assert!(twice.stderr.contains("twice"), "{twice:?}");
    let whose = exec(store, &[WEB, GPU], &["-l", "2"], "true").wait();
    assert_eq!(whose.code, 2, "{whose:?}");
    assert!(whose.stderr.contains("pac limit NS/NAME N"), "{whose:?}");
}

/// `pac exec` of a script in which `$INNER` is another `pac exec` of the same repositories.
fn nested(store: &Store, outer: &[&str], script: &str) -> Finished {
    let settings = store.settings().iter();
    let settings: Vec<_> = settings
        .map(|(key, value)| format!("--set {key}={value}"))
        .collect();
    let mut named: Vec<_> = outer.iter().flat_map(|name| ["-r", name]).collect();
    named.insert(0, "exec");
    let args = [&named[..], &["--", "sh", "-c", script]].concat();
    let mut pac = store.pac_itself(&args);
    let pac_itself = env!("CARGO_BIN_EXE_pac");
    pac.env(
        "INNER",
        format!("{pac_itself} {} exec -r ci/web", settings.join(" ")),
    );
    Running::start(pac).wait()
}

fn a_command_that_would_wait_for_itself_is_refused(store: &Store) {
    limited(store);
    let refused = nested(store, &[WEB, GPU], "$INNER -- true; echo $?");
    assert_eq!(refused.stdout.trim(), "2", "{refused:?}");
    for part in ["slot of ci/web already", "--reentrant", "unset PAC_HELD"] {
        assert!(refused.stderr.contains(part), "{part}: {refused:?}");
    }
    // Two that take them in another order would wait for each other.
    let script = "$INNER -- true; echo $?; $INNER --wait-timeout 60s -- true; echo $?; \
                  $INNER --max-wait 60s -- true; echo $?";
    let refused = nested(store, &[GPU], script);
    assert_eq!(refused.stdout, "2\n0\n0\n", "{refused:?}");
    assert!(refused.stderr.contains("name both in one"), "{refused:?}");
    // The variable that outlives its command says nothing.
    let held = nested(store, &[WEB], "echo $PAC_HELD");
    let mut later = store.pac_itself(&["exec", "-r", WEB, "--", "true"]);
    later.env("PAC_HELD", held.stdout.trim());
    let later = Running::start(later).wait();
    assert_eq!(later.code, 0, "{later:?}");
    let mut foreign = store.pac_itself(&["exec", "-r", WEB, "--", "true"]);
    foreign.env("PAC_HELD", "all of them");
    let foreign = Running::start(foreign).wait();
    assert_eq!(foreign.code, 2, "{foreign:?}");
    assert!(foreign.stderr.contains("unset it"), "{foreign:?}");
    is_left_alone(store);
}

fn within_the_slot_that_is_held_a_command_runs_at_once(store: &Store) {
    limited(store);
    let script = "echo $PAC_HELD; $INNER -r shared/gpu --reentrant -- sh -c 'echo $PAC_HELD'; echo $?; \
                  $INNER --reentrant -- sh -c 'echo $PAC_FENCING_TOKEN; exit 9'; echo $?";
    let ran = nested(store, &[WEB], script);
    assert_eq!(ran.code, 0, "{ran:?}");
    let lines: Vec<_> = ran.stdout.lines().collect();
    let [outer, both, zero, token, nine] = lines[..] else {
        panic!("{ran:?}");
    };
    assert_eq!((zero, nine), ("0", "9"), "{ran:?}");
    assert!(both.starts_with(&format!("{outer} shared/gpu=")), "{ran:?}");
    assert!(outer.ends_with(&format!("#{token}")), "{ran:?}");
    // The variables are those of the repository that is named first, whoever took its slot.
    let script = "$INNER -r shared/gpu --reentrant -- sh -c 'echo $PAC_REPOSITORY $PAC_FENCING_TOKEN'; \
                  echo $PAC_FENCING_TOKEN";
    let ran = nested(store, &[WEB], script);
    let lines: Vec<_> = ran.stdout.lines().collect();
    let [inner, outer] = lines[..] else {
        panic!("{ran:?}");
    };
    assert_eq!(inner, format!("ci/web {outer}"));
    // It has no more slots than there are around it.
    let heavier = nested(
        store,
        &[WEB],
        "$INNER --weight 2 --reentrant -- true; echo $?",
    );
    assert_eq!(heavier.stdout, "2\n", "{heavier:?}");
    assert!(heavier.stderr.contains("cannot have 2"), "{heavier:?}");
    // Without a slot around it, it takes one as always.
    let alone = exec(store, &[WEB], &["--reentrant"], "echo $PAC_HELD").wait();
    assert!(alone.stdout.starts_with("ci/web=ci/exec-"), "{alone:?}");
    is_left_alone(store);
}

fn a_run_that_was_asked_to_end_says_why_by_the_clock_of_the_store(store: &Store) {
    limited(store);
    // Asked before its time is over, and not at the end of its clearing up.
    let up = store.file("up");
    let script = format!(
        "trap 'sleep 8; exit 0' TERM; echo up > {}; while :; do sleep 0.1; done",
        up.display()
    );
    let patient = ["--run", "ci/early", "--max-hold", "8s", "--ttl", "60s"];
    let patient = [&patient[..], &["--kill-grace", "15s"]].concat();
    let early = exec(store, &[WEB], &patient, &script);
    wait_for_text(&up, "up");
    assert_eq!(store.run(&["cancel", WEB, "ci/early", "--ask"]).code, 0);
    let early = early.wait();
    assert_eq!(early.code, 143, "{early:?}");
    assert!(early.stderr.contains("ended as cancelled"), "{early:?}");

    // The time counts from the grant, and the command starts when the last slot is had.
    let other = store.file("other");
    let script = format!("echo up > {}; sleep 2", other.display());
    let holder = exec(store, &[GPU], &[], &script);
    wait_for_text(&other, "up");
    let late = ["--run", "ci/late", "--max-hold", "8s"];
    let late = exec(store, &[WEB, GPU], &late, "exec sleep 60").wait();
    assert_eq!(holder.wait().code, 0);
    assert_eq!(late.code, 143, "{late:?}");
    assert!(late.stderr.contains("ended as timed-out"), "{late:?}");

    // It counts while the rest is waited for, too.
    let (holder, go) = holds_gpu(store, &[], "third");
    let never = exec(store, &[WEB, GPU], &["--max-hold", "1s"], "true").wait();
    assert_eq!(never.code, 75, "{never:?}");
    std::fs::write(&go, "").unwrap();
    assert_eq!(holder.wait().code, 0);
    let history = store.json(&["history", WEB]);
    let ends: Vec<_> = (0..3).map(|at| &history[at]["outcome"]).collect();
    assert_eq!(ends, ["cancelled", "timed-out", "timed-out"]);
    is_left_alone(store);
}

fn who_does_not_want_to_wait_is_not_held_up_by_those_whom_it_passes(store: &Store) {
    let limit = |limit: &str| assert_eq!(store.run(&["limit", GPU, limit]).code, 0);
    limit("3");
    let (holder, go) = holds_gpu(store, &[], "up");
    let heavy = exec(store, &["shared/gpu:3"], &[], "true");
    let waiting = |count| {
        servers::eventually("those who wait", || store.counts_of(GPU) == (1, count));
    };
    waiting(1);
    let now = |args: &[&str]| exec(store, &[GPU], &[&["--no-wait"], args].concat(), "true").wait();
    assert_eq!(now(&[]).code, 75, "the heavy one is the next");
    let urgent = now(&["--priority", "1"]);
    assert_eq!(urgent.code, 0, "it goes before it: {urgent:?}");
    limit("2");
    let passing = now(&[]);
    assert_eq!(passing.code, 0, "the heavy one is passed over: {passing:?}");
    limit("3");
    std::fs::write(&go, "").unwrap();
    for one in [holder, heavy] {
        assert_eq!(one.wait().code, 0);
    }
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_an_outage_costs_who_holds_one_of_two_slots_no_more_than_his_place() {
    let mut server = servers::own::OwnServer::start("PAC_TEST_POSTGRES", "", "");
    let store = Store::at_postgres(&server.port.to_string()).prepared();
    limited(&store);
    let (holder, go) = holds_gpu(&store, &["--ttl", "60s"], "up");
    let mut both = exec(&store, &[WEB, GPU], &["--ttl", "2s"], "echo ran");
    let mut stderr = BufReader::new(both.child().stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("holding ci/web"), "{line}");
    server.kill_9();
    while !line.contains("what was held is lost, queueing again") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it goes on");
    }
    server.start_again();
    servers::eventually("both again", || {
        store.counts() == (1, 0) && store.counts_of(GPU) == (1, 1)
    });
    std::fs::write(&go, "").unwrap();
    assert_eq!(holder.wait().code, 0);
    let both = both.wait();
    assert_eq!((both.code, both.stdout.as_str()), (0, "ran\n"), "{both:?}");
    is_left_alone(&store);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_who_has_lost_a_slot_and_asks_again_supersedes_nobody_who_came_since() {
    let mut server = servers::own::OwnServer::start("PAC_TEST_POSTGRES", "", "");
    let store = Store::at_postgres(&server.port.to_string()).prepared();
    limited(&store);
    let (holder, go) = holds_gpu(&store, &["--ttl", "60s"], "up");
    let wait = format!("until [ -e {} ]; do sleep 0.1; done", go.display());
    let group = ["--group", "pr-7", "--supersede", "all"];
    let older = [&["--ttl", "2s", "--run", "ci/older"], &group[..]].concat();
    let mut older = exec(&store, &[WEB, GPU], &older, "echo ran");
    let mut stderr = BufReader::new(older.child().stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("holding ci/web"), "{line}");
    let newer = ["--ttl", "60s", "--run", "ci/newer", "--group", "pr-7"];
    let newer = exec(&store, &[WEB], &newer, &wait);
    servers::eventually("the newer", || store.counts() == (1, 1));

    server.kill_9();
    while !line.contains("what was held is lost, queueing again") {
        line.clear();
        assert!(stderr.read_line(&mut line).unwrap() > 0, "it goes on");
    }
    server.start_again();
    servers::eventually("the older again", || {
        let status = store.json(&["status", WEB]);
        status[0]["running"][0]["run"] == "ci/newer" && status[0]["queued"][0]["run"] == "ci/older"
    });
    let status = store.json(&["status", WEB]);
    assert!(status[0]["running"][0]["asked_at"].is_null(), "{status}");
    std::fs::write(&go, "").unwrap();
    for one in [holder, newer, older] {
        let one = one.wait();
        assert_eq!(one.code, 0, "{one:?}");
    }
    is_left_alone(&store);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_a_deaf_command_has_ended_before_the_next_one_starts() {
    let link = Link::to(&format!("127.0.0.1:{}", variable("PAC_TEST_POSTGRES")));
    let (port, through) = (variable("PAC_TEST_POSTGRES"), link.port.to_string());
    deaf(Store::postgres(), &link, "postgresql-port", &port, &through);
}

#[cfg(feature = "etcd")]
#[test]
fn etcd_a_deaf_command_has_ended_before_the_next_one_starts() {
    let endpoint = variable("PAC_TEST_ETCD");
    let link = Link::to(&endpoint);
    let through = format!("127.0.0.1:{}", link.port);
    deaf(Store::etcd(), &link, "etcd-endpoints", &endpoint, &through);
}

/// The holder's link to the store falls silent, and its command ignores SIGTERM.
fn deaf(mut store: Store, link: &Link, key: &str, direct: &str, through: &str) {
    limited(&store);
    let (alive, next) = (store.file("alive"), store.file("next"));
    let script = format!(
        "trap '' TERM; while :; do date +%s%N >> {}; sleep 0.02; done",
        alive.display()
    );
    store.set(key, through);
    let holder = exec(&store, &[WEB], &["--ttl", "3s"], &script);
    servers::eventually("the holder", || !read(&alive).is_empty());
    store.set(key, direct);
    let script = format!("date +%s%N > {}", next.display());
    let waiter = exec(&store, &[WEB], &["--ttl", "3s"], &script);
    store.wait_for_counts(1, 1);

    link.silence();

    let waiter = waiter.wait();
    assert_eq!(waiter.code, 0, "{waiter:?}");
    let holder = holder.wait();
    assert_eq!(holder.code, 71, "{holder:?}");
    for said in ["before anybody else may start", "did not end within 600ms"] {
        assert!(holder.stderr.contains(said), "{said}: {holder:?}");
    }
    let at = |text: &str| text.trim().parse::<u128>().unwrap();
    let (last, next) = (read(&alive), read(&next));
    let last = last.lines().last().map(at).unwrap();
    assert!(
        last < at(&next),
        "it ran until {last}, and the next one from {next}"
    );
}

/// A way to a server that can fall silent: nothing is refused, and nothing arrives any more.
struct Link {
    port: u16,
    is_silent: Arc<AtomicBool>,
}

impl Link {
    fn to(server: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_silent = Arc::new(AtomicBool::new(false));
        let (server, silent) = (server.to_owned(), Arc::clone(&is_silent));
        spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&server) else {
                    continue;
                };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let silent = Arc::clone(&silent);
                    spawn(move || pass(from, to, &silent));
                }
            }
        });
        Self { port, is_silent }
    }

    fn silence(&self) {
        self.is_silent.store(true, Ordering::SeqCst);
    }
}

/// Passes on what comes, and forgets it from the moment of silence on.
fn pass(mut from: TcpStream, mut to: TcpStream, is_silent: &AtomicBool) -> io::Result<()> {
    let mut buffer = [0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer)?;
        let silent = is_silent.load(Ordering::SeqCst);
        match length {
            0 if silent => {}
            0 => return to.shutdown(std::net::Shutdown::Write),
            _ if silent => continue,
            _ => to.write_all(&buffer[..length])?,
        }
        if length == 0 {
            return Ok(());
        }
    }
}
