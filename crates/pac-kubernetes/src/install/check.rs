//! Examines a cluster, one thing after the other.

mod cluster;
mod namespaces;
mod objects;
mod webhook;

use std::collections::BTreeMap;
use std::time::Duration;

use super::api::ClusterAccess;
use super::error::{InstallError, InstallErrorKind};
use super::options::Install;

pub(super) use cluster::namespaces;

/// What is examined, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum CheckStep {
    /// The API server answers, and says its version.
    Server,
    /// It serves the admission policies of the mode.
    PoliciesServed,
    /// Tekton's PipelineRuns and the Repositories of Pipelines-as-Code are served.
    Definitions,
    /// The policies and their bindings, or the configuration of the webhook, are those that this
    /// version would install, and a replica of the webhook is ready.
    Policies,
    /// The controller's Deployment is there, and a replica is ready.
    Controller,
    /// The controller's account may do what the controller does.
    Permissions,
    /// The settings are there, and are right.
    Settings,
    /// No Repository is in two modes.
    Repositories,
    /// What Namespaces say about queues is right.
    Namespaces,
    /// Pipelines-as-Code leaves held runs alone.
    Canary,
}

impl CheckStep {
    /// All steps, in their order.
    pub const ALL: [Self; 10] = [
        Self::Server,
        Self::PoliciesServed,
        Self::Definitions,
        Self::Policies,
        Self::Controller,
        Self::Permissions,
        Self::Settings,
        Self::Repositories,
        Self::Namespaces,
        Self::Canary,
    ];

    /// Its name: `policies-served`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::PoliciesServed => "policies-served",
            Self::Definitions => "definitions",
            Self::Policies => "policies",
            Self::Controller => "controller",
            Self::Permissions => "permissions",
            Self::Settings => "settings",
            Self::Repositories => "repositories",
            Self::Namespaces => "namespaces",
            Self::Canary => "canary",
        }
    }
}

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckResult {
    /// All is well.
    Ok(String),
    /// Something is wrong: the rule and the cure.
    Failed(InstallError),
    /// It was not examined, for this reason.
    Skipped(String),
}

/// The settings of the controller as the cluster has them.
#[derive(Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FoundSettings {
    /// The data of the ConfigMap.
    pub config_map: BTreeMap<String, String>,
    /// The decoded data of the Secret. Never to be shown.
    pub secret: BTreeMap<String, String>,
}

/// Shows the keys alone.
impl std::fmt::Debug for FoundSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FoundSettings")
            .field("config_map", &self.config_map.keys().collect::<Vec<_>>())
            .field("secret", &self.secret.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// Says what settings amount to, or everything that is wrong with them.
pub type JudgeSettings<'a> = &'a (dyn Fn(FoundSettings) -> Result<String, String> + Sync);

/// How a cluster is examined.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct CheckOptions {
    /// The namespace in which a canary is created; `None` for no canary. Default: `None`.
    pub canary: Option<String>,
    /// For how long the canary is looked at. Default: 15 s.
    pub canary_time: Duration,
}

impl CheckOptions {
    /// With a canary in a namespace.
    #[must_use]
    pub fn with_canary(mut self, namespace: impl Into<String>) -> Self {
        self.canary = Some(namespace.into());
        self
    }

    /// With another time for which the canary is looked at.
    #[must_use]
    pub fn with_canary_time(mut self, time: Duration) -> Self {
        self.canary_time = time;
        self
    }
}

impl Default for CheckOptions {
    fn default() -> Self {
        Self {
            canary: None,
            canary_time: Duration::from_secs(15),
        }
    }
}

/// Examines a cluster against an installation, and answers with a result for every step. It
/// changes nothing but for the canary, which it removes again. Dropped in flight, it may leave a
/// canary behind, which never runs a step.
pub async fn check(
    access: &ClusterAccess,
    install: &Install,
    options: &CheckOptions,
    judge: JudgeSettings<'_>,
) -> Vec<(CheckStep, CheckResult)> {
    let mut results = vec![(CheckStep::Server, result(cluster::server(access).await))];
    let is_there = results
        .iter()
        .all(|(_, result)| matches!(result, CheckResult::Ok(_)));
    for step in CheckStep::ALL.into_iter().skip(1) {
        let done = match step {
            _ if !is_there => {
                let why = "not tried, since the API server cannot be used".to_owned();
                Ok(CheckResult::Skipped(why))
            }
            CheckStep::Server | CheckStep::PoliciesServed => {
                cluster::policies_served(access, install).await
            }
            CheckStep::Definitions => cluster::definitions(access, install).await,
            CheckStep::Policies => webhook::admission(access, install).await,
            CheckStep::Controller => objects::controller(access, install).await,
            CheckStep::Permissions => cluster::permissions(access, install).await,
            CheckStep::Settings => objects::settings(access, install, judge).await,
            CheckStep::Repositories => cluster::repositories(access, install).await,
            CheckStep::Namespaces => namespaces::namespaces(access, install).await,
            CheckStep::Canary => cluster::canary(access, install, options).await,
        };
        results.push((step, result(done)));
    }
    results
}

/// What a step says, or the failure that kept it from saying anything.
type Examined = Result<CheckResult, InstallError>;

fn result(examined: Examined) -> CheckResult {
    examined.unwrap_or_else(CheckResult::Failed)
}

fn ok(detail: impl Into<String>) -> Examined {
    Ok(CheckResult::Ok(detail.into()))
}

fn skipped(why: impl Into<String>) -> Examined {
    Ok(CheckResult::Skipped(why.into()))
}

/// A step that found something wrong with `subject`.
fn wrong(subject: impl std::fmt::Display, message: impl Into<String>) -> Examined {
    Err(InstallError::new(
        InstallErrorKind::Unsafe,
        subject,
        message,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_is_in_the_list_once_and_in_order() {
        assert!(CheckStep::ALL.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn settings_are_never_shown() {
        let mut found = FoundSettings::default();
        found
            .secret
            .insert("etcd-password".to_owned(), "hunter2".to_owned());
        found
            .config_map
            .insert("etcd-username".to_owned(), "me".to_owned());
        let shown = format!("{found:?}");
        assert!(
            shown.contains("etcd-password") && !shown.contains("hunter2"),
            "{shown}"
        );
    }

    #[tokio::test]
    async fn without_an_api_server_nothing_else_is_tried() {
        let access = ClusterAccess::at("http://127.0.0.1:1").unwrap();
        let judge = |_| Ok(String::new());
        let results = check(
            &access,
            &Install::default(),
            &CheckOptions::default(),
            &judge,
        )
        .await;
        assert_eq!(results.len(), CheckStep::ALL.len());
        assert!(matches!(results[0].1, CheckResult::Failed(_)));
        assert!(
            results[1..]
                .iter()
                .all(|(_, one)| matches!(one, CheckResult::Skipped(_)))
        );
    }
}
