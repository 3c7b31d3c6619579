//! Tries a run in a repository of its own: writes, reads, watches and removes it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pac_concurrency::driver::Driver;
use pac_concurrency::{
    Admission, ConcurrencyManager, DriverKind, Error, InvalidValue, Limit, PipelineRunKey,
    RepositoryKey, RunOutcome, RunRequest, RunStatus, Settings, StoreReader, Timestamp,
};
use tokio::time::timeout;

use super::report::{Report, Step};
use crate::exit::{Exit, Failure};
use crate::store::nothing_there;

/// The namespace of everything that is written.
const NAMESPACE: &str = "pac-doctor";

/// A clock that is off by this much or more is reported.
const OFF: Duration = Duration::from_secs(1);

/// A poll interval so long that only the watch can report a change.
const NEVER: Duration = Duration::from_secs(24 * 60 * 60);

/// When this machine asked for a slot and received it, and when the store says it was granted.
#[derive(Debug, Clone, Copy)]
struct Granted {
    before: Timestamp,
    at: Timestamp,
    after: Timestamp,
}

/// Tries everything, then removes what it wrote, whether or not that succeeded.
pub(super) async fn run(
    settings: &Settings,
    driver: Arc<dyn Driver>,
    manager: &ConcurrencyManager,
    report: &mut Report,
) {
    // Session numbers are never reused, so neither is the name.
    let name = format!("session-{}", manager.session());
    let repository = match RepositoryKey::new(NAMESPACE, &name) {
        Ok(repository) => repository,
        Err(error) => return report.failed(Step::WriteAndRead, internal(&error)),
    };
    try_out(settings, driver, manager, &repository, report).await;
    match manager.remove_repository(&repository).await {
        Ok(_) => report.ok(Step::CleanUp, format!("{repository} is removed again")),
        Err(error) => {
            let message =
                format!("remove what is left with `pac cleanup {repository} --yes`: {error}");
            let failure = Failure::new(Failure::from(error).exit(), message);
            report.failed(Step::CleanUp, failure);
        }
    }
}

async fn try_out(
    settings: &Settings,
    driver: Arc<dyn Driver>,
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    report: &mut Report,
) {
    let start = Instant::now();
    match write_and_read(driver, manager, repository).await {
        Ok(granted) => {
            let took = start.elapsed().as_millis();
            report.ok(
                Step::WriteAndRead,
                format!("a run was admitted, read and released in {took} ms"),
            );
            if settings.driver == DriverKind::Etcd {
                let why = "etcd has no clock for its clients: times are those of who commits";
                report.skipped(Step::Clock, why);
            } else {
                compare_clocks(granted, report);
            }
        }
        Err(failure) => return report.failed(Step::WriteAndRead, failure),
    }
    match hear(settings, manager, repository, report).await {
        Ok(took) => report.ok(
            Step::Watch,
            format!(
                "another session heard of a change after {} ms",
                took.as_millis()
            ),
        ),
        Err(failure) => report.failed(Step::Watch, failure),
    }
}

async fn write_and_read(
    driver: Arc<dyn Driver>,
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
) -> Result<Granted, Failure> {
    let run = PipelineRunKey::new(NAMESPACE, "run").map_err(|error| internal(&error))?;
    let uid = manager.session().to_string();
    let uid = uid.parse().map_err(|error| internal(&error))?;
    let before = SystemTime::now().into();
    let admitted = manager
        .admit(repository, RunRequest::ephemeral(run.clone(), uid))
        .await?;
    let after = SystemTime::now().into();
    let Admission::Started(lease) = admitted else {
        let message = format!("the only run of {repository} did not start: somebody else uses it");
        return Err(Failure::new(Exit::Negative, message));
    };
    let token = lease.token();
    let status = StoreReader::new(driver).status(repository).await?;
    let written = status.running.iter().find(|running| running.run == run);
    let at = written
        .filter(|running| running.token == token)
        .and_then(|running| running.started_at);
    manager.release(lease, RunOutcome::Completed).await?;
    let ended = manager.run_status(repository, &run).await?;
    match (at, ended) {
        (Some(at), RunStatus::Finished(_)) => Ok(Granted { before, at, after }),
        _ => {
            let message = format!(
                "what is read of {repository} is not what was written: look for a replica that \
                 lags behind between here and the store"
            );
            Err(Failure::new(Exit::Negative, message))
        }
    }
}

