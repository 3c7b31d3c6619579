//! State.

use std::sync::{Arc, Weak};
use std::time::Duration;

use pac_core::manager::RunStatus;
use pac_core::state::RunOutcome;
use pac_core::{Limit, RepositoryKey, SessionId, SessionIdentity, SessionInfo, Timestamp};
use tokio::time::{Instant, sleep};

use crate::faults::Faults;
use crate::{Fixture, durable, ephemeral, finished, queued, repository, run, started};

const DONE: RunOutcome = RunOutcome::Completed;

/// (45) queued, started, completed, failed, cancelled, expired can be read per run; an unknown
/// run answers "unknown", never "started".
pub async fn every_state_can_be_read(fixture: &Fixture) {
    let gate = Faults::none();
    let (manager, reader) = (fixture.manager().await, fixture.manager().await);
    let doomed = fixture.manager_behind(&gate).await;
    let web = repository("web");
    for name in ["completed", "failed"] {
        let lease = started(&manager, &web, durable(name)).await;
        let outcome = if name == "failed" {
            RunOutcome::Failed
        } else {
            DONE
        };
        manager.release(lease, outcome).await.unwrap();
        // Otherwise several runs would end at the same moment.
        fixture.settle().await;
    }
    drop(started(&manager, &web, durable("cancelled")).await);
    fixture.settle().await;
    manager.cancel(&web, &run("cancelled"), None).await.unwrap();
    let lost = started(&doomed, &web, ephemeral("lost")).await;
    gate.cut();
    fixture.outlive_session().await;
    let started = started(&manager, &web, durable("started")).await;
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let queued = queued(&manager, &web, durable("queued")).await;
    for reader in [&manager, &reader] {
        for (name, expected) in [
            ("completed", DONE),
            ("failed", RunOutcome::Failed),
            ("cancelled", RunOutcome::Cancelled),
            ("lost", RunOutcome::LeaseLost),
        ] {
            let RunStatus::Finished(run) = reader.run_status(&web, &run(name)).await.unwrap()
            else {
                panic!("{name} has ended");
            };
            assert_eq!((run.run.name(), run.outcome), (name, expected));
        }
        let RunStatus::Started(run_started) =
            reader.run_status(&web, &run("started")).await.unwrap()
        else {
            panic!("it runs");
        };
        assert_eq!(
            (run_started.token, run_started.session, run_started.orphaned),
            (started.token(), manager.session(), false)
        );
        let RunStatus::Queued(run_queued) = reader.run_status(&web, &run("queued")).await.unwrap()
        else {
            panic!("it waits");
        };
        assert_eq!(
            (run_queued.position, run_queued.owner),
            (1, Some(manager.session()))
        );
        for (repository, name) in [(&web, "unknown"), (&repository("unknown"), "started")] {
            let status = reader.run_status(repository, &run(name)).await.unwrap();
            assert_eq!(status, RunStatus::Unknown);
        }
        let status = reader.status(&web).await.unwrap();
        let ended: Vec<_> = status.finished.iter().map(|run| run.run.name()).collect();
        assert_eq!(ended, ["completed", "failed", "cancelled", "lost"]);
    }
    // Reading creates nothing.
    assert!(!fixture.view(&repository("unknown")).await.exists);
    drop((lost, queued));
}

