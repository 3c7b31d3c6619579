//! The states of runs, as every store keeps them: a driver's test file includes this one and says
//! how its store is opened.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use pac_conformance::Fixture;
use pac_core::manager::{Admission, ConcurrencyManager};
use pac_core::protocol::RunRequest;
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion, PipelineRunKey, RepositoryKey, Uid};
use pac_pipelines::state_manager::{Finish, RunState, StateManager};
use tokio::time::sleep;

/// Expands to one test per case: `states!(memory, Paused)`, in a module named after the store,
/// where `memory` is the function at the root of the test file that opens it.
macro_rules! states {
    ($open:ident, $time:ident) => {
        states!(@expand $open, $time, {
            an_unknown_run_is_unknown_and_never_started,
            a_state_that_cannot_be_read_is_an_error,
            every_transition_has_the_time_of_the_store,
            a_final_state_stays,
            a_run_that_nobody_looks_after_expires,
            a_clean_up_ends_what_is_gone_and_nothing_else,
        });
    };
    (@expand $open:ident, $time:ident, { $($case:ident,)* }) => {
        mod states {
            $(#[test]
            fn $case() {
                let case = crate::states::$case;
                pac_conformance::run_case(pac_conformance::Time::$time, crate::$open, case);
            })*
        }
    };
}

fn website() -> RepositoryKey {
    RepositoryKey::new("ci", "website").unwrap()
}

fn run(name: &str) -> PipelineRunKey {
    PipelineRunKey::new("ci", name).unwrap()
}

fn uid(name: &str) -> Uid {
    format!("uid-of-{name}").parse().unwrap()
}

/// Asks for slots, of which there is one.
async fn admit(manager: &ConcurrencyManager, names: &[&str]) {
    let limit = Some((Limit::new(1), LimitVersion::new(1)));
    let requests = names
        .iter()
        .map(|name| RunRequest::durable(run(name), uid(name)));
    let repository = website();
    let admissions = manager.admit_all(&repository, limit, requests.collect());
    for admission in admissions.await.unwrap() {
        if let Admission::Queued(waiter) = admission {
            waiter.detach();
        }
    }
}

async fn state(states: &StateManager, name: &str) -> RunState {
    states.state(&website(), &run(name), None).await.unwrap()
}

async fn finish(states: &StateManager, name: &str, outcome: RunOutcome) -> Finish {
    let (repository, run, uid) = (website(), run(name), uid(name));
    let finish = states.finish(&repository, &run, &uid, outcome);
    finish.await.unwrap()
}

pub(crate) async fn an_unknown_run_is_unknown_and_never_started(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let states = StateManager::new(manager.clone());
    assert_eq!(state(&states, "a").await, RunState::Unknown);
    assert_eq!(states.record(&website(), &run("a")).await.unwrap(), None);
    admit(&manager, &["a"]).await;
    assert_eq!(state(&states, "a").await, RunState::Started);
    // Another run of its name, a run of another Repository, and one that is forgotten.
    let other = states
        .state(&website(), &run("a"), Some(&uid("other")))
        .await;
    assert_eq!(other.unwrap(), RunState::Unknown);
    let elsewhere = RepositoryKey::new("ci", "second").unwrap();
    let elsewhere = states.state(&elsewhere, &run("a"), None).await;
    assert_eq!(elsewhere.unwrap(), RunState::Unknown);
    assert_eq!(states.forget(&website()).await.unwrap(), [run("a")]);
    assert_eq!(state(&states, "a").await, RunState::Unknown);
    assert_eq!(
        finish(&states, "a", RunOutcome::Completed).await,
        Finish::Unknown
    );
    assert_eq!(state(&states, "a").await, RunState::Unknown);
}

/// A store that cannot be asked is an error, and no state.
pub(crate) async fn a_state_that_cannot_be_read_is_an_error(fixture: &Fixture) {
    let faults = pac_conformance::faults::Faults::none();
    let manager = fixture.manager_behind(&faults).await;
    let states = StateManager::new(manager.clone());
    admit(&manager, &["a"]).await;
    faults.cut();
    assert!(states.state(&website(), &run("a"), None).await.is_err());
}

