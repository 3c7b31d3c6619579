//! A cluster that is given by its kubeconfig: what the cases need there is made before them, and
//! removed after them, also when one fails. The next run removes what one that was killed has left.
//!
//! The cluster has neither Tekton nor Pipelines-as-Code nor an installation of ours, which would act
//! beside the stand-ins and the controllers of the cases: with one of them it is refused. The kinds
//! that it does not serve are defined in minimal form. Each case has a namespace of its own.

mod api;
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};
use pac_kubernetes::install::{Install, InstallMode, Manifest};
use pac_kubernetes_mock::{Failure, Handle, PacWatcher, Remote};
use pac_pipelines::vocabulary::{
    EXECUTION_ORDER, MANAGED_BY, OUR_EXECUTION_ORDER, PAC_MANAGER, PENDING,
};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::cases::Case;
use crate::setting::RUNS;
use crate::world::Place;
use api::Api;

const NAMESPACES: &str = "namespaces";
const DEFINITIONS: &str = "customresourcedefinitions";
const POLICIES: &str = "mutatingadmissionpolicies";
const BINDINGS: &str = "mutatingadmissionpolicybindings";

/// What is made, in the order in which it is removed: runs are freed of their finalizers while their
/// kind is there.
const KINDS: [&str; 4] = [NAMESPACES, BINDINGS, POLICIES, DEFINITIONS];

/// The label of everything that is made, and its value.
const MADE_BY: &str = "concurrency.pipelinesascode.tekton.dev/made-by";
const US: &str = "pac-kubernetes-tests";

/// The Deployment of Tekton's controller.
const TEKTON: &str = "tekton-pipelines-controller";

/// So many cases are run beside each other.
const AT_ONCE: usize = 4;

/// How long a case may take. What it waits for has deadlines of its own.
const CASE: Duration = Duration::from_secs(180);

/// How long the API server may take to serve a kind, to heed a policy, or to remove something: a
/// namespace takes many seconds.
const SLOW: Duration = Duration::from_secs(120);

/// How often that is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A cluster that is given.
pub(crate) struct Given {
    kubeconfig: PathBuf,
    api: Arc<dyn Remote>,
    everything: Handle,
}

/// Runs cases on the cluster of a kubeconfig; the names of those that fail.
///
/// # Errors
/// Why the cluster is refused, or cannot be used. Nothing is made in one that is refused.
pub(crate) async fn run(kubeconfig: &Path, cases: &[Case]) -> Result<Vec<String>, String> {
    let api: Arc<dyn Remote> = Arc::new(Api::connect(kubeconfig).await?);
    let given = Arc::new(Given {
        everything: Handle::remote(Arc::clone(&api), ""),
        kubeconfig: kubeconfig.to_owned(),
        api,
    });
    given.refuse_a_cluster_in_use()?;
    given.remove_all().await?;
    let failed = match given.prepare().await {
        Ok(()) => Ok(given.run_all(cases).await),
        Err(why) => Err(why),
    };
    let removed = given.remove_all().await;
    let failed = failed?;
    match removed {
        Ok(_) => Ok(failed),
        Err(why) => Err(format!("{why}; the cases that failed: {failed:?}")),
    }
}

impl Given {
    /// A namespace that is removed at the end.
    ///
    /// # Errors
    /// The answer of the API server.
    pub(crate) fn new_namespace(&self) -> Result<String, Failure> {
        let namespace = json!({"metadata": {"generateName": "pac-test-"}});
        let made = self.make(NAMESPACES, namespace)?;
        Ok(name(&made).to_owned())
    }

    /// The objects of a namespace.
    pub(crate) fn objects(&self, namespace: &str) -> Handle {
        Handle::remote(Arc::clone(&self.api), namespace)
    }

