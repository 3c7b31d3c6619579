//! Commits that are planned at a state, and sent past a manager.

use pac_conformance::durable;
use pac_core::driver::{BatchOutcome, Commit, Driver, RepositoryCommit};
use pac_core::protocol::{Command, Issuer, apply};
use pac_core::state::{RepositoryState, Snapshot};
use pac_core::{RepositoryKey, SessionId};
use pac_etcd::EtcdDriver;

/// The admission of a run with this name, planned at a state.
pub(crate) fn admission(
    session: SessionId,
    repository: &RepositoryKey,
    at: &Snapshot,
    name: &str,
) -> RepositoryCommit {
    plan(session, repository, at, &Command::Admit(durable(name)))
}

/// The removal of a repository, planned at a state.
pub(crate) fn removal(
    session: SessionId,
    repository: &RepositoryKey,
    at: &Snapshot,
) -> RepositoryCommit {
    plan(session, repository, at, &Command::RemoveRepository)
}

fn plan(
    session: SessionId,
    repository: &RepositoryKey,
    at: &Snapshot,
    command: &Command,
) -> RepositoryCommit {
    let whole = Snapshot {
        since: None,
        ..at.clone()
    };
    let state = RepositoryState::from_snapshot(&whole).unwrap();
    let issuer = Issuer {
        session,
        takes_ownerless: false,
    };
    RepositoryCommit {
        repository: repository.clone(),
        changes: apply(&state, issuer, command).1.unwrap(),
    }
}

pub(crate) async fn commit(
    driver: &EtcdDriver,
    session: SessionId,
    batch: Vec<RepositoryCommit>,
) -> BatchOutcome {
    let Commit::Pending(answer) = driver.commit(session, batch) else {
        panic!("a server answers later");
    };
    answer.await
}
