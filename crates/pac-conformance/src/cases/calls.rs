//! Every call that a manager offers.

use pac_core::manager::ConcurrencyManager;
use pac_core::state::RunOutcome;
use pac_core::{Error, Limit, LimitVersion, RepositoryKey};

use crate::{durable, run, uid};

/// Makes every call for a repository, all at once, and returns their errors; fails if one
/// succeeds.
pub(super) async fn every_call_fails(
    manager: &ConcurrencyManager,
    key: &RepositoryKey,
) -> Vec<(&'static str, Error)> {
    let (run, uid) = (run("doomed"), uid("doomed"));
    let batch = vec![durable("x"), durable("y")];
    let version = LimitVersion::new(9);
    let limit = Limit::new(9);
    let (admit, admit_all, adopt, release, cancel, set_limit, remove, status, run_status, watch) = tokio::join!(
        manager.admit(key, durable("x")),
        manager.admit_all(key, Some((limit, version)), batch),
        manager.adopt(key, durable("x")),
        manager.release_run(key, &run, &uid, None, RunOutcome::Completed),
        manager.cancel(key, &run, None),
        manager.set_limit(key, limit, None),
        manager.remove_repository(key),
        manager.status(key),
        manager.run_status(key, &run),
        manager.watch(key),
    );
    [
        ("admit", admit.map(drop)),
        ("admit all", admit_all.map(drop)),
        ("adopt", adopt.map(drop)),
        ("release", release.map(drop)),
        ("cancel", cancel.map(drop)),
        ("set limit", set_limit.map(drop)),
        ("remove", remove.map(drop)),
        ("status", status.map(drop)),
        ("run status", run_status.map(drop)),
        ("watch", watch.map(drop)),
    ]
    .map(|(call, answer)| (call, answer.expect_err(call)))
    .into()
}
