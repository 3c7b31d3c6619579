//! Sessions in a long outage: a place in the queue is lost when the store says so, a lease when
//! the holder's own clock says so, and a manager never takes its own former session for
//! somebody else's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{
    ConcurrencyManager, Error, ErrorKind, Lease, Limit, ManagerOptions, MemoryDriver,
    MemoryOptions, RunOutcome, RunRequest, SessionId, Turn, Waiter,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{Fixture, Time, durable, ephemeral, queued, repository, run_case, started};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

const DONE: RunOutcome = RunOutcome::Completed;
const WAITERS: [&str; 6] = ["b", "c", "d", "e", "f", "g"];

async fn memory(time: Time) -> Fixture {
    Fixture::over(Arc::new(MemoryDriver::new(MemoryOptions::default())), time)
}

/// The settings of every manager here.
fn options(fixture: &Fixture) -> ManagerOptions {
    fixture.options()
}

/// A store that was away for longer than the session TTL, and has kept the sessions,
/// made every waiter give up its place.
#[test]
fn waiters_keep_places_that_the_store_keeps_through_an_outage() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let holder = fixture.manager_with(options(fixture)).await;
        holder.set_limit(&web, Limit::new(1), None).await.unwrap();
        let mut lease = started(&holder, &web, ephemeral("a")).await;
        let mut waiting = Waiting::default();
        for name in WAITERS {
            let ours = fixture.manager_behind_with(&line, options(fixture)).await;
            let waiter = queued(&ours, &web, ephemeral(name)).await;
            waiting.add(ours, waiter);
        }
        let places = async || {
            let view = fixture.view(&web).await;
            WAITERS.map(|name| {
                (
                    view.entry(name).map(|entry| entry.ticket),
                    view.session(name),
                )
            })
        };
        let before = places().await;

        long_outage(fixture, &line, &waiting.sessions()).await;
        sleep(options(fixture).session_ttl * 3).await;
        waiting.assert_quiet();
        fixture.view(&web).await.assert(&["a"], &WAITERS);
        assert_eq!(places().await, before, "(ticket, session) of each waiter");

        for name in WAITERS {
            holder_or(&waiting, &holder, &lease)
                .release(lease, DONE)
                .await
                .unwrap();
            lease = waiting.turn(fixture, name).await;
        }
    });
}

/// The turn that comes while the store cannot be reached is the waiter's all the same.
#[test]
fn a_turn_that_comes_in_an_outage_is_had_after_it() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let line = Faults::none();
        let holder = fixture.manager_with(options(fixture)).await;
        holder.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&holder, &web, ephemeral("a")).await;
        let mut waiting = Waiting::default();
        for name in ["b", "c"] {
            let ours = fixture.manager_behind_with(&line, options(fixture)).await;
            let waiter = queued(&ours, &web, ephemeral(name)).await;
            waiting.add(ours, waiter);
        }
        let half_way = options(fixture).session_ttl * 5 / 4;
        let release = async {
            sleep(half_way).await;
            holder.release(a, DONE).await.unwrap();
        };
        let sessions = waiting.sessions();
        tokio::join!(long_outage(fixture, &line, &sessions), release);
        let b = waiting.turn(fixture, "b").await;
        fixture.view(&web).await.assert(&["b"], &["c"]);
        holder_or(&waiting, &holder, &b)
            .release(b, DONE)
            .await
            .unwrap();
        drop(waiting.turn(fixture, "c").await);
    });
}

/// Its other side: in the same outage, of the same manager, a lease is fenced, and
/// stays lost although the store has kept the session; its slot is not.
#[test]
fn a_lease_is_lost_in_an_outage_in_which_a_place_is_kept() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let (web, api) = (repository("web"), repository("api"));
        let line = Faults::none();
        let other = fixture.manager_with(options(fixture)).await;
        let ours = fixture.manager_behind_with(&line, options(fixture)).await;
        for repository in [&web, &api] {
            let set = other.set_limit(repository, Limit::new(1), None);
            set.await.unwrap();
        }
        let lost = started(&ours, &api, ephemeral("lost")).await;
        let next = queued(&other, &api, ephemeral("next")).await;
        let a = started(&other, &web, ephemeral("a")).await;
        let mut b = queued(&ours, &web, ephemeral("b")).await;
        let ticket = fixture.view(&web).await.entry("b").unwrap().ticket;
        assert!(ours.holds(&lost));

        let watched = async {
            let ttl = options(fixture).session_ttl;
            sleep(ttl).await;
            for _ in 0..40 {
                assert!(!ours.holds(&lost), "the outage is longer than its TTL");
                sleep(ttl / 10).await;
            }
        };
        let sessions = [ours.session()];
        tokio::join!(long_outage(fixture, &line, &sessions), watched);
        fixture.waits_on(&mut b).await;
        let view = fixture.view(&web).await;
        view.assert(&["a"], &["b"]);
        assert_eq!(view.entry("b").unwrap().ticket, ticket);

        drop(lost);
        drop(fixture.turn(next).await);
        other.release(a, DONE).await.unwrap();
        let b = fixture.turn(b).await;
        assert!(ours.holds(&b), "it was granted after the outage");
    });
}

/// Asked for again right after a new session was opened, an ephemeral run that holds a
/// slot was refused as that of another live process.
#[test]
fn a_running_ephemeral_run_is_not_refused_for_the_sake_of_a_former_session() {
    asked_again_with_a_new_session(false, ephemeral("x"));
}

