//! `pac exec` and what its command starts: the environment that it has, and the processes that get
//! away from it.

#![cfg(all(target_os = "linux", any(feature = "etcd", feature = "postgres")))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::servers;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pac_concurrency::settings::Key;
use servers::{Running, Store, WEB, eventually, is_alive, on_every_store, read, signal};

on_every_store! {
    a_ttl_that_holds_a_slot_for_a_century_is_refused,
    contained_a_killed_pac_takes_along_what_left_its_group,
    contained_a_lost_lease_ends_what_left_its_group,
    contained_what_the_command_leaves_behind_ends_before_the_slot_is_free,
    contained_streams_signals_and_exit_codes_are_the_commands_own,
    a_command_of_another_user_is_told_and_not_waited_for,
    a_command_of_another_user_that_is_asked_to_end_keeps_its_slot_until_it_has,
}

/// A script for `sh` that starts a process in a session of its own, which does not hear SIGTERM,
/// writes its number to a file, and goes on with `then`.
fn with_a_daemon(store: &Store, then: &str) -> String {
    let pid = store.file("daemon");
    format!(
        "(setsid sh -c 'trap \"\" TERM; echo $$ > {pid}; exec sleep 300' >/dev/null 2>&1 &); \
         until [ -s {pid} ]; do sleep 0.02; done; {then}",
        pid = pid.display()
    )
}

