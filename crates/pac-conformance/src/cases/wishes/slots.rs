//! Runs that take several slots, and runs that are told which.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use pac_core::manager::{Admission, ConcurrencyManager, Turn, WaitReason};
use pac_core::protocol::{Claim, RunRequest};
use pac_core::state::{RulesChange, RunOutcome, Weight};
use pac_core::{ErrorKind, Limit, RepositoryKey};
use tokio::task::JoinSet;

use crate::{Fixture, durable, ephemeral, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

fn weighing(slots: u16, name: &str) -> RunRequest {
    durable(name).with_weight(Weight::new(slots).unwrap())
}

/// A run of several slots gets them with one commit, or none: it is waited for while lighter ones
/// come on every manager, and the slots that are free meanwhile stay so.
pub async fn a_heavy_run_gets_its_slots_in_one_step(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(3), None).await.unwrap();
    let mut holders = Vec::new();
    for name in ["a", "b", "c"] {
        holders.push(started(&here, &web, durable(name)).await);
    }
    let mut heavy = queued(&there, &web, weighing(3, "heavy")).await;
    let mut light = queued(&here, &web, durable("light")).await;
    for holder in holders.drain(..2) {
        let freed = here.release(holder, DONE).await.unwrap();
        assert_eq!(freed.promoted, []);
        let newcomer = queued(&there, &web, durable("newcomer")).await;
        fixture.waits_on(&mut heavy).await;
        fixture.waits_on(&mut light).await;
        drop(newcomer);
    }
    let freed = here.release(holders.remove(0), DONE).await.unwrap();
    assert_eq!(freed.promoted, [run("heavy")]);
    let heavy = fixture.turn(heavy).await;
    assert_eq!(heavy.weight(), Weight::new(3).unwrap());
    fixture.waits_on(&mut light).await;
    let status = here.status(&web).await.unwrap();
    assert_eq!((status.slots_taken, status.running.len()), (3, 1));
    there.release(heavy, DONE).await.unwrap();
    drop(fixture.turn(light).await);
}

/// A run heavier than the limit is refused. One that became so keeps its place, is passed over, and
/// says why; it starts when the limit is raised again.
pub async fn a_run_too_heavy_is_refused_or_passed_over(fixture: &Fixture) {
    let (here, there) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    here.set_limit(&web, Limit::new(2), None).await.unwrap();
    let refused = there.admit(&web, weighing(3, "refused")).await;
    let error = refused.expect_err("it can never run");
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    let first = started(&here, &web, durable("first")).await;
    let mut heavy = queued(&there, &web, weighing(2, "heavy")).await;
    let light = queued(&here, &web, durable("light")).await;
    there.set_limit(&web, Limit::new(1), None).await.unwrap();
    here.release(first, DONE).await.unwrap();
    let light = fixture.turn(light).await;
    fixture.waits_on(&mut heavy).await;
    let (weight, limit) = (Weight::new(2).unwrap(), Limit::new(1));
    let reason = WaitReason::TooHeavy { weight, limit };
    assert_eq!(heavy.reason(), Some(reason));
    let raised = here.set_limit(&web, Limit::new(3), None).await.unwrap();
    assert_eq!(raised.promoted, [run("heavy")]);
    drop((light, fixture.turn(heavy).await));
}

/// With backfill, lighter runs go before one that does not fit, and not more of them than allowed,
/// whichever managers they come from; without it, none.
pub async fn lighter_runs_pass_a_heavy_one_so_many_times(fixture: &Fixture) {
    let managers = [fixture.manager().await, fixture.manager().await];
    for (name, most) in [("strict", None), ("backfill", NonZeroU32::new(3))] {
        let (web, here) = (repository(name), &managers[0]);
        let rules = RulesChange::limit(Limit::new(2)).with_backfill(most);
        here.set_rules(&web, rules, Claim::Set).await.unwrap();
        let first = started(here, &web, durable("first")).await;
        let heavy = queued(here, &web, weighing(2, "heavy")).await;
        let most = most.map_or(0, NonZeroU32::get);
        for n in 0..most {
            let manager = &managers[n as usize % 2];
            let light = started(manager, &web, durable(&format!("light-{n}"))).await;
            manager.release(light, DONE).await.unwrap();
        }
        let mut late = queued(&managers[1], &web, durable("late")).await;
        fixture.waits_on(&mut late).await;
        let entry = fixture.view(&web).await.entry("heavy").unwrap();
        assert_eq!(entry.terms().passed, most, "{name}");
        here.release(first, DONE).await.unwrap();
        let heavy = fixture.turn(heavy).await;
        fixture.waits_on(&mut late).await;
        here.release(heavy, DONE).await.unwrap();
        drop(fixture.turn(late).await);
    }
}

/// Each holder that asks for it is told the number of its slot: no two at a time have the same, and
/// none has one beyond the limit.
pub async fn slot_numbers_are_unique_under_a_crowd(fixture: &Fixture) {
    const LIMIT: u32 = 4;
    let managers = [fixture.manager().await, fixture.manager().await];
    let phones = repository("phones");
    let limit = Limit::new(LIMIT);
    managers[0].set_limit(&phones, limit, None).await.unwrap();
    let used = Arc::new(Mutex::new(BTreeSet::new()));
    let runs = fixture.scaled(40).max(8);
    let mut tasks = JoinSet::new();
    for task in 0..10 {
        let manager = managers[task % 2].clone();
        let (phones, used) = (phones.clone(), Arc::clone(&used));
        tasks.spawn(async move {
            for n in 0..runs {
                let weight = 1 + u16::try_from((task + n) % 5 / 4).unwrap();
                let request = ephemeral(&format!("{task}-{n}")).numbered();
                let request = request.with_weight(Weight::new(weight).unwrap());
                use_slots(&manager, &phones, request, &used).await;
            }
        });
    }
    tasks.join_all().await;
    assert_eq!(*used.lock().unwrap(), BTreeSet::new());
    // The smallest number that is free.
    let mut leases = Vec::new();
    for n in 0..LIMIT {
        let request = durable(&format!("last-{n}")).numbered();
        leases.push(started(&managers[0], &phones, request).await);
        assert_eq!(leases[n as usize].slots(), [n]);
    }
    let next = queued(&managers[1], &phones, durable("next").numbered()).await;
    managers[0].release(leases.remove(2), DONE).await.unwrap();
    assert_eq!(fixture.turn(next).await.slots(), [2]);
}

/// Runs, and fails if another run has one of its slots meanwhile.
async fn use_slots(
    manager: &ConcurrencyManager,
    phones: &RepositoryKey,
    request: RunRequest,
    used: &Mutex<BTreeSet<u32>>,
) {
    let weight = request.weight();
    let admission: Admission = manager.admit(phones, request).await.unwrap();
    let turn = admission.turn().await.unwrap();
    let Turn::Started(lease) = turn else {
        panic!("{turn:?}");
    };
    let slots = lease.slots().to_vec();
    assert_eq!(slots.len(), usize::from(weight.get()), "{slots:?}");
    for slot in &slots {
        assert!(*slot < 4, "{slots:?}");
        let free = used.lock().unwrap().insert(*slot);
        assert!(free, "{slots:?} of {} are in use", lease.run());
    }
    tokio::task::yield_now().await;
    for slot in &slots {
        used.lock().unwrap().remove(slot);
    }
    manager.release(lease, DONE).await.unwrap();
}
