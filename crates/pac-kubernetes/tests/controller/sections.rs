//! Sections: the steps of runs beside a controller, over HTTP.

use std::time::Duration;

use pac_core::FencingToken;
use pac_core::driver::ListFilter;
use pac_kubernetes::section::{Departed, SectionError, SectionErrorKind, SectionStep};
use pac_kubernetes_mock::{Ending, Fault, Requests, Verb};
use pac_pipelines::sections::SectionHolder;
use pac_pipelines::vocabulary;
use serde_json::json;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::common::LONG;
use crate::setting::{RUNS, until};
use crate::world::{Place, World};

/// Runs that run, and a controller beside them.
async fn world(runs: usize) -> World {
    world_at(&Place::InMemory, runs).await
}

async fn world_at(place: &Place, runs: usize) -> World {
    let world = World::at(place, &[("website", 9)], Ending::WhenTold).await;
    world.event("website", "pr", runs);
    world
}

async fn all_run(world: &World, runs: usize) {
    let names: Vec<_> = (0..runs).map(|at| format!("pr{at}")).collect();
    let names: Vec<_> = names.iter().map(String::as_str).collect();
    world.runs("website", &names).await;
}

async fn step_as(world: &World, run: &str, holder: &str) -> SectionStep {
    let options = world.options();
    let uid = world.run(run)["metadata"]["uid"].as_str().unwrap().parse();
    let run = format!("{}/{run}", world.namespace).parse().unwrap();
    let (section, holder) = ("gpu".parse().unwrap(), holder.parse().unwrap());
    let step = SectionStep::connect(&options, run, section, holder).await;
    let often = Duration::from_millis(20);
    step.unwrap()
        .with_uid(uid.unwrap())
        .with_polls(often, often)
}

async fn step(world: &World, run: &str) -> SectionStep {
    step_as(world, run, SectionHolder::DEFAULT).await
}

/// A step that enters the section in a task of its own.
async fn entering(world: &World, run: &str) -> JoinHandle<Result<FencingToken, SectionError>> {
    let step = step(world, run).await;
    tokio::spawn(async move { step.acquire(LONG).await })
}

/// Waits until a run has asked, or asks no longer.
async fn asks(world: &World, run: &str, expected: bool) {
    let name = format!("{}gpu", vocabulary::SECTION_PREFIX);
    until("the request", || {
        world.run(run)["metadata"]["annotations"][&name].is_string() == expected
    })
    .await;
}

async fn token(task: JoinHandle<Result<FencingToken, SectionError>>) -> u64 {
    let entered = timeout(LONG, task).await.expect("it enters");
    entered.unwrap().unwrap().get()
}

