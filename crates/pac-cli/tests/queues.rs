//! The transcripts in docs/queues.md are what happens.

#![cfg(all(unix, feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod ends;
mod operators;
mod requests;

use crate::documents;
use crate::servers;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::process::{ChildStdout, Command, Stdio};

use servers::own::OwnServer;
use servers::{Running, Store, eventually, signal};

const DOCUMENT: &str = "docs/queues.md";

/// A shell in which `pac` finds the store, and what was typed and answered in it.
struct Shell {
    store: Store,
    said: String,
}

impl Shell {
    fn new(store: Store) -> Self {
        let settings = store.settings().iter();
        let settings: Vec<_> = settings
            .map(|(key, value)| format!("--set '{key}={value}'"))
            .collect();
        let pac = env!("CARGO_BIN_EXE_pac");
        let script = format!("#!/bin/sh\nexec '{pac}' {} \"$@\"\n", settings.join(" "));
        let shell = Self {
            store,
            said: String::new(),
        };
        shell.has_a_program("pac", &script);
        shell
    }

    /// Makes a program in the directory in which all is typed.
    fn has_a_program(&self, name: &str, script: &str) {
        let program = self.store.file(name);
        fs::write(&program, script).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What is typed, with both outputs in one, as at a terminal.
    fn command(&self, line: &str) -> Command {
        let directory = self.store.file("pac").parent().unwrap().to_owned();
        let path = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap());
        let mut sh = Command::new("setsid");
        sh.args(["--wait", "sh", "-c", &format!("exec 2>&1; {line}")])
            .env("PATH", path)
            .env("HOSTNAME", servers::HOST)
            .current_dir(&directory)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        sh
    }

    fn say(&mut self, line: &str) {
        self.said.push_str(line);
        self.said.push('\n');
    }

    /// Types a line, and waits for its end. Returns the exit code.
    fn types(&mut self, line: &str) -> i32 {
        self.say(&format!("$ {line}"));
        let ended = Running::start(self.command(line)).wait();
        self.said.push_str(&ended.stdout);
        ended.code
    }

    /// Types a line that goes on in the background.
    fn starts(&mut self, line: &str) -> Running {
        self.say(&format!("$ {line} &"));
        Running::start(self.command(line))
    }

    /// Types a line that goes on in the background, and is heard of later.
    fn starts_and_listens(&mut self, line: &str) -> Background {
        let mut running = self.starts(line);
        let said = BufReader::new(running.child().stdout.take().unwrap());
        Background { running, said }
    }

    /// The next line that something in the background says.
    fn hears(&mut self, background: &mut Background) {
        let mut line = String::new();
        background.said.read_line(&mut line).unwrap();
        // Only a slow machine has it wait before it says so.
        match line.find(") after ") {
            Some(at) if line.starts_with("pac: ") => self.say(&line[..=at]),
            _ => self.say(line.trim_end()),
        }
    }

    /// What is left to hear of it until it ends. Returns the exit code.
    fn hears_the_end_of(&mut self, mut background: Background) -> i32 {
        background.said.read_to_string(&mut self.said).unwrap();
        background.running.wait().code
    }

    /// Types a line and asks for its exit code.
    fn types_and_asks(&mut self, line: &str) {
        let code = self.types(line);
        self.say("$ echo $?");
        self.say(&code.to_string());
    }

    /// A run that holds what it has until it is let go, in the background.
    fn holds(&mut self, exec: &str) -> Running {
        let (up, go) = (self.store.file("up"), self.store.file("go"));
        let script = format!(
            "#!/bin/sh\necho up > '{}'\nuntil [ -e '{}' ]; do sleep 0.1; done\n",
            up.display(),
            go.display()
        );
        self.has_a_program("smoke-test", &script);
        let running = self.starts(&format!("pac exec {exec} -- ./smoke-test"));
        servers::wait_for_text(&up, "up");
        running
    }

    fn lets_go(&self) {
        fs::write(self.store.file("go"), "").unwrap();
    }

    /// Waits until so many run and wait there.
    fn wait_for_counts(&self, repository: &str, running: usize, queued: usize) {
        eventually("the runs", || {
            self.store.counts_of(repository) == (running, queued)
        });
    }

    /// Waits until one run runs there.
    fn wait_for_run(&self, repository: &str) {
        eventually("the run", || self.store.counts_of(repository) == (1, 0));
    }

