//! Batches of several repositories: how many requests they are, and that each commit has an outcome
//! of its own.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::sync::Arc;
use std::time::Duration;

use pac_conformance::{repository, run};
use pac_core::driver::{BatchOutcome, CommitOutcome, Driver, SessionTtl};
use pac_core::state::Snapshot;
use pac_core::{ErrorKind, RepositoryKey, SessionId};
use pac_etcd::EtcdDriver;
use support::own::Member;
use support::planned;

const TTL: SessionTtl = SessionTtl::new(Duration::from_secs(60), Duration::from_secs(60));

/// As many as a manager puts into one batch.
const REPOSITORIES: usize = 64;

const NONE: [usize; 0] = [];

/// A session, and what it knows of repositories.
struct Committer {
    driver: Arc<EtcdDriver>,
    session: SessionId,
    known: Vec<(RepositoryKey, Snapshot)>,
}

impl Committer {
    async fn of(member: &Member, prefix: &str, repositories: usize) -> Self {
        let mut options = support::options([member.endpoint()]);
        prefix.clone_into(&mut options.prefix);
        let driver = support::driver(&options).await;
        let session = driver.open_session(TTL, &support::me()).await.unwrap();
        let mut known = Vec::new();
        for n in 0..repositories {
            let key = repository(&format!("repository-{n}"));
            let state = driver.load(&key, None).await.unwrap();
            known.push((key, state));
        }
        Self {
            driver,
            session,
            known,
        }
    }

    /// Commits an admission to some of its repositories with one batch, and takes in what it is
    /// told.
    async fn admit(&mut self, name: &str, which: std::ops::Range<usize>) -> BatchOutcome {
        let known = &self.known[which.clone()];
        let batch = known
            .iter()
            .map(|(key, at)| planned::admission(self.session, key, at, name));
        let outcomes = planned::commit(&self.driver, self.session, batch.collect()).await?;
        for (n, outcome) in which.zip(&outcomes) {
            if let CommitOutcome::Committed(written) = outcome {
                let key = &self.known[n].0;
                let all = self.driver.load(key, None).await.unwrap();
                assert_eq!(all.head, written.head, "{key}");
                self.known[n].1 = all;
            }
        }
        Ok(outcomes)
    }
}

/// The repositories that were refused because another commit was faster; all others are written.
fn conflicts(outcomes: &BatchOutcome) -> Vec<usize> {
    let outcomes = outcomes.as_ref().unwrap().iter().enumerate();
    let conflicts = outcomes.filter_map(|(n, outcome)| match outcome {
        CommitOutcome::Committed(_) => None,
        CommitOutcome::Conflict(_) => Some(n),
        other => panic!("{n}: {other:?}"),
    });
    conflicts.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_a_conflict_costs_a_second_request_and_it_is_remembered() {
    let member = Member::single(&[]);
    let mut ours = Committer::of(&member, "/test/", REPOSITORIES).await;
    let mut others = Committer::of(&member, "/test/", REPOSITORIES).await;
    let few = 24;
    for (name, which) in [
        ("new", 0..REPOSITORIES),
        ("second", 0..REPOSITORIES),
        ("third", 0..few),
    ] {
        let before = member.answered("Txn");
        let outcomes = ours.admit(name, which).await;
        assert_eq!(conflicts(&outcomes), NONE, "{name}");
        // Each repository was read again by the test, with one transaction.
        let read = outcomes.unwrap().len() as u64;
        assert_eq!(member.answered("Txn") - before - read, 1, "{name}");
    }
    let lost = [3, 40, 41];
    for (repetition, requests) in [(0, 2), (1, 1)] {
        for n in lost {
            others.known[n].1 = others.driver.load(&others.known[n].0, None).await.unwrap();
            let name = format!("others-{repetition}");
            let outcomes = others.admit(&name, n..n + 1).await;
            assert_eq!(conflicts(&outcomes), NONE);
        }
        let before = member.answered("Txn");
        let name = format!("ours-{repetition}");
        let outcomes = ours.admit(&name, 0..REPOSITORIES).await;
        assert_eq!(conflicts(&outcomes), lost, "{repetition}");
        let read = (REPOSITORIES - lost.len()) as u64;
        assert_eq!(member.answered("Txn") - before - read, requests);
        for n in lost {
            let key = &ours.known[n].0;
            let state = ours.driver.load(key, None).await.unwrap();
            let names = state.entries.iter().map(|entry| &entry.run);
            assert!(
                names
                    .clone()
                    .all(|name| *name != run(&format!("ours-{repetition}")))
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_repository_of_a_batch_is_written_for_a_session_that_is_over() {
    let member = Member::single(&[]);
    let mut ours = Committer::of(&member, "/test/", 40).await;
    assert_eq!(conflicts(&ours.admit("first", 0..40).await), NONE);
    ours.driver.close_session(ours.session).await.unwrap();
    for which in [0..1, 0..20, 0..40] {
        let error = ours.admit("late", which).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::SessionLost, "{error}");
    }
    for (key, known) in &ours.known {
        let now = ours.driver.load(key, None).await.unwrap();
        assert_eq!(now.head, known.head);
    }
}

/// The removal of any repository refuses what is created at that moment. Nobody contends for that
/// repository.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_elsewhere_makes_no_repository_contested() {
    let member = Member::single(&[]);
    let mut others = Committer::of(&member, "/test/", 1).await;
    assert_eq!(conflicts(&others.admit("others", 0..1).await), NONE);
    let mut ours = Committer::of(&member, "/test/", 3).await;
    let (key, known) = &others.known[0];
    let removal = planned::removal(others.session, key, known);
    let removed = planned::commit(&others.driver, others.session, vec![removal]).await;
    assert_eq!(conflicts(&removed), NONE);
    assert_eq!(conflicts(&ours.admit("created", 1..3).await), [0, 1]);
    for n in 1..3 {
        ours.known[n].1 = ours.driver.load(&ours.known[n].0, None).await.unwrap();
    }
    assert_eq!(conflicts(&ours.admit("created", 1..3).await), NONE);
    // As they are sent together, the one that loses costs another request.
    let mut faster = Committer::of(&member, "/test/", 3).await;
    assert_eq!(conflicts(&faster.admit("faster", 2..3).await), NONE);
    let before = member.answered("Txn");
    assert_eq!(conflicts(&ours.admit("late", 1..3).await), [1]);
    let read = 1;
    assert_eq!(member.answered("Txn") - before - read, 2);
}

/// What a session has noted of a repository goes with it. After that was created again, the next
/// commit there writes the note again, and none beside it is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_was_removed_and_created_again_is_noted_again() {
    let member = Member::single(&[]);
    let mut ours = Committer::of(&member, "/test/", 3).await;
    assert_eq!(conflicts(&ours.admit("first", 0..3).await), NONE);
    let mut options = support::options([member.endpoint()]);
    "/test/".clone_into(&mut options.prefix);
    let others = support::manager(&options).await;
    let key = ours.known[1].0.clone();
    others.remove_repository(&key).await.unwrap();
    others
        .set_limit(&key, pac_core::Limit::new(9), None)
        .await
        .unwrap();
    ours.known[1].1 = ours.driver.load(&key, None).await.unwrap();
    assert_eq!(conflicts(&ours.admit("second", 0..3).await), NONE);
    let noted = ours.driver.repositories_of(ours.session).await.unwrap();
    assert_eq!(noted.len(), 3, "{noted:?}");
}
