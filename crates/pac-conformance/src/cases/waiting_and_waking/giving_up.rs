//! A caller that gives up leaves nothing behind, whenever it does so.

use std::time::Duration;

use pac_core::manager::{Admission, ConcurrencyManager, RunStatus, Turn};
use pac_core::protocol::{Ended, RunRequest};
use pac_core::state::RunOutcome;
use pac_core::{Limit, LimitVersion, RepositoryKey};
use tokio::time::{Instant, sleep, timeout};

use crate::faults::{Fault, Faults, Request, When};
use crate::{Fixture, durable, ephemeral, poll_times, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

/// (28) A waiter can wait with a timeout, and giving up removes it from the queue in all cases,
/// also when the grant raced with the timeout: then the slot is given back.
pub async fn a_waiter_that_gives_up_leaves_nothing(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let after = Duration::from_millis(200);

    // No run is released. When `wait_for` reports the timeout, the place is given up already.
    let a = started(&manager, &web, durable("a")).await;
    let b = queued(&manager, &web, durable("b")).await;
    let c = queued(&other, &web, durable("c")).await;
    let asked = Instant::now();
    assert!(b.wait_for(after).await.unwrap().is_none());
    assert!(asked.elapsed() >= after && asked.elapsed() <= after + fixture.tolerance());
    fixture.view(&web).await.assert(&["a"], &["c"]);
    assert!(timeout(after, c).await.is_err());
    fixture.comes_to(&web, &["a"], &[]).await;
    manager.release(a, DONE).await.unwrap();

    // The grant arrives for a waiter that is not polled any more, or just after the waiter was
    // dropped; on the releasing manager, and on another.
    let (mut round, orders) = (0, [true, false]);
    for waits in [&manager, &other] {
        for release_first in orders {
            for kind in [durable, ephemeral as fn(&str) -> RunRequest] {
                round += 1;
                let names = ["x", "y", "z"].map(|name| format!("{name}-{round}"));
                let x = started(&manager, &web, durable(&names[0])).await;
                let y = queued(waits, &web, kind(&names[1])).await;
                let z = queued(&manager, &web, durable(&names[2])).await;
                if release_first {
                    manager.release(x, DONE).await.unwrap();
                    drop(y);
                } else {
                    drop(y);
                    manager.release(x, DONE).await.unwrap();
                }
                let z = fixture.turn(z).await;
                fixture.view(&web).await.assert(&[&names[2]], &[]);
                manager.release(z, DONE).await.unwrap();
            }
        }
    }

    // The release comes at the moment of the timeout, or up to one answer's duration before or
    // after.
    let (step, offsets) = if fixture.is_real() {
        (fixture.tolerance() / 32, (-8_i64..=8).chain(0..=0))
    } else {
        (Duration::from_micros(250), (-8_i64..=8).chain(-8..=8))
    };
    let mut outcomes = [0; 2];
    for (n, offset) in offsets.enumerate() {
        let names = ["p", "q", "r"].map(|name| format!("{name}-{n}"));
        let p = started(&manager, &web, durable(&names[0])).await;
        let waits = [&manager, &other][n % 2];
        let q = queued(waits, &web, durable(&names[1])).await;
        let r = queued(&manager, &web, durable(&names[2])).await;
        let at = Instant::now() + after;
        let release_at = if offset < 0 {
            at - step * offset.unsigned_abs() as u32
        } else {
            at + step * offset as u32
        };
        let release = async {
            tokio::time::sleep_until(release_at).await;
            manager.release(p, DONE).await.unwrap();
        };
        let (turn, ()) = tokio::join!(q.wait_for(after), release);
        match turn.unwrap() {
            Some(Turn::Started(lease)) => {
                outcomes[0] += 1;
                fixture.view(&web).await.assert(&[&names[1]], &[&names[2]]);
                waits.release(lease, DONE).await.unwrap();
            }
            None => outcomes[1] += 1,
            other => panic!("{other:?}"),
        }
        let r = fixture.turn(r).await;
        fixture.view(&web).await.assert(&[&names[2]], &[]);
        manager.release(r, DONE).await.unwrap();
    }
    assert!(
        outcomes.iter().all(|times| *times > 0),
        "not both orders: {outcomes:?}"
    );
}

/// (28) Also when the manager could not tell the store before its session ended: the run then
/// has no owner, but it must not start, because its waiter has gone.
pub async fn giving_up_outlives_the_session(fixture: &Fixture) {
    let gate = Faults::none();
    let (live, cut) = (fixture.manager().await, fixture.manager_behind(&gate).await);
    let web = repository("web");
    live.set_limit(&web, Limit::new(1), None).await.unwrap();
    let a = started(&live, &web, durable("a")).await;
    let b = queued(&cut, &web, durable("b")).await;
    let c = queued(&cut, &web, ephemeral("c")).await;
    let d = queued(&cut, &web, durable("d")).await;
    let options = fixture.options();
    gate.cut();
    drop(b);
    drop(c);
    sleep(options.session_ttl * 2).await;
    gate.open();
    sleep(options.session_ttl).await;
    fixture.view(&web).await.assert(&["a"], &["d"]);
    live.release(a, DONE).await.unwrap();
    drop(fixture.turn(d).await);
}

/// (29) Dropping the future of an admission in flight leaks no slot and no queue entry.
pub async fn dropped_admissions_leak_nothing(fixture: &Fixture) {
    let slow = Faults::none();
    let delay = if fixture.is_real() {
        Fault::Delay(Duration::from_millis(5))
    } else {
        Fault::Turns(3)
    };
    slow.inject(Request::ALL, delay, When::Always);
    let manager = fixture.manager_behind(&slow).await;
    let mut trials = Vec::new();
    for (kind_name, kind) in [
        ("durable", durable as fn(&str) -> RunRequest),
        ("ephemeral", ephemeral),
    ] {
        for full in [false, true] {
            for way in [Way::Admit, Way::AdmitAll, Way::Adopt, Way::Wait] {
                // A repository that is known, so that only the commit is under way, and one
                // that has to be read first.
                for known in [false, true] {
                    let trial = Trial {
                        fixture,
                        manager: &manager,
                        repository: repository(&format!("{kind_name}-{}", trials.len())),
                        kind,
                        full,
                        known,
                    };
                    trials.push((trial, way));
                }
            }
        }
    }
    let attempt = async |(trial, way): (Trial<'_>, Way)| {
        let steps = trial.drop_everywhere(way).await;
        assert!(steps > 3, "{way:?}: only {steps} places to drop it at");
    };
    fixture.each(trials, attempt).await;
    assert_eq!(manager.health().panics, 0);
}

#[derive(Debug, Clone, Copy)]
enum Way {
    Admit,
    AdmitAll,
    Adopt,
    /// Admits, then waits briefly and gives up.
    Wait,
}

struct Trial<'a> {
    fixture: &'a Fixture,
    manager: &'a ConcurrencyManager,
    repository: RepositoryKey,
    kind: fn(&str) -> RunRequest,
    full: bool,
    known: bool,
}