/// A session tells who has opened it and when: while it lives, and as long as a run has it once it
/// is dead. A manager that opens another one, or is opened anew, says again who it is.
pub async fn a_session_tells_who_it_is(fixture: &Fixture) {
    let gate = Faults::none();
    let name = SessionIdentity::named("night-batch").unwrap();
    let pod = SessionIdentity::cleaned("reconciler", "1.2.3", "web-0", Some(7));
    let named = fixture.options().with_identity(name);
    let manager = fixture.manager_with(named).await;
    let of_pod = fixture.options().with_identity(pod);
    let doomed = fixture.manager_behind_with(&gate, of_pod).await;
    let usual = fixture.manager().await;
    let web = repository("web");
    let lost = started(&doomed, &web, durable("a")).await;
    let (lives, dies, third) = (manager.session(), doomed.session(), usual.session());
    let here = SessionIdentity::of_this_process();
    for (session, identity) in [(lives, name), (dies, pod), (third, here)] {
        let info = told(fixture, session).await.unwrap();
        assert_eq!((info.identity, info.dead), (identity, false));
    }
    let opened = told(fixture, dies).await.unwrap().opened_at;
    let started_at = fixture.view(&web).await.times("a")[1];
    assert!(opened.is_some() && opened <= started_at, "{opened:?}");
    // All in one answer, and without those that nobody has opened.
    let unknown = SessionId::new(dies.get() ^ (1 << 40));
    let asked = [lives, unknown, dies, SessionId::default()];
    let mut known = fixture.driver().sessions(&asked).await.unwrap();
    known.sort_by_key(|(session, _)| *session != lives);
    let known: Vec<_> = known.iter().map(|(session, _)| *session).collect();
    assert_eq!(known, [lives, dies]);

    gate.cut();
    fixture.outlive_session().await;
    let orphan = fixture.view(&web).await;
    assert_eq!(orphan.running_names(), ["a"]);
    let dead = told(fixture, dies).await.unwrap();
    let expected = (pod, opened, true);
    assert_eq!((dead.identity, dead.opened_at, dead.dead), expected);
    gate.open();
    let reopened = async {
        while doomed.session() == dies {
            sleep(Duration::from_millis(5)).await;
        }
    };
    fixture.soon("another session", reopened).await;
    let anew = told(fixture, doomed.session()).await.unwrap();
    assert_eq!((anew.identity, anew.dead), (pod, false));
    assert!(anew.opened_at > opened, "{anew:?}");

    manager.close().await.unwrap();
    let restarted = fixture.manager_with(named).await;
    let session = restarted.session();
    let info = told(fixture, session).await.unwrap();
    assert_eq!((info.identity, info.dead), (name, false));
    assert_ne!(session, lives);
    drop(lost);
}

async fn told(fixture: &Fixture, session: SessionId) -> Option<SessionInfo> {
    let known = fixture.driver().sessions(&[session]).await.unwrap();
    known.first().map(|(_, info)| *info)
}

/// (46) Finished states vanish after the retention, by themselves; the store's size stays flat
/// over 10,000 runs.
pub async fn finished_states_vanish_by_themselves(fixture: &Fixture) {
    // The second manager only watches: the store may keep more records for its sake.
    let options = fixture.polling_options();
    let manager = fixture.manager_with(options).await;
    let _watches = fixture.manager_with(options).await;
    let (web, quiet) = (repository("web"), repository("quiet"));
    let retention = fixture.driver().descriptor().retention;
    assert!(
        !fixture.is_real() || retention.age <= Duration::from_secs(45),
        "{:?} is longer than a test can wait: open the driver with a retention of 20 seconds, \
         or name the case in `except`",
        retention.age
    );
    let begun = Instant::now();
    manager.set_limit(&web, Limit::new(2), None).await.unwrap();
    let runs = fixture.scaled(1_000) * 10;
    let looks = if fixture.is_real() { 4 } else { 10 };
    for n in 1..=runs {
        let lease = started(&manager, &web, durable(&format!("run-{n}"))).await;
        manager.release(lease, DONE).await.unwrap();
        if n % (runs / looks) == 0 {
            // Records above the retained number are deleted by a commit or by the next sweep.
            sleep(fixture.notice()).await;
            let view = fixture.view(&web).await;
            let known = manager.status(&web).await.unwrap().finished.len();
            let most = n.min(retention.per_repository);
            let least = if begun.elapsed() < retention.age {
                most
            } else {
                1
            };
            for kept in [view.finished.len(), known] {
                assert!((least..=most).contains(&kept), "{kept} kept after {n} runs");
            }
            let latest = view.finished.last().unwrap();
            assert_eq!(latest.run.name(), format!("run-{n}"));
        }
    }
    let last = format!("run-{runs}");
    assert_eq!(finished(&manager, &web, durable(&last)).await, DONE);

    // Records stay until their age is reached. Then neither the store nor the manager may keep
    // them, even if no call reads them.
    let once = started(&manager, &quiet, durable("once")).await;
    manager.release(once, DONE).await.unwrap();
    let mut records: Vec<Weak<_>> = Vec::new();
    for repository in [&web, &quiet] {
        // For a store in this process these are its own records, otherwise copies.
        let view = fixture.view(repository).await;
        records.extend(view.finished.iter().map(Arc::downgrade));
    }
    let margin = fixture.notice() + fixture.tolerance();
    sleep(retention.age.saturating_sub(margin)).await;
    assert_eq!(fixture.view(&quiet).await.outcome("once"), Some(DONE));
    sleep(margin * 2 + options.poll_interval * 2).await;
    let left = records
        .iter()
        .filter(|record| record.strong_count() > 0)
        .count();
    assert_eq!(left, 0, "of {} records", records.len());
    for repository in [&web, &quiet] {
        assert_eq!(fixture.view(repository).await.entries().count(), 0);
    }
    assert_eq!(
        manager.run_status(&web, &run(&last)).await.unwrap(),
        RunStatus::Unknown
    );
    assert_eq!(
        fixture.view(&web).await.head.limit,
        Limit::new(2),
        "the limit is no run"
    );
}

