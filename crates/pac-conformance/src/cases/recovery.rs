//! Recovery against the cluster, as far as it depends on the store.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use pac_core::manager::{Admission, ConcurrencyManager, Event, Grants, Heard, Lease, Turn};
use pac_core::state::RunOutcome;
use pac_core::{ErrorKind, Limit, RepositoryKey};
use tokio::time::{sleep, timeout};

use crate::faults::{Fault, Faults, Request, Ruin, When};
use crate::{Fixture, Harm, durable, ephemeral, queued, repository, run, started};

/// (52) One malformed run or record does not stop the recovery of the others: runs that the
/// cluster executes are still adopted, and waiting runs still start.
pub async fn a_malformed_record_stops_no_recovery(fixture: &Fixture) {
    let options = fixture.polling_options();
    for ruin in [Ruin::Unreadable, Ruin::Twice] {
        let left = Left::behind(fixture, &format!("{ruin:?}").to_lowercase()).await;
        let ruins = Faults::none();
        ruins.ruin(left.broken(), ruin);
        let fresh = fixture.manager_behind_with(&ruins, options).await;
        let mut grants = left.is_recovered_by(&fresh).await;
        left.is_mended_while_it_is_read(&ruins).await;
        let answer = async {
            fixture.settle().await;
            ruins.clear();
        };
        // A call made after the repair must not be answered from what was read before it.
        tokio::join!(left.rest_is_recovered_by(&fresh, &mut grants), answer);
        // This manager must not take the runs of the next repositories.
        fresh.close().await.unwrap();
    }
    if let Some(vandal) = fixture.vandal() {
        let left = Left::behind(fixture, "stored").await;
        vandal.damage(left.broken(), Harm::CorruptEntry).await;
        let fresh = fixture.manager_with(options).await;
        let mut grants = left.is_recovered_by(&fresh).await;
        vandal.mend(left.broken()).await;
        left.rest_is_recovered_by(&fresh, &mut grants).await;
    }
}