fn compare_clocks(granted: Granted, report: &mut Report) {
    let millis = Timestamp::as_unix_millis;
    let ahead = millis(granted.at).saturating_sub(millis(granted.after));
    let behind = millis(granted.before).saturating_sub(millis(granted.at));
    let (off, way) = if ahead > behind {
        (ahead, "ahead of")
    } else {
        (behind, "behind")
    };
    let off = Duration::from_millis(u64::try_from(off).unwrap_or(0));
    if off < OFF {
        let detail = "the server's and this machine's differ by less than a second";
        return report.ok(Step::Clock, detail);
    }
    let message = format!(
        "the server's clock is {off:?} {way} this machine's: have both set by NTP; until then \
         times and waits are shown wrong, and certificates may not be valid"
    );
    report.failed(Step::Clock, Failure::new(Exit::Negative, message));
}

/// Checks that another session, over connections of its own, is notified of a change.
async fn hear(
    settings: &Settings,
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
    report: &mut Report,
) -> Result<Duration, Failure> {
    let mut listening = settings.clone();
    listening.manager.poll_interval = NEVER;
    // A trial brings no state along.
    listening.migrate_state = false;
    let other = pac_concurrency::connect_existing(&listening).await?;
    let other = other.ok_or_else(|| nothing_there(settings))?;
    let limit = settings.manager.command_timeout;
    let took = match timeout(limit, round_trip(&other, manager, repository)).await {
        Ok(took) => took,
        Err(_) => {
            let message = format!(
                "another session did not hear of a change within {limit:?}, and would have to \
                 poll: look for what holds notifications up between here and the store"
            );
            Err(Failure::new(Exit::Negative, message))
        }
    };
    if let Err(error) = other.close().await {
        was_not_closed(error, report);
    }
    took
}

/// Reports a session of the trial that could not be closed.
pub(super) fn was_not_closed(error: Error, report: &mut Report) {
    let failure = Failure::from(error);
    let message = format!("a session of this trial was not closed and ends by itself: {failure}");
    report.failed(Step::CleanUp, Failure::new(failure.exit(), message));
}

async fn round_trip(
    other: &ConcurrencyManager,
    manager: &ConcurrencyManager,
    repository: &RepositoryKey,
) -> Result<Duration, Failure> {
    let limit = Limit::new(1);
    let mut watch = other.watch(repository).await?;
    let start = Instant::now();
    manager.set_limit(repository, limit, None).await?;
    while let Some(update) = watch.next().await {
        if update.status.limit == limit {
            return Ok(start.elapsed());
        }
    }
    Err(Failure::new(Exit::Internal, "the watch ended by itself"))
}

fn internal(error: &InvalidValue) -> Failure {
    Failure::new(Exit::Internal, error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_off_by_what_the_round_trip_does_not_explain() {
        let at = Timestamp::from_unix_millis;
        for (granted, exit) in [
            (20_000, Exit::Success),
            (10_000, Exit::Success),
            (9_001, Exit::Success),
            (9_000, Exit::Negative),
            (30_999, Exit::Success),
            (31_000, Exit::Negative),
        ] {
            let mut report = Report::default();
            let granted = Granted {
                before: at(10_000),
                at: at(granted),
                after: at(30_000),
            };
            compare_clocks(granted, &mut report);
            assert_eq!(report.exit(), exit, "{granted:?}");
        }
    }
}
