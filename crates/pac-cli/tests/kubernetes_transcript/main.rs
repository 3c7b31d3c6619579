//! The transcript in `docs/kubernetes.md` is the real output: `pac` in its own processes, from the
//! installation to the end of the off-boarding, beside stand-ins for Pipelines-as-Code and Tekton.

#![cfg(all(unix, feature = "kubernetes", feature = "postgres"))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod cluster;
#[path = "../common/mod.rs"]
mod common;
#[path = "../documents/mod.rs"]
mod documents;
mod place;
mod replicas;
mod said;
#[path = "../servers/mod.rs"]
mod servers;

use cluster::Cluster;
use replicas::Replicas;
use said::Said;
use servers::{Store, eventually};

const LIMIT: usize = 2;

/// What happens, as the person in front of the cluster sees it.
fn transcript(cluster: &mut Cluster) -> String {
    let mut said = Said::default();
    let replicas = Replicas::of(cluster);
    said.command(&cluster.pac("install --apply"), 0);
    cluster.fill_settings_in();
    said.note("the address of the store goes into the ConfigMap, its password into the Secret");
    eventually("both replicas are ready", || cluster.ready_replicas() == 2);
    said.command(&cluster.pac("check"), 0);

    said.note(&format!(
        "a push makes ten PipelineRuns in ci/website, whose concurrency_limit is {LIMIT}"
    ));
    let runs = cluster.push(&["build"], 10);
    cluster.comes_to(&runs[..2], &runs[2..]);
    said.command(&cluster.status(), 0);
    for run in &runs[..2] {
        cluster.finish(run);
    }
    said.note(&format!("{} and {} have ended", runs[0], runs[1]));
    cluster.comes_to(&runs[2..4], &runs[4..]);
    let session = cluster.session_of(&runs[2]);
    let killed = replicas.kill_the_one_that_started(&runs[2]);
    said.note(&format!(
        "kill -KILL: the replica that has started {}; its Deployment makes another",
        runs[2]
    ));
    eventually("another one has its place", || {
        replicas.names().len() == 2 && !replicas.names().contains(&killed)
    });
    cluster.until_others_look_after_all(&session);
    said.leave_tokens_out();
    said.command(&cluster.status(), 0);
    for at in 2..10 {
        let next: Vec<_> = runs[at..].iter().take(LIMIT).cloned().collect();
        let waiting = &runs[(at + LIMIT).min(10)..];
        cluster.comes_to(&next, waiting);
        cluster.finish(&runs[at]);
    }
    cluster.comes_to(&[], &[]);
    said.note("all ten have ended, one after the other");
    said.command(&cluster.history_of_the_store(), 0);

    said.note("three more, and then back to the queue of Pipelines-as-Code");
    let last = cluster.push(&["test"], 3);
    cluster.comes_to(&last[..2], &last[2..]);
    cluster.until_all_starts_are_known(&last[..2]);
    said.command(&cluster.pac("offboard --apply"), 1);
    said.shell(&cluster.scale_watcher(0));
    said.command(&cluster.pac("offboard --apply"), 0);
    said.shell(&cluster.scale_watcher(1));
    cluster.finish(&last[0]);
    cluster.until_runs(&last[2]);
    said.note(&format!(
        "{} has ended, and Pipelines-as-Code has started {}",
        last[0], last[2]
    ));
    for run in &last[1..] {
        cluster.finish(run);
    }
    said.command(&cluster.pac("uninstall --apply"), 0);

    let started = cluster.started_in_order(LIMIT);
    assert_eq!(started, [runs, last].concat(), "in the order of the pushes");
    said.end()
}

/// Named by the store, so that it is left out, aloud, where there is none.
#[test]
fn postgres_the_transcript_of_an_installation_is_what_happens() {
    let store = Store::postgres();
    let mut cluster = Cluster::start(&store);
    let happened = transcript(&mut cluster);
    documents::holds(
        "docs/kubernetes.md",
        "kubernetes_transcript/main.rs",
        str::to_owned,
        &happened,
    );
}