/// A store that was restored from an older copy: managers say so once, forget what they knew, and
/// open their sessions anew. Runs that wait are waited for again, those that run can be adopted,
/// no token is given out twice, and nobody is told that others were always faster.
pub async fn a_rewound_store_is_read_anew(fixture: &Fixture) {
    let (web, api) = (repository("web"), repository("api"));
    let line = Faults::none();
    let options = fixture.polling_options();
    let manager = fixture.manager_behind_with(&line, options).await;
    for key in [&web, &api] {
        manager.set_limit(key, Limit::new(1), None).await.unwrap();
    }
    // Some history, which is to come once more.
    for name in ["a", "b", "c"] {
        let lease = started(&manager, &web, durable(name)).await;
        manager.release(lease, RunOutcome::Completed).await.unwrap();
    }
    let held = started(&manager, &web, durable("held")).await;
    let token = held.token();
    let waiter = queued(&manager, &web, durable("waits")).await;
    let other = started(&manager, &api, durable("other")).await;
    let before = manager.health();
    let mut events = manager.events();
    line.rewind(fixture.driver(), 3).await.unwrap();

    // Whatever touches the store finds out, and goes on.
    let last = queued(&manager, &web, durable("last")).await;
    let opened = async {
        loop {
            let health = manager.health();
            if health.session != before.session && health.is_ready() {
                break health;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    let health = timeout(Duration::from_secs(20), opened).await.unwrap();
    assert_eq!(health.rewinds, 1, "{health:?}");
    assert!(held.lost().reason().is_some() && other.lost().reason().is_some());
    let mut told = 0;
    while let Some(Some(Heard::Event(event))) = events.next().now_or_never() {
        told += usize::from(matches!(event, Event::StoreRewound { .. }));
    }
    assert_eq!(told, 1, "told once");

    let again = taken_over(&manager, &web, "held").await;
    assert!(again.token() > token, "{:?} after {token:?}", again.token());
    manager.release(again, RunOutcome::Completed).await.unwrap();
    for waiter in [waiter, last] {
        let turn = timeout(Duration::from_secs(20), waiter).await.unwrap();
        let Turn::Started(lease) = turn.unwrap() else {
            panic!("a run that waited lost its place");
        };
        manager.release(lease, RunOutcome::Completed).await.unwrap();
    }
    let again = taken_over(&manager, &api, "other").await;
    manager.release(again, RunOutcome::Completed).await.unwrap();
    assert_eq!(manager.health().rewinds, 1);
    fixture.view(&web).await.assert(&[], &[]);
}

/// Adopts a run, which this manager has as soon as the death of its former session is recorded.
async fn taken_over(manager: &ConcurrencyManager, key: &RepositoryKey, name: &str) -> Lease {
    let adopted = async {
        loop {
            match manager.adopt(key, durable(name)).await {
                Ok(Admission::Started(lease)) if lease.session() == manager.health().session => {
                    break lease;
                }
                Ok(_) => sleep(Duration::from_millis(50)).await,
                Err(error) => panic!("{error}"),
            }
        }
    };
    timeout(Duration::from_secs(20), adopted).await.unwrap()
}

/// The repositories of a manager that has crashed, each with one running and one waiting run.
/// The runs of the first half are still running in the cluster, those of the second half died
/// with their process.
struct Left<'a> {
    fixture: &'a Fixture,
    keys: Vec<RepositoryKey>,
    _leases: Vec<Lease>,
}

impl<'a> Left<'a> {
    const IN_CLUSTER: usize = 3;

    async fn behind(fixture: &'a Fixture, name: &str) -> Self {
        let connection = Faults::none();
        let doomed = fixture.manager_behind(&connection).await;
        let number = Self::IN_CLUSTER * 2;
        let keys = (0..number).map(|n| repository(&format!("{name}-{n}")));
        let keys: Vec<_> = keys.collect();
        let mut leases = Vec::new();
        for (n, key) in keys.iter().enumerate() {
            doomed.set_limit(key, Limit::new(1), None).await.unwrap();
            let kind = if n < Self::IN_CLUSTER {
                durable
            } else {
                ephemeral
            };
            leases.push(started(&doomed, key, kind("runs")).await);
            queued(&doomed, key, durable("waits")).await.detach();
        }
        connection.cut();
        Self {
            fixture,
            keys,
            _leases: leases,
        }
    }

    /// The repository to break: neither the first nor the last that a sweep visits.
    fn broken(&self) -> &RepositoryKey {
        &self.keys[1]
    }

    /// Acts as a controller that has just started: adopts the runs that it finds running, ends
    /// those that have ended, and takes its grants.
    async fn is_recovered_by(&self, fresh: &ConcurrencyManager) -> Grants {
        let mut grants = fresh.grants().unwrap();
        self.fixture.outlive_session().await;
        for key in &self.keys[..Self::IN_CLUSTER] {
            if key == self.broken() {
                let refused = fresh.adopt(key, durable("runs")).await.unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::Corrupt, "{refused}");
            } else {
                adopt_and_end(fresh, key).await;
            }
        }
        let mut waiting: BTreeSet<_> = self.keys.iter().collect();
        waiting.remove(self.broken());
        while !waiting.is_empty() {
            let lease = self.next(&mut grants).await;
            assert!(
                waiting.remove(lease.repository()),
                "not to be started: {lease:?}"
            );
        }
        for key in self.keys.iter().filter(|key| *key != self.broken()) {
            self.fixture.view(key).await.assert(&["waits"], &[]);
        }
        assert!(fresh.health().is_ready() && fresh.health().panics == 0);
        grants
    }

    /// Repairs the broken repository after it was read, but before that answer arrives.
    async fn is_mended_while_it_is_read(&self, ruins: &Faults) {
        ruins.inject([Request::Load], Fault::HoldAnswer, When::Always);
        let loads = || ruins.traffic(self.broken()).loads;
        let before = loads();
        let read = async {
            // The manager's sweep for the dead session keeps reading the repository.
            while loads() == before {
                sleep(Duration::from_millis(1)).await;
            }
        };
        let longest = self.fixture.notice();
        timeout(longest, read).await.expect("nobody reads it again");
        ruins.mend(self.broken());
    }

    /// Checks that the repository, now repaired, is recovered as the others were.
    async fn rest_is_recovered_by(&self, fresh: &ConcurrencyManager, grants: &mut Grants) {
        let view = self.fixture.view(self.broken()).await;
        view.assert(&["runs"], &["waits"]);
        adopt_and_end(fresh, self.broken()).await;
        assert_eq!(self.next(grants).await.repository(), self.broken());
        self.fixture
            .view(self.broken())
            .await
            .assert(&["waits"], &[]);
    }

    /// Waits for the next grant: at the latest, the back-stop poll finds the run without an
    /// owner.
    async fn next(&self, grants: &mut Grants) -> Lease {
        let longest = self.fixture.polling_options().poll_interval * 3 + self.fixture.session_end();
        let grant = timeout(longest, grants.next()).await;
        let lease = grant.expect("a run was forgotten").unwrap();
        assert_eq!(lease.run(), &run("waits"));
        lease
    }
}

async fn adopt_and_end(manager: &ConcurrencyManager, key: &RepositoryKey) {
    match manager.adopt(key, durable("runs")).await {
        Ok(Admission::Started(lease)) => {
            manager.release(lease, RunOutcome::Completed).await.unwrap();
        }
        other => panic!("{key}: it runs, and is not adopted: {other:?}"),
    }
}