    /// The document says the same in the part of this name.
    fn as_documented(&self, part: &str) {
        let test = format!("queues.rs, {part}");
        // How long somebody has waited is only said on a slow machine.
        let lines = self.said.lines().map(|line| match line.find(") after ") {
            Some(at) if line.starts_with("pac: ") => &line[..=at],
            _ => line,
        });
        let said: String = lines.flat_map(|line| [line, "\n"]).collect();
        documents::holds(DOCUMENT, &test, documents::shape, &said);
    }
}

/// What goes on in the background of a shell.
struct Background {
    running: Running,
    said: BufReader<ChildStdout>,
}

#[test]
fn postgres_the_transcript_of_several_repositories_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    shell.types("pac limit shared/staging 1");
    let go = shell.store.file("go");
    let wait = format!(
        "#!/bin/sh\nuntil [ -e '{}' ]; do sleep 0.1; done\n",
        go.display()
    );
    shell.has_a_program("smoke-test", &wait);
    let holder = shell.starts("pac exec -r shared/staging --run shared/test -- ./smoke-test");
    shell.wait_for_run("shared/staging");
    let line = "pac exec -r shared/staging -r ci/website --run ci/deploy -- sh -c 'echo $PAC_HELD'";
    let mut both = shell.starts(line);
    let mut said = BufReader::new(both.child().stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    shell.say(line.trim_end());
    fs::write(go, "").unwrap();
    shell.say("$ wait");
    said.read_to_string(&mut shell.said).unwrap();
    for one in [holder, both] {
        assert_eq!(one.wait().code, 0);
    }
    shell.as_documented("several");
}

#[test]
fn postgres_the_transcript_of_a_command_in_itself_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    let nested = |inner: &str| {
        format!("pac exec -r ci/website --run ci/release -- pac exec -r ci/website {inner}")
    };
    assert_eq!(shell.types(&nested("-- ./deploy")), 2);
    assert_eq!(
        shell.types(&nested("--reentrant -- echo in the same slot")),
        0
    );
    shell.as_documented("nested");
}

#[test]
fn postgres_the_transcript_of_a_command_that_does_not_end_is_what_happens() {
    let mut server = OwnServer::start("PAC_TEST_POSTGRES", "", "");
    let store = Store::at_postgres(&server.port.to_string()).prepared();
    let mut shell = Shell::new(store);
    shell.types("pac limit ci/website 1");
    let line = "pac exec -r ci/website --ttl 6s -- sh -c \"trap '' TERM; exec sleep 60\"";
    let deaf = shell.starts(line);
    shell.wait_for_run("ci/website");
    server.kill_9();
    let ended = deaf.wait();
    assert_eq!(ended.code, 71, "{ended:?}");
    shell.say("… the store goes away …");
    // What cannot be given back to a server that is away is told in its own words, too.
    let told = |line: &&str| !line.contains("what this process still has at the store");
    for line in ended.stdout.lines().filter(told) {
        // What the system says of a connection that is cut differs from time to time.
        let cause = line
            .find("trying again: ")
            .map(|at| at + "trying again: ".len());
        match cause {
            Some(at) => shell.say(&format!("{}…", &line[..at])),
            None => shell.say(line),
        }
    }
    shell.as_documented("grace");
}

#[test]
fn postgres_the_transcript_of_who_holds_it_is_what_happens() {
    let mut shell = Shell::new(Store::postgres());
    shell.types("pac limit ci/website 1");
    let wait = "#!/bin/sh\nexec sleep 30\n";
    shell.has_a_program("deploy", wait);
    let _killed = shell.starts("pac exec -r ci/website --run ci/deploy --ttl 3s -- ./deploy");
    shell.wait_for_run("ci/website");
    let running = || shell.store.json(&["status", "ci/website"])[0]["running"][0].clone();
    let pid = running()["process"]["pid"].as_u64().unwrap();
    signal("KILL", u32::try_from(pid).unwrap());
    eventually("the death", || running()["dead"] == true);
    shell.say(&format!("$ kill -9 {pid}"));
    shell.say("$ sleep 5; pac status");
    let status = shell.store.run(&["status"]);
    shell.said.push_str(&status.stdout);
    let named = "PAC_CONCURRENCY_IDENTITY=night-batch pac exec -r ci/website --run ci/nightly -- \
                 pac status";
    assert_eq!(shell.types(named), 0);
    shell.as_documented("holders");
}