pub(crate) async fn every_transition_has_the_time_of_the_store(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let _reader = manager.grants().unwrap();
    let states = StateManager::new(manager.clone());
    admit(&manager, &["a", "b"]).await;
    assert_eq!(state(&states, "b").await, RunState::Queued);
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(2));
    sleep(short).await;
    assert_eq!(finish(&states, "a", RunOutcome::Failed).await, Finish::Done);
    sleep(long).await;
    assert_eq!(
        finish(&states, "b", RunOutcome::Completed).await,
        Finish::Done
    );
    let mut times = Vec::new();
    for (name, expected) in [
        ("a", ["queued", "started", "failed"]),
        ("b", ["queued", "started", "completed"]),
    ] {
        let record = states.record(&website(), &run(name)).await.unwrap();
        let transitions = record.unwrap().transitions();
        let found: Vec<_> = transitions.iter().map(|step| step.state.as_str()).collect();
        assert_eq!(found, expected, "{name}");
        times.push(transitions.iter().map(|step| step.at).collect::<Vec<_>>());
    }
    let [a, b] = [&times[0], &times[1]];
    assert_eq!(a[1], a[0], "it had its slot at once");
    assert_eq!(b[0], a[0], "both came in one step");
    assert_eq!(b[1], a[2], "it had its slot with the end of the other one");
    for (from, to, waited) in [(a[1], a[2], short), (b[1], b[2], long)] {
        let passed = to.since(from);
        let most = waited + fixture.tolerance() * 4;
        let least = waited.saturating_sub(fixture.tolerance());
        assert!(
            least <= passed && passed <= most,
            "{passed:?}, not {waited:?}"
        );
    }
}

pub(crate) async fn a_final_state_stays(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let states = StateManager::new(manager.clone());
    admit(&manager, &["a", "b", "c"]).await;
    assert_eq!(
        finish(&states, "b", RunOutcome::Cancelled).await,
        Finish::Done
    );
    assert_eq!(state(&states, "b").await, RunState::Cancelled);
    assert_eq!(
        finish(&states, "b", RunOutcome::Completed).await,
        Finish::Before(RunState::Cancelled)
    );
    // It ran to its end while it waited here.
    assert_eq!(
        finish(&states, "c", RunOutcome::Completed).await,
        Finish::Done
    );
    assert_eq!(state(&states, "c").await, RunState::Completed);
    // Asked for again, none of them comes back.
    admit(&manager, &["b", "c"]).await;
    assert_eq!(state(&states, "b").await, RunState::Cancelled);
    assert_eq!(state(&states, "c").await, RunState::Completed);
    assert_eq!(state(&states, "a").await, RunState::Started);
}

pub(crate) async fn a_run_that_nobody_looks_after_expires(fixture: &Fixture) {
    let lease_ttl = fixture.options().session_ttl * 2;
    let options = fixture.options().with_lease_ttl(lease_ttl);
    let doomed = fixture.manager_with(options).await;
    admit(&doomed, &["a"]).await;
    doomed.close().await.unwrap();
    let states = StateManager::new(fixture.manager().await);
    assert_eq!(state(&states, "a").await, RunState::Started);
    sleep(lease_ttl + fixture.notice()).await;
    assert_eq!(state(&states, "a").await, RunState::LeaseLost);
}

pub(crate) async fn a_clean_up_ends_what_is_gone_and_nothing_else(fixture: &Fixture) {
    let manager = fixture.manager().await;
    let _reader = manager.grants().unwrap();
    let states = StateManager::new(manager.clone());
    admit(&manager, &["gone", "a", "gone-too", "b"]).await;
    let is_there = |name: &str| !name.starts_with("gone");
    for expected in [vec!["gone", "gone-too"], vec![]] {
        let ended = states
            .clean_up(&website(), |record| is_there(record.run.name()))
            .await
            .unwrap();
        let ended: Vec<_> = ended.iter().map(|record| record.run.name()).collect();
        assert_eq!(ended, expected);
    }
    let records = states.records(&website()).await.unwrap();
    let records = records.iter().map(|r| (r.run.name(), r.state.as_str()));
    assert_eq!(
        records.collect::<Vec<_>>(),
        [
            ("a", "started"),
            ("b", "queued"),
            ("gone", "cancelled"),
            ("gone-too", "cancelled"),
        ]
    );
}
