//! The checks and their results.

use std::collections::BTreeMap;

use crate::checked::{self, Checked};
use crate::exit::{Exit, Failure};
use crate::format::Format;

/// The checks, in the order in which each depends on those before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    Settings,
    Reachable,
    Tls,
    Authenticated,
    Privileges,
    Schema,
    Version,
    Store,
    Session,
    Clock,
    WriteAndRead,
    Watch,
    CleanUp,
}

impl Step {
    pub(super) const ALL: [Self; 13] = [
        Self::Settings,
        Self::Reachable,
        Self::Tls,
        Self::Authenticated,
        Self::Privileges,
        Self::Schema,
        Self::Version,
        Self::Store,
        Self::Session,
        Self::Clock,
        Self::WriteAndRead,
        Self::Watch,
        Self::CleanUp,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Settings => "settings",
            Self::Reachable => "reachable",
            Self::Tls => "tls",
            Self::Authenticated => "authenticated",
            Self::Privileges => "privileges",
            Self::Schema => "schema",
            Self::Version => "version",
            Self::Store => "store",
            Self::Session => "session",
            Self::Clock => "clock",
            Self::WriteAndRead => "write-and-read",
            Self::Watch => "watch",
            Self::CleanUp => "clean-up",
        }
    }
}

#[derive(Debug)]
enum Verdict {
    Ok(String),
    Warning(String),
    Failed(Failure),
    Skipped(String),
}

/// One verdict per step.
#[derive(Debug, Default)]
pub(super) struct Report(BTreeMap<Step, Verdict>);

impl Report {
    pub(super) fn ok(&mut self, step: Step, detail: impl Into<String>) {
        self.record(step, Verdict::Ok(detail.into()));
    }

    /// All works, and something should be seen to.
    pub(super) fn warning(&mut self, step: Step, what: String) {
        self.record(step, Verdict::Warning(what));
    }

    pub(super) fn skipped(&mut self, step: Step, why: impl Into<String>) {
        self.record(step, Verdict::Skipped(why.into()));
    }

    /// Records a failure. A refusal at a step after `Privileges` is recorded there, except at
    /// `CleanUp`, whose message says what is left behind.
    pub(super) fn failed(&mut self, step: Step, failure: Failure) {
        let refused = failure.exit() == Exit::Unauthorised;
        let step = if refused && step > Step::Privileges && step != Step::CleanUp {
            Step::Privileges
        } else {
            step
        };
        self.record(step, Verdict::Failed(failure));
    }

    /// The first failure of a step stays.
    fn record(&mut self, step: Step, verdict: Verdict) {
        if !matches!(self.0.get(&step), Some(Verdict::Failed(_))) {
            self.0.insert(step, verdict);
        }
    }

    /// Marks all steps without a verdict as skipped.
    pub(super) fn skip_rest(&mut self, why: &str) {
        for step in Step::ALL {
            let skipped = || Verdict::Skipped(why.to_owned());
            self.0.entry(step).or_insert_with(skipped);
        }
    }

    /// The exit code of the first failure.
    pub(super) fn exit(&self) -> Exit {
        let code = self.first_failure().map(|(_, failure)| failure.exit());
        match code {
            None => Exit::Success,
            Some(code @ (Exit::StoreUnavailable | Exit::Unauthorised | Exit::Config)) => code,
            Some(_) => Exit::Negative,
        }
    }

    /// Prints a line for every step, with those not reached as skipped.
    pub(super) fn print(&mut self, format: Format) -> Result<(), Failure> {
        if let Some((step, _)) = self.first_failure() {
            self.skip_rest(&format!("not tried, since {} failed", step.name()));
        }
        let checks = self.0.iter().map(|(step, verdict)| match verdict {
            Verdict::Ok(detail) => Checked::ok(step.name(), detail),
            Verdict::Warning(what) => Checked::warning(step.name(), what),
            Verdict::Failed(failure) => Checked::failed(step.name(), failure),
            Verdict::Skipped(why) => Checked::skipped(step.name(), why),
        });
        checked::print(format, checks)
    }

    fn first_failure(&self) -> Option<(Step, &Failure)> {
        self.0.iter().find_map(|(step, verdict)| match verdict {
            Verdict::Failed(failure) => Some((*step, failure)),
            Verdict::Ok(_) | Verdict::Warning(_) | Verdict::Skipped(_) => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_has_the_exit_code_and_refusals_are_of_privileges() {
        let mut report = Report::default();
        assert_eq!(report.exit(), Exit::Success);
        report.failed(Step::Watch, Failure::new(Exit::Internal, "deaf"));
        assert_eq!(report.exit(), Exit::Negative);
        report.failed(Step::WriteAndRead, Failure::new(Exit::Unauthorised, "no"));
        assert_eq!(report.exit(), Exit::Unauthorised);
        assert_eq!(report.first_failure().unwrap().0, Step::Privileges);
        // What went well later hides nothing.
        report.ok(Step::Privileges, "nothing was refused");
        assert_eq!(report.exit(), Exit::Unauthorised);
        report.failed(Step::Reachable, Failure::new(Exit::StoreUnavailable, "no"));
        assert_eq!(report.exit(), Exit::StoreUnavailable);
    }

    #[test]
    fn every_step_is_in_the_list_once_and_in_order() {
        assert!(Step::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
