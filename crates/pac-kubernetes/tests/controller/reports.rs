//! What people see: events and positions.

use std::collections::BTreeMap;
use std::time::Duration;

use pac_kubernetes::{ReportOptions, Reporter};
use pac_kubernetes_mock::{Ending, Fault, Requests, Verb};
use pac_pipelines::{Mode, vocabulary};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::setting::{RUN, RUNS, Working, in_order, until};
use crate::world::{Place, World};

/// Reports of a controller until it is dropped.
struct Reporting(JoinHandle<()>);

impl Reporting {
    async fn start(world: &World, working: &Working) -> Self {
        let quick = ReportOptions::default()
            .with_events_per_second(500)
            .with_positions_per_second(500)
            .with_position_interval(Duration::from_millis(50));
        let reporter = Reporter::new(&world.cluster().await, quick);
        let controller = working.controller.clone();
        let task = tokio::spawn(async move { reporter.run(&controller).await });
        // It hears what happens from now on.
        sleep(Duration::from_millis(50)).await;
        Self(task)
    }
}

impl Drop for Reporting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn position(world: &World, run: &str) -> Option<String> {
    let position = &world.run(run)["metadata"]["annotations"][vocabulary::POSITION];
    position.as_str().map(str::to_owned)
}

/// The events by run and reason.
fn events(world: &World) -> BTreeMap<(String, String), Vec<Value>> {
    let mut events: BTreeMap<_, Vec<Value>> = BTreeMap::new();
    for event in world.objects.list("events", &world.namespace, "").unwrap() {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let key = (text(&event["regarding"]["name"]), text(&event["reason"]));
        events.entry(key).or_default().push(event);
    }
    events
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_and_positions_say_where_a_run_stands_once_for_all_controllers() {
    let world = World::new(&[("website", 1)], Ending::WhenTold).await;
    let (first, second) = (world.controller().await, world.controller().await);
    let _first = Reporting::start(&world, &first).await;
    let _second = Reporting::start(&world, &second).await;
    world.event("website", "pr", 4);
    world.runs("website", &["pr0"]).await;
    let positions = |expected: [Option<&'static str>; 4]| {
        let world = &world;
        async move {
            let come = || {
                let found = ["pr0", "pr1", "pr2", "pr3"].map(|run| position(world, run));
                found.each_ref().map(|found| found.as_deref()) == expected
            };
            until(&format!("{expected:?}"), come).await;
        }
    };
    positions([None, Some("1"), Some("2"), Some("3")]).await;
    world.finish("pr0", true);
    world.runs("website", &["pr1"]).await;
    positions([None, None, Some("1"), Some("2")]).await;

    let told = |run: &str, reason: &str| {
        let events = events(&world);
        events.get(&(run.to_owned(), reason.to_owned())).cloned()
    };
    until("all is told", || told("pr1", "Started").is_some()).await;
    let queued = told("pr3", "Queued").unwrap();
    assert_eq!(queued.len(), 1, "{queued:#?}");
    let note = queued[0]["note"].as_str().unwrap();
    assert!(note.starts_with("queued at position "), "{note}");
    assert!(
        note.ends_with(" in ci/website, 1 running of at most 1"),
        "{note}"
    );
    assert_eq!(
        queued[0]["regarding"]["uid"],
        world.run("pr3")["metadata"]["uid"]
    );
    let started = told("pr1", "Started").unwrap();
    let token = world.run("pr1")["metadata"]["annotations"][vocabulary::TOKEN].clone();
    let expected = format!("started with token {}", token.as_str().unwrap());
    assert_eq!(started.len(), 1);
    assert_eq!(started[0]["note"], expected);

    sleep(Duration::from_millis(300)).await;
    world.server().forget_requests();
    sleep(Duration::from_millis(700)).await;
    assert_eq!(
        world.server().requests(&Requests::writes()),
        [],
        "nothing changes, and nothing is written"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reports_that_fail_or_hang_hold_no_run_up() {
    let world = World::new(&[("website", 1)], Ending::SucceedAfter(RUN)).await;
    let working = world.controller().await;
    let _reporting = Reporting::start(&world, &working).await;
    let events = || Requests::any().verb(Verb::Create).resource("events");
    let refused = Fault::forbidden("events.k8s.io is forbidden");
    let refused = world.server().faults().inject(events(), 3, refused);
    let hold = world
        .server()
        .faults()
        .hold_at(pac_kubernetes_mock::HoldPoint::Before, events());
    let order = world.event("website", "pr", 6);
    assert_eq!(in_order(&world.ended(6).await), order);
    hold.until_reached(1).await;
    hold.release();
    until("some were refused", || refused.hits() == 3).await;
}

pub(crate) async fn a_priority_that_is_none_is_told_and_a_good_one_goes_first(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    let working = world.controller().await;
    let _reporting = Reporting::start(&world, &working).await;
    world.event("website", "first", 1);
    world.runs("website", &["first0"]).await;
    for (name, priority) in [("bad", "urgent"), ("high", "10")] {
        let mut run = world.held(name);
        let annotations = &mut run["metadata"]["annotations"];
        annotations[vocabulary::PRIORITY] = priority.into();
        annotations[vocabulary::OUR_EXECUTION_ORDER] = format!("{}/{name}", world.namespace).into();
        world.objects.create(RUNS, run).unwrap();
        let queued = || events(&world).contains_key(&(name.to_owned(), "Queued".to_owned()));
        until("it is queued", queued).await;
    }
    let key = ("bad".to_owned(), "InvalidAnnotation".to_owned());
    until("it is told", || events(&world).contains_key(&key)).await;
    assert_eq!(events(&world)[&key][0]["type"], "Warning");
    world.finish("first0", true);
    world.runs("website", &["high"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_that_observes_writes_nothing() {
    let world = World::new(&[("website", 1)], Ending::WhenTold).await;
    let working = world.controller_in(Mode::Observe).await;
    let _reporting = Reporting::start(&world, &working).await;
    world.event("website", "pr", 3);
    let known = || working.controller.known_runs() == 3;
    until("all are seen", known).await;
    sleep(Duration::from_millis(300)).await;
    assert_eq!(world.server().count(&Requests::writes()), 0);
}