pub(crate) async fn runs_are_in_a_section_one_after_the_other_and_however_they_end_it_goes_on(
    place: Place,
) {
    let world = world_at(&place, 6).await;
    let first = world.controller().await;
    all_run(&world, 6).await;
    let inside = step(&world, "pr0").await;
    let mut tokens = vec![inside.acquire(LONG).await.unwrap().get()];
    let mut waiting = Vec::new();
    for run in ["pr1", "pr2", "pr3", "pr4", "pr5"] {
        waiting.push(entering(&world, run).await);
        asks(&world, run, true).await;
        // The order is that in which the controller hears of them.
        world.queued(&first, "section.gpu", waiting.len()).await;
    }
    let mut waiting = waiting.into_iter();
    let mut next = async || token(waiting.next().unwrap()).await;
    // It leaves, and leaves once more.
    assert_eq!(inside.release().await, Ok(Departed::Left));
    assert_eq!(inside.release().await, Ok(Departed::NotThere));
    tokens.push(next().await);
    // It succeeds; it fails while no controller is there; it is cancelled; it is deleted.
    world.finish("pr1", true);
    tokens.push(next().await);
    first.end().await;
    world.finish("pr2", false);
    let _second = world.controller().await;
    tokens.push(next().await);
    let cancelled = json!({"spec": {"status": "CancelledRunFinally"}});
    world.merge("pr3", cancelled);
    tokens.push(next().await);
    world.delete("pr4");
    tokens.push(next().await);
    assert!(tokens.is_sorted_by(|a, b| a < b), "{tokens:?}");
    let run = world.run("pr0");
    assert!(
        run["status"]["conditions"][0]["status"] == "Unknown",
        "it goes on: {run:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn answers_that_are_lost_and_writers_that_come_first_cost_no_place() {
    let world = world(2).await;
    let _working = world.controller().await;
    all_run(&world, 2).await;
    let faults = world.server().faults();
    let patches = || Requests::any().verb(Verb::Patch).resource(RUNS);
    let lost = faults.inject(patches(), 1, Fault::done_then_504());
    let inside = step(&world, "pr0").await;
    // Two steps of a run at once, and many writers beside them.
    let objects = world.objects.clone();
    let writer = tokio::spawn(async move {
        for number in 0.. {
            let status = json!({"metadata": {"labels": {"n": number.to_string()}}});
            objects.merge(RUNS, "ci", "pr0", status).unwrap();
            sleep(Duration::from_millis(10)).await;
        }
    });
    let other = step_as(&world, "pr0", "e2e").await;
    let (one, two) = tokio::join!(inside.acquire(LONG), other.acquire(LONG));
    assert_eq!(one.unwrap(), two.unwrap());
    assert!(lost.hits() >= 1);
    let waits = entering(&world, "pr1").await;
    asks(&world, "pr1", true).await;
    let others = inside.release().await.unwrap();
    assert_eq!(others, Departed::Others(vec!["e2e".parse().unwrap()]));
    let again = inside.release().await.unwrap();
    assert_eq!(again, Departed::NotThisHolder(vec!["e2e".parse().unwrap()]));
    sleep(Duration::from_millis(200)).await;
    assert!(!waits.is_finished());
    assert_eq!(other.release().await, Ok(Departed::Left));
    token(waits).await;
    writer.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_step_that_cannot_enter_says_why() {
    let world = world(3).await;
    let working = world.controller().await;
    all_run(&world, 3).await;
    let inside = step(&world, "pr0").await;
    inside.acquire(LONG).await.unwrap();
    let kind = |result: Result<FencingToken, SectionError>| result.unwrap_err().kind();
    // It takes its request back.
    let impatient = step(&world, "pr1").await;
    let waited = impatient.acquire(Duration::from_millis(200)).await;
    assert_eq!(kind(waited), SectionErrorKind::TimedOut);
    asks(&world, "pr1", false).await;
    // An operator cancels it.
    let cancelled = entering(&world, "pr1").await;
    let (section, run) = ("ci/section.gpu".parse().unwrap(), "ci/pr1".parse().unwrap());
    let manager = working.controller.manager();
    while manager.status(&section).await.unwrap().queued.is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    manager.cancel(&section, &run, None).await.unwrap();
    let cancelled = timeout(LONG, cancelled).await.unwrap().unwrap();
    assert_eq!(kind(cancelled), SectionErrorKind::Cancelled);
    // Its run ends, and is gone.
    let ended = entering(&world, "pr2").await;
    asks(&world, "pr2", true).await;
    let late = step(&world, "pr2").await;
    world.finish("pr2", false);
    let ended = timeout(LONG, ended).await.unwrap().unwrap();
    assert_eq!(kind(ended), SectionErrorKind::RunEnded);
    world.objects.delete(RUNS, "ci", "pr2").unwrap();
    until("it is gone", || {
        world.objects.get(RUNS, "ci", "pr2").is_err()
    })
    .await;
    assert_eq!(kind(late.acquire(LONG).await), SectionErrorKind::RunGone);
    assert_eq!(late.release().await, Ok(Departed::RunIsGone));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_is_nothing_that_a_step_needs() {
    let world = world(1).await;
    let first = world.controller().await;
    all_run(&world, 1).await;
    first.end().await;
    // No controller: the step waits, and the one that comes answers it.
    let waits = entering(&world, "pr0").await;
    asks(&world, "pr0", true).await;
    assert!(!waits.is_finished());
    let _second = world.controller().await;
    token(waits).await;
    let sections = world.store.list(ListFilter::All, None, 10).await.unwrap();
    assert!(
        sections
            .iter()
            .any(|(key, _)| key.as_str() == "ci/section.gpu")
    );
}
