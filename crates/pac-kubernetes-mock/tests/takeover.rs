//! The recorded steps of the watcher beside both policies come out the same with the stand-ins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common::replay;

use pac_kubernetes_mock::{ApiServer, PacController, PacWatcher, Template};
use replay::{
    delete_runs, expect, install, prepare, runs_and_queue, set_condition, set_spec_status,
};
use serde_json::json;

const RECORDED: &str = include_str!("data/takeover.txt");

#[tokio::test]
async fn the_watcher_leaves_alone_what_was_taken_over_or_gated() {
    let server = ApiServer::start().await;
    let objects = prepare(&server, &[("website", Some(1)), ("gated", None)]);
    let controller = PacController::new(&server);
    let mut watcher = PacWatcher::start(&server);
    let event = |repository: &str, names: [&str; 2]| {
        controller
            .event("ci", repository, &names.map(Template::exact))
            .unwrap();
    };
    macro_rules! step {
        ($step:literal) => {
            expect(RECORDED, $step, Some(&watcher), || {
                runs_and_queue(&objects, &watcher, $step != "S0b")
            })
            .await;
        };
    }

    event("website", ["a", "b"]);
    step!("S0");
    delete_runs(&objects, &["a", "b"]).await;
    step!("S0b");
    install(&objects, "takeover");
    event("website", ["c", "d"]);
    step!("S1");
    set_spec_status(&objects, "c", "");
    set_condition(&objects, "c", "Unknown", "Running");
    step!("S2");
    let raised = json!({"spec": {"concurrency_limit": 5}});
    objects
        .merge("repositories", "ci", "website", raised)
        .unwrap();
    step!("S3");
    drop(watcher);
    watcher = PacWatcher::start(&server);
    step!("S4");
    set_condition(&objects, "c", "True", "Succeeded");
    step!("S5");
    set_spec_status(&objects, "d", "CancelledRunFinally");
    step!("S6");
    set_condition(&objects, "d", "False", "Cancelled");
    step!("S6b");
    install(&objects, "gate");
    event("gated", ["e", "f"]);
    step!("S7");
    set_spec_status(&objects, "e", "");
    set_condition(&objects, "e", "Unknown", "Running");
    step!("S8");
    let removed = json!({"spec": {"concurrency_limit": null}});
    objects
        .merge("repositories", "ci", "website", removed)
        .unwrap();
    step!("S9");
    delete_runs(&objects, &["e"]).await;
    step!("S10");
}
