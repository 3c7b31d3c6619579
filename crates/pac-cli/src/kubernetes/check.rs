//! `pac kubernetes check`: examines a cluster.

use std::time::Duration;

use pac_concurrency::kubernetes::install::{
    CheckOptions, CheckResult, CheckStep, FoundSettings, Install, check,
};
use pac_concurrency::{Error, SettingsLoader};

use super::options::{InstallArgs, name};
use super::place::ClusterArgs;
use crate::checked::{self, Checked};
use crate::exit::{Exit, Failure};
use crate::format::{Format, FormatArg};
use crate::store;

const AFTER_HELP: &str = "\
It changes nothing, but for --canary: that creates a PipelineRun which is held back and would skip
its one task, looks at it, and removes it.

Exit codes, of the first thing that failed:
   0  all is well
   1  something is not as it has to be; the message says what, and the cure
   2  wrong arguments
  69  the API server cannot be reached or used
  74  output cannot be written
  77  the API server does not allow it
  78  no cluster is named";

/// The arguments of `pac kubernetes check`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(super) struct CheckCommand {
    #[command(flatten)]
    install: InstallArgs,

    /// Prove with a run in this namespace that Pipelines-as-Code leaves held runs alone
    #[arg(long, value_name = "NAMESPACE", value_parser = name)]
    canary: Option<String>,

    /// For how long the canary is looked at
    #[arg(long, value_name = "DURATION", default_value = "15s", requires = "canary",
          value_parser = crate::time::parse_duration)]
    canary_time: Duration,

    #[command(flatten)]
    cluster: ClusterArgs,

    #[command(flatten)]
    output: FormatArg,
}

impl CheckCommand {
    pub(super) fn run(&self) -> Result<Exit, Failure> {
        let install = self.install.install();
        let mut options = CheckOptions::default().with_canary_time(self.canary_time);
        if let Some(namespace) = &self.canary {
            options = options.with_canary(namespace);
        }
        let results = store::block_on(async {
            let access = self.cluster.connect().await?;
            Ok(check(&access, &install, &options, &judge).await)
        })?;
        print(self.output.format, &results)?;
        Ok(exit(results))
    }
}

fn print(format: Format, results: &[(CheckStep, CheckResult)]) -> Result<(), Failure> {
    let checks = results.iter().filter_map(|(step, result)| match result {
        CheckResult::Ok(detail) => Some(Checked::ok(step.name(), detail)),
        CheckResult::Failed(error) => Some(Checked::failed(
            step.name(),
            &Failure::new(Exit::Negative, error),
        )),
        CheckResult::Skipped(why) => Some(Checked::skipped(step.name(), why)),
        _ => None,
    });
    checked::print(format, checks)
}

/// The exit code of the first failure.
fn exit(results: Vec<(CheckStep, CheckResult)>) -> Exit {
    let mut failures = results.into_iter().filter_map(|(_, result)| match result {
        CheckResult::Failed(error) => Some(Failure::from(error).exit()),
        _ => None,
    });
    failures.next().unwrap_or(Exit::Success)
}

/// What the settings of the cluster amount to, or everything that is wrong with them.
fn judge(found: FoundSettings) -> Result<String, String> {
    let loaded = SettingsLoader::new()
        .config_map(
            format!("ConfigMap {}", Install::CONFIG_MAP),
            found.config_map,
        )
        .secret(format!("Secret {}", Install::SECRET), found.secret)
        // They are in the pods of the controller.
        .without_looking_at_files()
        .load()
        .map_err(|error| Error::from(error).to_string())?;
    let values = loaded.values();
    if !values.enabled {
        return Err(
            "limits are not enabled, and held runs wait: set concurrency-enabled to true, and \
             concurrency-driver to postgresql or etcd"
                .to_owned(),
        );
    }
    if values.is_in_process() {
        return Err(
            "the driver is memory, or etcd on a mock, whose state only one replica sees: set \
             concurrency-driver to postgresql or etcd, and take etcd-mode out"
                .to_owned(),
        );
    }
    Ok(format!("right; the driver is {}", values.driver))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(config_map: &[(&str, &str)], secret: &[(&str, &str)]) -> Result<String, String> {
        let pairs = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            owned.collect()
        };
        let mut found = FoundSettings::default();
        found.config_map = pairs(config_map);
        found.secret = pairs(secret);
        judge(found)
    }

    #[test]
    fn settings_that_keep_no_limit_are_wrong() {
        assert!(judged(&[], &[]).unwrap_err().contains("not enabled"));
        let memory = [("concurrency-driver", "memory")];
        assert!(
            judged(&memory, &[])
                .unwrap_err()
                .contains("only one replica")
        );
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_without_the_secret() {
        let etcd = [
            ("concurrency-driver", "etcd"),
            ("etcd-endpoints", "a:1"),
            ("etcd-username", "u"),
        ];
        let right = judged(&etcd, &[("etcd-password", "hunter2")]);
        assert_eq!(right.unwrap(), "right; the driver is etcd");
        let wrong = judged(
            &[("concurrency-driver", "oracle")],
            &[("etcd-password", "hunter2")],
        );
        let wrong = wrong.unwrap_err();
        assert!(wrong.contains("ConfigMap pipelines-as-code"), "{wrong}");
        assert!(!wrong.contains("hunter2"), "{wrong}");
    }
}
