//! The recorded steps of a restart with two Repositories, and of giving runs back, come out the
//! same with the stand-ins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common::replay;

use std::time::Duration;

use pac_kubernetes_mock::{ApiServer, Handle, PacController, PacWatcher, Template};
use replay::{
    ORDER, OUR_ORDER, delete_runs, expect, install, prepare, runs_and_queue, set_condition,
    set_spec_status, uninstall,
};
use serde_json::json;

const RECORDED: &str = include_str!("data/detach.txt");

#[tokio::test]
async fn runs_are_given_back_to_the_watcher() {
    let server = ApiServer::start().await;
    let limits = [("website", Some(1)), ("gated", None), ("second", Some(1))];
    let objects = prepare(&server, &limits);
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
                runs_and_queue(&objects, &watcher, true)
            })
            .await;
        };
    }

    event("website", ["w1", "w2"]);
    // The rebuild sorts by creation time, which is in whole seconds.
    tokio::time::sleep(Duration::from_millis(1001)).await;
    event("second", ["s1", "s2"]);
    step!("U0");
    drop(watcher);
    watcher = PacWatcher::start(&server);
    step!("U1");

    delete_runs(&objects, &["s1", "s2", "w1", "w2"]).await;
    drop(watcher);
    watcher = PacWatcher::start(&server);
    take_over(&objects);
    event("website", ["c", "d"]);
    start_c(&objects);
    step!("U2");
    give_back(&objects);
    step!("U3");

    delete_runs(&objects, &["c", "d"]).await;
    take_over(&objects);
    event("website", ["c", "d"]);
    start_c(&objects);
    watcher.settled().await;
    drop(watcher);
    give_back(&objects);
    watcher = PacWatcher::start(&server);
    step!("U4");
    set_condition(&objects, "c", "True", "Succeeded");
    step!("U5");
}

fn take_over(objects: &Handle) {
    install(objects, "takeover");
}

fn start_c(objects: &Handle) {
    set_spec_status(objects, "c", "");
    set_condition(objects, "c", "Unknown", "Running");
}

fn give_back(objects: &Handle) {
    uninstall(objects, "takeover");
    for name in ["c", "d"] {
        let annotations = json!({ORDER: "ci/c,ci/d", OUR_ORDER: null});
        let patch = json!({"metadata": {"annotations": annotations}});
        objects.merge("pipelineruns", "ci", name, patch).unwrap();
    }
}