/// The same, for a run that waits.
#[test]
fn a_waiting_ephemeral_run_is_not_refused_for_the_sake_of_a_former_session() {
    asked_again_with_a_new_session(true, ephemeral("x"));
}

/// The same, for another run of the same name.
#[test]
fn a_new_ephemeral_run_may_have_the_name_of_one_of_a_former_session() {
    let mut another = ephemeral("x");
    another.uid = "another".parse().unwrap();
    asked_again_with_a_new_session(false, another);
}

/// The run that stands in the way is durable: it outlives the former session, and its name is
/// refused. The manager ended that session over and over instead, without a pause.
#[test]
fn an_ephemeral_run_never_gets_the_name_of_a_durable_one_of_a_former_session() {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        let ours = fixture.manager_with(options(fixture)).await;
        ours.set_limit(&web, Limit::new(1), None).await.unwrap();
        let x = started(&ours, &web, durable("x")).await;
        let former = ours.session();
        fixture.driver().close_session(former).await.unwrap();
        while ours.session() == former {
            sleep(Duration::from_millis(1)).await;
        }
        fixture.settle().await;
        let mut another = ephemeral("x");
        another.uid = "another".parse().unwrap();
        let refused = ours.admit(&web, another).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NameInUse, "{refused}");
        assert_eq!(fixture.view(&web).await.entry("x").unwrap().uid, *x.uid());
    });
}

fn asked_again_with_a_new_session(waits: bool, again: RunRequest) {
    run_case(Time::Paused, memory, async |fixture: &Fixture| {
        let web = repository("web");
        // Dead sessions are not found before a second after the new session.
        let slow = Faults::none();
        slow.inject([Request::DeadSessions], Fault::Hang, When::Always);
        let other = fixture.manager_behind_with(&slow, options(fixture)).await;
        let ours = fixture.manager_behind_with(&slow, options(fixture)).await;
        other.set_limit(&web, Limit::new(1), None).await.unwrap();
        let (_a, _x, _waiter);
        if waits {
            _a = started(&other, &web, durable("a")).await;
            _waiter = queued(&ours, &web, ephemeral("x")).await;
        } else {
            _x = started(&ours, &web, ephemeral("x")).await;
        }
        let former = ours.session();
        fixture.driver().close_session(former).await.unwrap();
        while ours.session() == former {
            sleep(Duration::from_millis(1)).await;
        }
        let found = async {
            sleep(Duration::from_secs(1)).await;
            slow.clear();
        };
        match tokio::join!(ours.admit(&web, again), found).0 {
            Ok(admission) => drop(admission),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::SessionLost, "{error}");
            }
        }
    });
}

/// Every request fails for one and a half session TTLs, and watches break; the store has kept
/// these sessions all the same.
async fn long_outage(fixture: &Fixture, line: &Faults, sessions: &[SessionId]) {
    line.cut();
    for _ in 0..9 {
        sleep(options(fixture).session_ttl / 6).await;
        for session in sessions {
            fixture.driver().keep_alive(*session).await.unwrap();
        }
    }
    line.open();
}

/// Waiters that are polled all the time, each of a manager of its own.
struct Waiting {
    managers: Vec<ConcurrencyManager>,
    told: mpsc::UnboundedSender<(String, Result<Turn, Error>)>,
    turns: mpsc::UnboundedReceiver<(String, Result<Turn, Error>)>,
}

impl Default for Waiting {
    fn default() -> Self {
        let (told, turns) = mpsc::unbounded_channel();
        Self {
            managers: Vec::new(),
            told,
            turns,
        }
    }
}

impl Waiting {
    fn add(&mut self, manager: ConcurrencyManager, waiter: Waiter) {
        self.managers.push(manager);
        let told = self.told.clone();
        tokio::spawn(async move {
            let name = waiter.run().name().to_owned();
            let turn = waiter.await;
            let _ = told.send((name, turn));
        });
    }

    fn sessions(&self) -> Vec<SessionId> {
        let managers = self.managers.iter();
        managers.map(ConcurrencyManager::session).collect()
    }

    /// No waiter has come to its end.
    fn assert_quiet(&mut self) {
        if let Ok(ended) = self.turns.try_recv() {
            panic!("it was to wait on: {ended:?}");
        }
    }

    /// The next turn is that of `name`, and no other comes with it.
    async fn turn(&mut self, fixture: &Fixture, name: &str) -> Lease {
        // The watch is opened again, or the poll comes, within so long after an outage.
        let turn = timeout(Duration::from_secs(30), self.turns.recv()).await;
        let turn = turn.unwrap_or_else(|_| panic!("no turn where {name} was next"));
        let (next, turn) = turn.unwrap();
        assert_eq!(next, name, "{turn:?}");
        let Ok(Turn::Started(lease)) = turn else {
            panic!("{name} waited for a lease and got {turn:?}");
        };
        let holds = |manager: &ConcurrencyManager| manager.holds(&lease);
        assert!(self.managers.iter().any(holds), "it is held by its manager");
        fixture.settle().await;
        self.assert_quiet();
        lease
    }
}

/// The manager that holds a lease.
fn holder_or<'a>(
    waiting: &'a Waiting,
    holder: &'a ConcurrencyManager,
    lease: &Lease,
) -> &'a ConcurrencyManager {
    let mut managers = waiting.managers.iter();
    managers.find(|one| one.holds(lease)).unwrap_or(holder)
}