/// (47) Timestamps of every transition are the store's, so queue wait and run time can be
/// computed by anybody.
pub async fn every_transition_has_its_time(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let web = repository("web");
    manager.set_limit(&web, Limit::new(1), None).await.unwrap();
    let [short, long] = [Duration::from_millis(300), Duration::from_millis(700)];
    let a = started(&manager, &web, durable("a")).await;
    let begin = Instant::now();
    sleep(short).await;
    let b = queued(&other, &web, durable("b")).await;
    let c = queued(&other, &web, durable("c")).await;
    let (a_times, b_queued) = ((a.queued_at(), a.started_at()), b.queued_at());
    sleep(long).await;
    let a_for = begin.elapsed();
    manager.release(a, DONE).await.unwrap();
    let b = fixture.turn(b).await;
    sleep(short).await;
    // Run c never started: it ends with only two times.
    manager.cancel(&web, &run("c"), None).await.unwrap();
    let b_for = (b.queued_at(), b.started_at());
    manager.cancel(&web, &run("b"), None).await.unwrap();
    drop(c);

    let view = fixture.view(&web).await;
    let [queued, started, ended] = view.times("a");
    assert_eq!((queued, started), a_times);
    assert_eq!(queued, started, "it never waited");
    fixture.assert_took(started, ended, a_for);
    let [queued, started, ended] = view.times("b");
    assert_eq!((queued, b_for), (b_queued, (queued, started)));
    fixture.assert_took(queued, started, long);
    fixture.assert_took(started, ended, short);
    assert_eq!(
        started,
        view.times("a")[2],
        "a's slot went to b in the same instant"
    );
    let [queued, started, ended] = view.times("c");
    assert_eq!(started, None);
    fixture.assert_took(queued, ended, long + short);
    // Every manager reports the same times.
    for reader in [&manager, &other] {
        for run in reader.status(&web).await.unwrap().finished {
            let times = [run.queued_at, run.started_at, run.finished_at];
            assert_eq!(times, view.times(run.run.name()));
        }
    }
}

/// (48) All repositories with state can be listed, also with 10,000 of them, in pages.
pub async fn all_repositories_can_be_listed(fixture: &Fixture) {
    let (manager, other) = (fixture.manager().await, fixture.manager().await);
    let number = fixture.scaled(10_000);
    let mut keys: Vec<RepositoryKey> = (0..number)
        .map(|n| RepositoryKey::new(&format!("team-{}", n % 7), &format!("repo-{n}")).unwrap())
        .collect();
    let put_in = async |(n, key): (usize, &RepositoryKey)| {
        if n % 3 == 0 {
            let limit = Limit::new(n as u32 + 1);
            manager.set_limit(key, limit, None).await.unwrap();
        } else {
            drop(started(&manager, key, durable("a")).await);
        }
    };
    fixture.each(keys.iter().enumerate(), put_in).await;
    let gap = number / 2;
    let removed = keys.remove(gap);
    manager.remove_repository(&removed).await.unwrap();
    let by_number = keys.clone();
    keys.sort();
    for page_size in [number / 10, number / 10 - 1, number * 2] {
        let mut listed = Vec::new();
        loop {
            let after = listed
                .last()
                .map(|summary: &pac_core::manager::RepositorySummary| &summary.repository);
            let page = other.list(after, page_size).await.unwrap();
            assert!(page.len() <= page_size);
            if page.is_empty() {
                break;
            }
            listed.extend(page);
        }
        assert!(listed.iter().map(|summary| &summary.repository).eq(&keys));
        for (n, key) in by_number.iter().enumerate().step_by(number / 20 - 1) {
            let n = if n >= gap { n + 1 } else { n };
            let at = keys.binary_search(key).unwrap();
            let expected = if n % 3 == 0 {
                (Limit::new(n as u32 + 1), 0)
            } else {
                (Limit::UNLIMITED, 1)
            };
            assert_eq!((listed[at].limit, listed[at].running), expected, "{key}");
        }
    }
    assert_eq!(other.list(keys.last(), 10).await.unwrap(), []);
}

impl Fixture {
    #[track_caller]
    fn assert_took(&self, from: Option<Timestamp>, to: Option<Timestamp>, expected: Duration) {
        let (from, to) = (from.unwrap(), to.unwrap());
        assert!(from <= to);
        let off = to.since(from).abs_diff(expected);
        assert!(off <= self.tolerance(), "{off:?} away from {expected:?}");
    }
}