impl Trial<'_> {
    /// Drops the call after 0 polls, then after 1, 2 and so on, until it completes before that.
    /// Returns that number.
    async fn drop_everywhere(&self, way: Way) -> usize {
        let (fixture, repository) = (self.fixture, &self.repository);
        let other = fixture.manager().await;
        let mut polls = 0;
        loop {
            assert!(polls < 500, "{way:?} never comes to its end");
            let limit = Limit::new(2 + u32::from(!self.full) * 3);
            other.set_limit(repository, limit, None).await.unwrap();
            for blocker in ["blocker-1", "blocker-2"] {
                drop(started(&other, repository, durable(blocker)).await);
            }
            if self.known {
                self.manager.status(repository).await.unwrap();
            }
            let over = poll_times(self.call(way), polls).await;
            let is_over = over.is_some();
            if let Some(leases) = over {
                for lease in leases {
                    self.manager.release(lease, DONE).await.unwrap();
                }
            }
            // Answered only after the dropped call was undone: commands keep their order.
            let nobody = run("nobody");
            self.manager
                .cancel(repository, &nobody, None)
                .await
                .unwrap();
            if matches!(way, Way::Adopt) {
                self.end_what_was_adopted().await;
            }
            // The manager has to undo the call by itself, without the back-stop poll.
            fixture
                .comes_to(repository, &["blocker-1", "blocker-2"], &[])
                .await;
            self.rest().await;
            fixture
                .view(repository)
                .await
                .assert(&["blocker-1", "blocker-2"], &[]);
            other.remove_repository(repository).await.unwrap();
            if is_over {
                other.close().await.unwrap();
                return polls;
            }
            // In real time, where waiting is expensive, skip some of the points.
            polls += if fixture.is_real() { 1 + polls / 2 } else { 1 };
        }
    }

    /// Waits until nothing more happens; in real time the answer before has to suffice.
    async fn rest(&self) {
        if !self.fixture.is_real() {
            self.fixture.settle().await;
        }
    }

    /// The record of an adopted run stays true when no caller awaits the answer: the run holds a
    /// slot, or it was never recorded, but it is never ended. Releases it if it holds one.
    async fn end_what_was_adopted(&self) {
        self.rest().await;
        let run = (self.kind)("x");
        match self
            .manager
            .run_status(&self.repository, &run.run)
            .await
            .unwrap()
        {
            RunStatus::Unknown => {}
            RunStatus::Started(_) => {
                let ended = self
                    .manager
                    .release_run(&self.repository, &run.run, &run.uid, None, DONE)
                    .await
                    .unwrap();
                assert_eq!(ended.ended, Ended::Done);
            }
            RunStatus::Finished(run) if run.outcome == DONE => {}
            other => panic!("{other:?}"),
        }
    }

    /// Makes the call under trial and completes it. Returns the leases of the runs that hold a
    /// slot.
    async fn call(&self, way: Way) -> Vec<pac_core::manager::Lease> {
        let (manager, repository) = (self.manager, &self.repository);
        let admissions = match way {
            Way::Admit | Way::Wait => {
                vec![manager.admit(repository, (self.kind)("x")).await.unwrap()]
            }
            Way::Adopt => vec![manager.adopt(repository, (self.kind)("x")).await.unwrap()],
            Way::AdmitAll => {
                let batch = ["x", "y", "z"].map(self.kind).to_vec();
                let limit = None::<(Limit, LimitVersion)>;
                manager.admit_all(repository, limit, batch).await.unwrap()
            }
        };
        let mut leases = Vec::new();
        for admission in admissions {
            match admission {
                Admission::Started(lease) => leases.push(lease),
                Admission::Queued(waiter) if matches!(way, Way::Wait) => {
                    let gave_up = waiter.wait_for(Duration::from_micros(1)).await;
                    assert!(gave_up.unwrap().is_none());
                }
                Admission::Queued(waiter) => drop(waiter),
                Admission::Finished(outcome) => panic!("x is {outcome}"),
            }
        }
        // After this there must be no await with a lease in hand: dropping an ephemeral run's
        // lease ends the run.
        leases
    }
}
