//! The README's transcript of `pac exec` is the real output.

#![cfg(all(unix, feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::documents;
use crate::servers;

use std::fmt::Write as _;
use std::io::{BufRead, BufReader};

use servers::{Running, Store};

const README: &str = "README.md";

/// Two pipelines deploy one website, one after the other.
fn transcript(store: &Store) -> String {
    let mut text = String::new();
    let repository = "ci/website";
    let mut say = |line: &str| writeln!(text, "{line}").unwrap();

    say("$ pac limit ci/website 1");
    say(store.run(&["limit", repository, "1"]).stdout.trim_end());

    say("$ pac exec --repository ci/website --run ci/deploy-1 -- ./deploy &");
    let exec = |run, script| {
        let args = [
            "exec",
            "--repository",
            repository,
            "--run",
            run,
            "--",
            "sh",
            "-c",
            script,
        ];
        Running::start(store.pac_itself(&args))
    };
    let first = exec("ci/deploy-1", "sleep 4");
    servers::eventually("the first", || {
        store.json(&["status"])[0]["running"][0]["run"] == "ci/deploy-1"
    });

    say(
        "$ pac exec --repository ci/website --run ci/deploy-2 -- sh -c 'echo token $PAC_FENCING_TOKEN' &",
    );
    let mut second = exec("ci/deploy-2", "echo token $PAC_FENCING_TOKEN");
    let mut stderr = BufReader::new(second.child().stderr.take().unwrap());
    let mut line = String::new();
    stderr.read_line(&mut line).unwrap();
    say(line.trim_end());

    say("$ pac status");
    say(store.run(&["status"]).stdout.trim_end());
    say("$ wait");
    assert_eq!(first.wait().code, 0);
    say(second.wait().stdout.trim_end());
    say("$ pac history");
    say(store.run(&["history"]).stdout.trim_end());
    text
}

#[test]
fn postgres_the_transcript_in_the_readme_is_what_happens() {
    let happened = transcript(&Store::postgres());
    documents::holds(README, "transcript.rs", documents::shape, &happened);
}
