//! The steps from the settings to a session, and which of them failed.

use std::sync::Arc;

use pac_concurrency::driver::{Driver, Finding, Level};
use pac_concurrency::settings::SslMode;
use pac_concurrency::{
    ConcurrencyManager, DriverKind, Error, ErrorKind, LoadedSettings, SessionIdentity, Settings,
};

use super::report::{Report, Step};
use crate::exit::{Exit, Failure};
use crate::store::nothing_there;

/// The oldest supported version. The driver accepts older servers too.
const OLDEST_POSTGRESQL: u32 = 15;

/// Connects and opens a session; reports what fails.
pub(super) async fn open(
    loaded: &LoadedSettings,
    settings: &Settings,
    report: &mut Report,
) -> Option<(Arc<dyn Driver>, ConcurrencyManager)> {
    let driver = match pac_concurrency::open_existing_driver(settings).await {
        Ok(Some(driver)) => driver,
        Ok(None) => {
            passed(loaded, Step::Schema, report);
            report.failed(Step::Schema, nothing_there(settings));
            return None;
        }
        Err(error) => {
            let step = failed_step(&error);
            passed(loaded, step, report);
            report.failed(step, error.into());
            return None;
        }
    };
    passed(loaded, Step::Version, report);
    check_version(settings.driver, driver.as_ref(), report).await;
    match driver.diagnose().await {
        Ok(findings) => report_findings(&findings, report),
        Err(error) => report.failed(Step::Store, error.into()),
    }
    match ConcurrencyManager::open(Arc::clone(&driver), settings.manager).await {
        Ok(manager) => {
            let identity = settings.manager.identity;
            let identity = identity.unwrap_or_else(SessionIdentity::of_this_process);
            report.ok(Step::Session, format!("opened, as {identity}"));
            Some((driver, manager))
        }
        Err(error) => {
            report.failed(Step::Session, error.into());
            None
        }
    }
}

/// The step at which connecting failed. It is read from the message, because error kinds do not
/// distinguish, for example, a wrong certificate from a wrong database name.
fn failed_step(error: &Error) -> Step {
    let message = error.to_string();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    match error.kind() {
        ErrorKind::Unauthorised if says(&["over TLS only"]) => Step::Tls,
        ErrorKind::Unauthorised if says(&["may not do this", "permission denied"]) => {
            Step::Privileges
        }
        ErrorKind::Unauthorised => Step::Authenticated,
        ErrorKind::Config if says(&["has no database"]) => Step::Schema,
        ErrorKind::Config if says(&["is no PostgreSQL"]) => Step::Reachable,
        ErrorKind::Config if says(&["is of version"]) => Step::Version,
        ErrorKind::Config if says(&["is not read committed"]) => Step::Store,
        ErrorKind::Config if says(&["TLS", "certificate", "CA file", "private key"]) => Step::Tls,
        ErrorKind::Config | ErrorKind::InvalidInput => Step::Settings,
        ErrorKind::Incompatible | ErrorKind::Corrupt => Step::Schema,
        _ if error.operation() == "migrate" => Step::Schema,
        _ => Step::Reachable,
    }
}