    /// How it is reached.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    fn refuse_a_cluster_in_use(&self) -> Result<(), String> {
        let refused = |found: &str| {
            Err(format!(
                "this cluster has {found}, which would act beside what the tests start; name a \
                 cluster without it in the kubeconfig"
            ))
        };
        for deployment in self.list("deployments")? {
            let name = name(&deployment);
            if [TEKTON, PacWatcher::DEPLOYMENT, Install::NAME].contains(&name) {
                return refused(&format!("the Deployment {name}"));
            }
        }
        let ours = Install::default().removals();
        let ours: Vec<_> = ours.iter().map(Manifest::name).collect();
        let policies = self.list(POLICIES).map_err(|why| {
            format!(
                "{why}; MutatingAdmissionPolicy v1 is needed, which Kubernetes 1.36 and newer serve"
            )
        });
        for policy in policies? {
            if ours.contains(&name(&policy)) && !is_made(&policy) {
                return refused(&format!("the policy {}", name(&policy)));
            }
        }
        Ok(())
    }

    async fn prepare(&self) -> Result<(), String> {
        for (kind, plural, group, version) in [
            ("PipelineRun", RUNS, "tekton.dev", "v1"),
            ("Repository", "repositories", PAC_MANAGER, "v1alpha1"),
        ] {
            if self.list(plural).is_ok() {
                continue;
            }
            self.make(DEFINITIONS, minimal(kind, plural, group, version))
                .map_err(|failure| format!("the definition of {kind}: {failure}"))?;
            self.until(&format!("{kind} is served"), || self.list(plural).is_ok())
                .await?;
        }
        // The policies of both modes, as they are installed.
        let modes = [InstallMode::Takeover, InstallMode::Gate];
        for policy in modes.map(|mode| Install::default().with_mode(mode).policies()) {
            for manifest in policy {
                let plural = match manifest.kind() {
                    "MutatingAdmissionPolicy" => POLICIES,
                    _ => BINDINGS,
                };
                self.make(plural, manifest.as_value().clone())
                    .map_err(|failure| format!("{manifest}: {failure}"))?;
            }
        }
        self.until_the_policy_acts().await
    }

    /// Makes runs until the policy changes one.
    async fn until_the_policy_acts(&self) -> Result<(), String> {
        let namespace = self
            .new_namespace()
            .map_err(|failure| format!("a namespace: {failure}"))?;
        let run = json!({
            "metadata": {
                "generateName": "probe-", "namespace": namespace,
                "labels": {MANAGED_BY: PAC_MANAGER}, "annotations": {EXECUTION_ORDER: "a/b"},
            },
            "spec": {"status": PENDING, "pipelineSpec": {"tasks": []}},
        });
        let acts = || {
            let made = self.everything.create(RUNS, run.clone());
            made.is_ok_and(|run| run["metadata"]["annotations"][OUR_EXECUTION_ORDER] == "a/b")
        };
        self.until("the policy acts", acts).await
    }

    /// Runs each case to its end; the names of those that fail.
    async fn run_all(self: &Arc<Self>, cases: &[Case]) -> Vec<String> {
        let running = cases.iter().map(|(name, case)| {
            let place = Place::Given(Arc::clone(self));
            async move {
                let mut task = tokio::spawn(case(place));
                match timeout(CASE, &mut task).await {
                    Ok(Ok(())) => None,
                    Ok(Err(_)) => Some((*name).to_owned()),
                    Err(_) => {
                        task.abort();
                        // It makes nothing any more from here on.
                        let _ = task.await;
                        Some(format!("{name}, which does not end within {CASE:?}"))
                    }
                }
            }
        });
        let ended = stream::iter(running).buffer_unordered(AT_ONCE);
        ended
            .filter_map(|failed| async move { failed })
            .collect()
            .await
    }

    /// Removes what bears our label: what was made, now or by a run that was killed.
    async fn remove_all(&self) -> Result<(), String> {
        for plural in KINDS {
            let selector = format!("{MADE_BY}={US}");
            let made = || self.everything.list(plural, "", &selector);
            let found = made().map_err(|failure| format!("{plural}: {failure}"))?;
            for object in &found {
                let deleted = self.everything.delete(plural, "", name(object));
                deleted
                    .or_else(unless_gone)
                    .map_err(|failure| format!("{plural} {}: {failure}", name(object)))?;
            }
            let are_gone = || {
                let left = made().unwrap_or_else(|_| found.clone());
                if plural == NAMESPACES {
                    left.iter().for_each(|object| self.free(name(object)));
                }
                left.is_empty()
            };
            self.until(&format!("the {plural} that were made are gone"), are_gone)
                .await?;
        }
        Ok(())
    }

    /// Takes the finalizers off the runs of a namespace: the stand-in that put them there is gone.
    fn free(&self, namespace: &str) {
        let runs = self.everything.list(RUNS, namespace, "");
        for run in runs.unwrap_or_default() {
            if run["metadata"]["finalizers"].is_array() {
                let none = json!({"metadata": {"finalizers": null}});
                // Where it fails, it is tried again at the next look.
                let _ = self.everything.merge(RUNS, namespace, name(&run), none);
            }
        }
    }

    /// Makes an object with our label.
    fn make(&self, plural: &str, mut object: Value) -> Result<Value, Failure> {
        object["metadata"]["labels"][MADE_BY] = US.into();
        self.everything.create(plural, object)
    }

    fn list(&self, plural: &str) -> Result<Vec<Value>, String> {
        let list = self.everything.list(plural, "", "");
        list.map_err(|failure| format!("{plural} cannot be listed: {failure}"))
    }

    async fn until(&self, what: &str, holds: impl Fn() -> bool) -> Result<(), String> {
        let begun = Instant::now();
        while !holds() {
            if begun.elapsed() > SLOW {
                return Err(format!("this does not come within {SLOW:?}: {what}"));
            }
            sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// A definition of a kind with any fields in its spec and status.
fn minimal(kind: &str, plural: &str, group: &str, version: &str) -> Value {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": any, "status": any}});
    json!({
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {
            "group": group,
            "names": {"plural": plural, "singular": kind.to_lowercase(), "kind": kind},
            "scope": "Namespaced",
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": schema}, "subresources": {"status": {}},
            }],
        },
    })
}

fn unless_gone(failure: Failure) -> Result<(), Failure> {
    if failure.code == 404 {
        Ok(())
    } else {
        Err(failure)
    }
}

fn is_made(object: &Value) -> bool {
    object["metadata"]["labels"][MADE_BY] == US
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap_or_default()
}