fn daemon(store: &Store) -> u32 {
    let pid = store.file("daemon");
    eventually("the daemon", || read(&pid).ends_with('\n'));
    read(&pid).trim().parse().unwrap()
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_the_command_finds_no_password_in_its_environment() {
    let store = Store::postgres();
    let secrets: Vec<String> = Key::all()
        .iter()
        .filter(|key| key.is_secret())
        .flat_map(|key| key.variables())
        .collect();
    let run = |arguments: &[&str]| {
        let exec = ["exec", "--repository", WEB, "--limit", "1"];
        let mut pac = store.pac_itself(&[&exec, arguments, &["--", "env"]].concat());
        for name in &secrets {
            // A URL without a password: two of them contradict each other.
            let is_url = name.ends_with("URL");
            pac.env(
                name,
                if is_url {
                    "postgres://hunter2.invalid"
                } else {
                    "hunter2"
                },
            );
        }
        pac.env("OF_OTHERS", "stays");
        let finished = Running::start(pac).wait();
        assert_eq!(finished.code, 0, "{finished:?}");
        finished.stdout
    };
    let without = run(&[]);
    assert!(!without.contains("hunter2"), "{without}");
    assert!(without.contains("PAC_FENCING_TOKEN="), "{without}");
    let with = run(&["--keep-credentials"]);
    for name in &secrets {
        assert!(
            with.contains(&format!("\n{name}=")) || with.starts_with(name.as_str()),
            "{name}: {with}"
        );
        assert!(!without.contains(&format!("{name}=")), "{name}: {without}");
    }
}

fn a_ttl_that_holds_a_slot_for_a_century_is_refused(store: &Store) {
    for (ttl, code) in [("876000h", 2), ("24h1ms", 2), ("99ms", 2), ("24h", 0)] {
        let finished = store.exec(&["--limit", "1", "--ttl", ttl], "true").wait();
        assert_eq!(finished.code, code, "{ttl}: {finished:?}");
        assert_eq!(
            finished.stderr.contains("from 100ms to 24h"),
            code == 2,
            "{finished:?}"
        );
    }
    let endless = format!("{}s", i64::MAX);
    let finished = store
        .exec(&["--limit", "1", "--wait-timeout", &endless], "true")
        .wait();
    assert_eq!(finished.code, 2, "{finished:?}");
    assert!(finished.stderr.contains("8784h"), "{finished:?}");
}

fn contained_a_killed_pac_takes_along_what_left_its_group(store: &Store) {
    let script = with_a_daemon(store, "sleep 300");
    let mut killed = store.exec(&["--limit", "1", "--ttl", "3s", "--contain"], &script);
    let daemon = daemon(store);
    killed.signal("KILL");
    eventually("the end of the daemon", || !is_alive(daemon));
}

fn contained_a_lost_lease_ends_what_left_its_group(store: &Store) {
    let arguments = [
        "--limit",
        "1",
        "--ttl",
        "3s",
        "--run",
        "ci/lost",
        "--contain",
    ];
    let script = with_a_daemon(store, "sleep 300");
    let lost = store.exec(&arguments, &script);
    let daemon = daemon(store);
    assert_eq!(store.run(&["cancel", WEB, "ci/lost"]).code, 0);
    let lost = lost.wait();
    assert_eq!(lost.code, 71, "{lost:?}");
    assert!(!lost.stderr.contains("goes on"), "{lost:?}");
    assert!(!is_alive(daemon), "{lost:?}");
}

fn contained_what_the_command_leaves_behind_ends_before_the_slot_is_free(store: &Store) {
    let script = with_a_daemon(store, "exit 5");
    let finished = store.exec(&["--limit", "1", "--contain"], &script).wait();
    assert_eq!(finished.code, 5, "{finished:?}");
    assert!(!is_alive(daemon(store)), "{finished:?}");
}

fn contained_streams_signals_and_exit_codes_are_the_commands_own(store: &Store) {
    let finished = store.exec(
        &["--limit", "1", "--contain"],
        "echo out; echo err >&2; exit 9",
    );
    let finished = finished.wait();
    assert_eq!((finished.code, finished.stdout.as_str()), (9, "out\n"));
    assert_eq!(finished.stderr, "err\n");
    let missing = [
        "exec",
        "--repository",
        WEB,
        "--limit",
        "1",
        "--contain",
        "--",
        "/none/such",
    ];
    assert_eq!(store.run(&missing).code, 127);

    let said = store.file("said");
    let script = format!(
        "trap 'echo heard >> {said}; exit 3' USR1; echo ready > {said}; while :; do sleep 0.05; done",
        said = said.display()
    );
    let mut told = store.exec(&["--limit", "1", "--contain"], &script);
    eventually("the trap", || read(&said).contains("ready"));
    told.signal("USR1");
    assert_eq!(told.wait().code, 3);
    assert_eq!(read(&said), "ready\nheard\n");
}

/// What `sudo` is to an ordinary user: a file that changes to root whoever starts it. And a `pac` that
/// an ordinary user can start. `None`, and a word about it, where this user may not make such a file.
fn as_root(store: &Store, test: &str) -> Option<PathBuf> {
    let user = Command::new("id").arg("-u").output().unwrap();
    if user.stdout != b"0\n" {
        let said = format!("SKIPPED {test}: only root can start processes of two users\n");
        std::io::stderr().write_all(said.as_bytes()).unwrap();
        return None;
    }
    let (as_root, pac) = (store.file("as-root"), store.file("pac"));
    let everyone = |path: &Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    std::fs::copy("/usr/bin/setpriv", &as_root).unwrap();
    std::fs::copy(env!("CARGO_BIN_EXE_pac"), &pac).unwrap();
    everyone(&as_root, 0o4755);
    everyone(&pac, 0o755);
    everyone(as_root.parent().unwrap(), 0o777);
    Some(as_root)
}

/// `pac exec` of an ordinary user, by the file that [`as_root`] has copied.
fn exec_of_nobody(store: &Store, arguments: &[&str], script: &str) -> Running {
    let exec = ["exec", "--repository", WEB, "--limit", "1"];
    let command = store.pac_itself(&[&exec, arguments, &["--", "sh", "-c", script]].concat());
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    nobody
        .arg(store.file("pac"))
        .args(command.get_args())
        .stdin(Stdio::null());
    nobody.stdout(Stdio::piped()).stderr(Stdio::piped());
    Running::start(nobody)
}

fn a_command_of_another_user_is_told_and_not_waited_for(store: &Store) {
    let Some(as_root) = as_root(store, "a_command_of_another_user") else {
        return;
    };
    for contain in [&[][..], &["--contain"]] {
        let pid = store.file("pid");
        let _ = std::fs::remove_file(&pid);
        let script = format!(
            "exec {} --reuid=0 sh -c 'echo $$ > {}; exec sleep 300 >/dev/null 2>&1'",
            as_root.display(),
            pid.display()
        );
        let lost = exec_of_nobody(store, &[&["--run", "ci/sudo"], contain].concat(), &script);
        eventually("the command", || read(&pid).ends_with('\n'));
        let command: u32 = read(&pid).trim().parse().unwrap();
        assert_eq!(store.run(&["cancel", WEB, "ci/sudo"]).code, 0);
        let finished = lost.wait();
        assert!(is_alive(command), "it was to be out of reach: {finished:?}");
        signal("KILL", command);
        assert_eq!(finished.code, 71, "{finished:?}");
        assert!(
            finished.stderr.contains(&format!("process {command}")),
            "{finished:?}"
        );
        assert!(
            finished.stderr.contains("goes on without the slot"),
            "{finished:?}"
        );
    }
}

fn a_command_of_another_user_that_is_asked_to_end_keeps_its_slot_until_it_has(store: &Store) {
    let Some(as_root) = as_root(store, "a_command_of_another_user_that_is_asked") else {
        return;
    };
    let pid = store.file("pid");
    let script = format!(
        "exec {} --reuid=0 sh -c 'echo $$ > {}; exec sleep 300 >/dev/null 2>&1'",
        as_root.display(),
        pid.display()
    );
    let mut asked = exec_of_nobody(store, &["--run", "ci/sudo", "--ttl", "3s"], &script);
    eventually("the command", || read(&pid).ends_with('\n'));
    let command: u32 = read(&pid).trim().parse().unwrap();
    assert_eq!(store.run(&["cancel", WEB, "ci/sudo", "--ask"]).code, 0);
    // Longer than the grace, and than what it takes to see that it cannot be killed.
    std::thread::sleep(std::time::Duration::from_secs(5));
    assert!(is_alive(command) && !asked.has_ended(), "{asked:?}");
    assert_eq!(store.counts(), (1, 0), "it keeps its slot");
    signal("KILL", command);
    let asked = asked.wait();
    assert_eq!(asked.code, 143, "{asked:?}");
    for said in ["the slot is kept", "ended as cancelled"] {
        assert!(asked.stderr.contains(said), "{asked:?}");
    }
    let number = format!("process {command}");
    assert!(asked.stderr.contains(&number), "{asked:?}");
    assert_eq!(store.counts(), (0, 0));
}

/// Both `pac` and the process between it and the command look for what is left.
#[cfg(feature = "postgres")]
#[test]
fn postgres_contained_what_cannot_be_ended_is_told_once() {
    let store = Store::postgres();
    let Some(as_root) = as_root(&store, "contained_what_cannot_be_ended") else {
        return;
    };
    let pid = store.file("pid");
    let script = format!(
        "({as_root} --reuid=0 sh -c 'trap \"\" TERM; echo $$ > {pid}; exec sleep 300' \
         >/dev/null 2>&1 &); until [ -s {pid} ]; do sleep 0.02; done; exit 5",
        as_root = as_root.display(),
        pid = pid.display()
    );
    let finished = exec_of_nobody(&store, &["--contain"], &script).wait();
    let left: u32 = read(&pid).trim().parse().unwrap();
    assert!(is_alive(left), "it was to be out of reach: {finished:?}");
    signal("KILL", left);
    assert_eq!(finished.code, 71, "{finished:?}");
    let told = finished.stderr.matches("goes on without the slot").count();
    assert_eq!(told, 1, "{finished:?}");
    let number = format!("process {left}\n");
    assert!(finished.stderr.ends_with(&number), "{finished:?}");
}
