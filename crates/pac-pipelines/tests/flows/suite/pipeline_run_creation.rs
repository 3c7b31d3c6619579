//! "PipelineRun Creation".

use std::time::Duration;

use pac_conformance::Fixture;
use pac_pipelines::Creation;
use pac_pipelines::model::SpecStatus;
use pac_pipelines::testing::{NewRun, TektonMode};
use tokio::time::sleep;

use super::support::{Setting, run, website};

/// No limit: started, and counted should a limit come.
pub(crate) async fn without_a_limit_every_run_starts_and_is_counted(fixture: &Fixture) {
    let setting = Setting::new(fixture, 0);
    let controller = setting.controller().await;
    let mut created = Vec::new();
    for name in ["a", "b", "c"] {
        let new = NewRun::of(run(name), &website());
        created.push(setting.cluster.create(new).unwrap());
    }
    let answers = controller.controller.create(created).await.unwrap();
    assert_eq!(
        answers,
        [Creation::Started, Creation::Started, Creation::Started]
    );
    setting.comes_to(&["a", "b", "c"], &[]).await;
    setting.audit();
}

/// A limit: one atomic step that starts or queues; what is queued stays held back.
pub(crate) async fn a_run_starts_or_queues_in_one_step(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.controller().await;
    let create = |name| {
        setting
            .cluster
            .create(NewRun::held(run(name), &website()))
            .unwrap()
    };
    let created = vec![create("a"), create("b"), create("c")];
    let answers = controller.controller.create(created.clone()).await.unwrap();
    let queued = |position| Creation::Queued {
        position: Some(position),
    };
    assert_eq!(answers, [Creation::Started, queued(1), queued(2)]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    assert_eq!(setting.view("b").spec_status, SpecStatus::Pending);
    let token = fixture.view(&website()).await.token("a");
    assert_eq!(setting.view("a").token(), Some(token));
    // Again, as after an answer that was lost: the same.
    let again = controller.controller.create(created).await.unwrap();
    assert_eq!(again, [Creation::Started, queued(1), queued(2)]);
    setting.comes_to(&["a"], &["b", "c"]).await;
    setting.audit();
}

/// Their order is written last, by one change on each of them.
pub(crate) async fn the_runs_of_one_event_are_admitted_in_their_order(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    let order = ["pr2", "pr10", "pr1"];
    for name in ["pr10", "pr1", "pr2"] {
        setting.cluster.create(NewRun::held(run(name), &website()));
        setting.quiet().await;
    }
    setting.comes_to(&[], &[]).await;
    setting.cluster.set_order(&order.map(run));
    setting.comes_to(&["pr2"], &["pr10", "pr1"]).await;
    setting.audit();
}

/// At most 10 s; then by creation time and natural name.
pub(crate) async fn until_the_order_is_known_runs_wait_for_it(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    let wait = setting.options().order_wait;
    for name in ["pr10", "pr2"] {
        setting.cluster.create(NewRun::held(run(name), &website()));
    }
    sleep(Duration::from_secs(1)).await;
    setting.cluster.create(NewRun::held(run("pr1"), &website()));
    sleep(wait.saturating_sub(Duration::from_secs(2))).await;
    assert!(
        setting.cluster.started().is_empty(),
        "it did not wait for its order"
    );
    setting.comes_to(&["pr2"], &["pr10", "pr1"]).await;
    setting.audit();
}

/// Whatever the names of its runs are.
pub(crate) async fn a_later_event_never_passes_an_earlier_one(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let _controller = setting.controller().await;
    setting.event(&["z1", "z2"]);
    setting.comes_to(&["z1"], &["z2"]).await;
    setting.event(&["a1", "a2"]);
    setting.comes_to(&["z1"], &["z2", "a1", "a2"]).await;
    for name in ["z1", "z2", "a1", "a2"] {
        setting
            .until(name, || setting.view(name).has_started())
            .await;
        assert!(setting.cluster.finish(&run(name), true));
    }
    setting.comes_to(&[], &[]).await;
    assert_eq!(setting.cluster.started(), ["z1", "z2", "a1", "a2"].map(run));
    setting.audit();
}

/// Created to run at once, although there is a limit.
pub(crate) async fn a_run_that_was_not_held_back_is_if_it_has_to_wait(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    setting.cluster.set_tekton(TektonMode::Manual);
    let controller = setting.idle().await;
    controller.recover().await.unwrap();
    let create = |name| {
        setting
            .cluster
            .create(NewRun::of(run(name), &website()))
            .unwrap()
    };
    let answers = controller
        .create(vec![create("a"), create("b")])
        .await
        .unwrap();
    assert_eq!(
        answers,
        [Creation::Started, Creation::Queued { position: Some(1) }]
    );
    assert_eq!(setting.view("b").spec_status, SpecStatus::Pending);
    assert!(setting.view("b").is_held_for_us());
    setting.comes_to(&["a"], &["b"]).await;
}

/// Tekton was faster than the hold: it runs, so it counts.
pub(crate) async fn a_run_that_begins_meanwhile_is_counted(fixture: &Fixture) {
    let setting = Setting::new(fixture, 1);
    let controller = setting.idle().await;
    controller.recover().await.unwrap();
    let create = |name| {
        setting
            .cluster
            .create(NewRun::of(run(name), &website()))
            .unwrap()
    };
    let answers = controller
        .create(vec![create("a"), create("b")])
        .await
        .unwrap();
    assert_eq!(answers, [Creation::Started, Creation::Started]);
    setting.comes_to(&["a", "b"], &[]).await;
}