/// Reports the steps before `failed` as passed.
fn passed(loaded: &LoadedSettings, failed: Step, report: &mut Report) {
    let values = loaded.values();
    let (is_etcd, postgresql) = (values.driver == DriverKind::Etcd, &values.postgresql);
    for step in Step::ALL.into_iter().filter(|step| *step < failed) {
        match step {
            Step::Settings => {
                report.ok(step, format!("right; the driver is {}", values.driver));
            }
            Step::Reachable => report.ok(step, "the server answers"),
            Step::Tls if is_etcd && !values.etcd.uses_tls() => {
                report.skipped(step, "no CA file is set (etcd-ca-file), so it is not used");
            }
            Step::Tls if is_etcd && values.etcd.ca_file.is_none() => {
                report.ok(step, "members have certificates that this system trusts");
            }
            Step::Tls if is_etcd => report.ok(step, "members have certificates of the CA"),
            Step::Tls if postgresql.ssl_mode == SslMode::Disable => {
                report.skipped(step, "postgresql-ssl-mode is disable");
            }
            Step::Tls => {
                report.ok(
                    step,
                    format!("postgresql-ssl-mode is {}", postgresql.ssl_mode),
                );
            }
            Step::Authenticated if is_etcd && values.etcd.username.is_none() => {
                report.skipped(step, "no user is set, and none is asked for");
            }
            Step::Authenticated => report.ok(step, "the server lets us in"),
            // Without a schema, whether the privileges suffice is unknown.
            Step::Privileges if failed == Step::Schema => {}
            Step::Privileges => report.ok(step, "nothing was refused"),
            Step::Schema if is_etcd => report.skipped(step, "etcd has none"),
            Step::Schema => report.ok(step, "of this version"),
            _ => {}
        }
    }
}

async fn check_version(kind: DriverKind, driver: &dyn Driver, report: &mut Report) {
    match driver.server_version().await {
        Ok(Some(version)) if kind == DriverKind::Postgresql && is_too_old(&version) => {
            let message = format!(
                "PostgreSQL {version}; {OLDEST_POSTGRESQL} or newer is needed: upgrade the server"
            );
            report.failed(Step::Version, Failure::new(Exit::Config, message));
        }
        Ok(Some(version)) => report.ok(Step::Version, format!("{kind} {version}")),
        Ok(None) => report.skipped(Step::Version, "the driver does not tell"),
        Err(error) => report.skipped(Step::Version, format!("the server does not tell: {error}")),
    }
}

/// Reports what the driver has found. What fails counts as its kind says: missing privileges at
/// their step, all else at the store's, which says the warnings too.
fn report_findings(findings: &[Finding], report: &mut Report) {
    let lines = |of: &dyn Fn(Level) -> bool| {
        let found = findings.iter().filter(|finding| of(finding.level()));
        found.map(Finding::to_string).collect::<Vec<_>>().join("\n")
    };
    let refused = Level::Failure(ErrorKind::Unauthorised);
    let others = lines(&|level| level != refused);
    let failed = findings.iter().find_map(|finding| match finding.level() {
        Level::Failure(kind) if kind != ErrorKind::Unauthorised => Some(kind),
        _ => None,
    });
    match failed {
        Some(kind) => report.failed(Step::Store, failure(kind, others)),
        None if others.is_empty() => report.ok(Step::Store, "nothing to see to"),
        None => report.warning(Step::Store, others),
    }
    let refusals = lines(&|level| level == refused);
    if !refusals.is_empty() {
        let refused = failure(ErrorKind::Unauthorised, refusals);
        report.failed(Step::Privileges, refused);
    }
}

/// A failure with the exit code of errors of that kind.
fn failure(kind: ErrorKind, message: String) -> Failure {
    let exit = Failure::from(Error::new(kind, "diagnose", "")).exit();
    Failure::new(exit, message)
}

fn is_too_old(version: &str) -> bool {
    let major = version.split(|c: char| !c.is_ascii_digit()).next();
    major
        .and_then(|major| major.parse::<u32>().ok())
        .is_some_and(|major| major < OLDEST_POSTGRESQL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_that_fail_have_the_exit_code_of_their_kind() {
        let warning = Finding::warning("the store is nearly full", "raise the quota");
        let failure = Finding::failure(ErrorKind::Unauthorised, "no DELETE", "grant it");
        let mut report = Report::default();
        report_findings(std::slice::from_ref(&warning), &mut report);
        assert_eq!(report.exit(), Exit::Success);
        report_findings(&[warning, failure], &mut report);
        assert_eq!(report.exit(), Exit::Unauthorised);
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (version, too_old) in [
            ("9.6.24", true),
            ("14.11 (Debian 14.11-1)", true),
            ("15.8", false),
            ("18beta1", false),
            ("", false),
        ] {
            assert_eq!(is_too_old(version), too_old, "{version}");
        }
    }
}
