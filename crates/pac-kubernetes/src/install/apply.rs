//! Applies the objects of an installation, and removes them.

use std::time::{Duration, Instant};

use serde_json::Value;

use super::api::{
    BINDING, CONFIG_MAP, ClusterAccess, DEPLOYMENT, NAMESPACE, POD, POLICY, POLICY_VERSION, Place,
    WEBHOOK_CONFIGURATION,
};
use super::error::{InstallError, InstallErrorKind};
use super::manifest::{MANAGED_BY, MANAGER, Manifest};
use super::options::{Install, InstallMode};
use super::policies;
use super::runs::{self, LiveRun};
use super::{webhook, workload};

/// How long pods may take to end: their grace period is 30 s.
const PODS_END: Duration = Duration::from_secs(90);

/// How often is looked whether something has come about.
pub(super) const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What became of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectOutcome {
    /// It was created.
    Created,
    /// It was there, and has changed.
    Changed,
    /// It was there as it has to be.
    Unchanged,
    /// It was there, holds what others have put into it, and was left as it is: the settings of an
    /// administrator, or, in a namespace, pods that are not ours.
    Kept,
    /// It was removed.
    Removed,
    /// It was not there.
    Absent,
    /// It bears no label of an installation: it belongs to somebody else, and was left as it is.
    NotOurs,
}

impl ObjectOutcome {
    /// It as a word or two: `created`, `not ours`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Unchanged => "unchanged",
            Self::Kept => "kept",
            Self::Removed => "removed",
            Self::Absent => "absent",
            Self::NotOurs => "not ours",
        }
    }
}

/// Is told what became of each object, right after.
pub type Report<'a> = &'a mut (dyn FnMut(&str, ObjectOutcome) + Send);

/// Applies the objects in their order, and reports each. It can be repeated; settings that are
/// there are kept. Dropped in flight, it leaves the rest undone.
///
/// # Errors
/// - `Refused` where the API server does not serve admission policies, before anything is done.
/// - `Unsafe` where runs wait in the queue of Pipelines-as-Code, before anything is done: it would
///   start them beside the controller. [`onboard`](super::onboard) takes them over.
/// - `Unsafe` where no replica of a webhook gets ready: the API server does not ask it yet.
/// - Those of the API server, which name the object; what comes before it was applied.
pub async fn apply(
    access: &ClusterAccess,
    install: &Install,
    report: Report<'_>,
) -> Result<(), InstallError> {
    policies_are_served(access, install).await?;
    if install.mode == InstallMode::Takeover {
        refuse_a_busy_queue(access, install).await?;
    }
    apply_all(access, install, &install.manifests(), report).await
}

/// Removes the objects in the reverse of their order, those of every mode, and reports each. It can
/// be repeated. Objects without our labels are left as they are, and so is the Namespace while pods
/// are in it. With the Namespace goes what else is in it.
///
/// # Errors
/// - `Unsafe` where runs are held back for the controller or run under it, unless `even_if_busy`:
///   nothing would start the former, and Pipelines-as-Code does not count the latter.
///   [`offboard`](super::offboard) gives them back.
/// - `Unsafe` where pods of the controller do not end, before a policy is removed.
/// - Those of the API server, which name the object.
pub async fn remove(
    access: &ClusterAccess,
    install: &Install,
    even_if_busy: bool,
    report: Report<'_>,
) -> Result<(), InstallError> {
    if !even_if_busy {
        let live = runs::live(access, install, false).await?;
        let ours: Vec<&LiveRun> = live.iter().filter(|run| run.is_ours()).collect();
        if !ours.is_empty() {
            let message = format!(
                "{} of them wait for the controller or were started by it: {}; nothing would start \
                 those that wait, and no queue would count those that run. Give them back with \
                 `pac kubernetes offboard`, or wait until they have ended",
                ours.len(),
                runs::some(ours.iter().copied())
            );
            return Err(InstallError::new(
                InstallErrorKind::Unsafe,
                "PipelineRuns",
                message,
            ));
        }
    }
    for manifest in &install.removals() {
        let outcome = remove_one(access, manifest).await?;
        report(&manifest.to_string(), outcome);
        // With a policy gone and a controller there, two queues would start the same runs.
        if manifest.kind() == DEPLOYMENT.name {
            pods_are_gone(access, install).await?;
        }
    }
    Ok(())
}

/// Applies these objects of an installation and no others.
pub(super) async fn apply_all(
    access: &ClusterAccess,
    install: &Install,
    manifests: &[Manifest],
    report: Report<'_>,
) -> Result<(), InstallError> {
    for manifest in manifests {
        let outcome = apply_one(access, install, manifest).await?;
        report(&manifest.to_string(), outcome);
    }
    Ok(())
}

/// Removes the configuration of the webhook and the policies of every mode, each binding before its
/// policy: from then on nothing changes PipelineRuns on their way.
pub(super) async fn remove_policies(
    access: &ClusterAccess,
    install: &Install,
    report: Report<'_>,
) -> Result<(), InstallError> {
    let policies = policies::all(install);
    let configuration = webhook::configuration(install);
    for manifest in std::iter::once(&configuration).chain(policies.iter().rev()) {
        let outcome = remove_one(access, manifest).await?;
        report(&manifest.to_string(), outcome);
    }
    Ok(())
}

/// That the policies which are wanted can be had.
pub(super) async fn policies_are_served(
    access: &ClusterAccess,
    install: &Install,
) -> Result<(), InstallError> {
    if install.policies().is_empty() {
        return Ok(());
    }
    let served = access.served(POLICY_VERSION).await?;
    if [POLICY, BINDING]
        .iter()
        .all(|kind| served.iter().any(|one| one == kind.plural))
    {
        return Ok(());
    }
    let message = format!(
        "does not serve {} in {POLICY_VERSION}, which Kubernetes 1.36 and newer do; install a \
         webhook in their place: --admission=webhook",
        POLICY.plural
    );
    Err(InstallError::new(
        InstallErrorKind::Refused,
        "API server",
        message,
    ))
}

/// Waits until no pod of the controller is left.
pub(super) async fn pods_are_gone(
    access: &ClusterAccess,
    install: &Install,
) -> Result<(), InstallError> {
    let selector = labels_of(&workload::selector());
    let started = Instant::now();
    loop {
        let pods = pod_names(access, &install.namespace, &selector).await?;
        if pods.is_empty() {
            return Ok(());
        }
        if started.elapsed() > PODS_END {
            let message = format!(
                "{} of {} did not end within {} s; see what holds it, and run the command again",
                runs::some_of(&pods),
                install.namespace,
                PODS_END.as_secs()
            );
            return Err(InstallError::new(InstallErrorKind::Unsafe, "pods", message));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

/// How many pods a Deployment is to have.
pub(super) fn replicas(deployment: &Value) -> u64 {
    let set = deployment.pointer("/spec/replicas").and_then(Value::as_u64);
    // The API server fills in 1 where nothing is set.
    set.unwrap_or(1)
}

/// The names of the pods that bear these labels.
pub(super) async fn pod_names(
    access: &ClusterAccess,
    namespace: &str,
    selector: &str,
) -> Result<Vec<String>, InstallError> {
    let name = |pod: &Value| {
        let name = pod.pointer("/metadata/name").and_then(Value::as_str);
        Some(name.unwrap_or_default().to_owned())
    };
    access
        .list(Place::new(POD, namespace, ""), selector, name)
        .await
}

/// A map of labels as a selector.
pub(super) fn labels_of(labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let pair =
        |(key, value): (&String, &Value)| format!("{key}={}", value.as_str().unwrap_or_default());
    labels.map(pair).collect::<Vec<_>>().join(",")
}

async fn refuse_a_busy_queue(
    access: &ClusterAccess,
    install: &Install,
) -> Result<(), InstallError> {
    let live = runs::live(access, install, true).await?;
    let waiting: Vec<&LiveRun> = live.iter().filter(|run| run.waits_in_pac()).collect();
    if waiting.is_empty() {
        return Ok(());
    }
    let message = format!(
        "{} of them wait in the queue of Pipelines-as-Code, which would start them beside the \
         controller: {}; take them over with `pac kubernetes onboard`, or wait until they have \
         started",
        waiting.len(),
        runs::some(waiting.iter().copied())
    );
    Err(InstallError::new(
        InstallErrorKind::Unsafe,
        "PipelineRuns",
        message,
    ))
}

async fn apply_one(
    access: &ClusterAccess,
    install: &Install,
    manifest: &Manifest,
) -> Result<ObjectOutcome, InstallError> {
    let place = Place::of(manifest)?;
    let before = access.get(place).await?;
    match &before {
        // An administrator has made the namespace, or has filled the settings in.
        Some(_) if place.kind == CONFIG_MAP => return Ok(ObjectOutcome::Kept),
        Some(object) if !is_ours(object) && place.kind == NAMESPACE => {
            return Ok(ObjectOutcome::Kept);
        }
        Some(object) if !is_ours(object) => {
            let message = format!(
                "is there already and belongs to somebody else: its label {MANAGED_BY} is not \
                 {MANAGER}; remove it, or install into another namespace"
            );
            return Err(InstallError::new(
                InstallErrorKind::Refused,
                manifest,
                message,
            ));
        }
        _ => {}
    }
    let after = if place.kind == WEBHOOK_CONFIGURATION {
        let trusting = webhook::trusting(access, install, manifest, before.as_ref()).await?;
        access.apply(&trusting).await?
    } else {
        access.apply(manifest).await?
    };
    Ok(match before {
        None => ObjectOutcome::Created,
        Some(before) if same(&before, &after) => ObjectOutcome::Unchanged,
        Some(_) => ObjectOutcome::Changed,
    })
}

async fn remove_one(
    access: &ClusterAccess,
    manifest: &Manifest,
) -> Result<ObjectOutcome, InstallError> {
    let place = Place::of(manifest)?;
    let Some(object) = access.get(place).await? else {
        return Ok(ObjectOutcome::Absent);
    };
    if !is_ours(&object) {
        return Ok(ObjectOutcome::NotOurs);
    }
    // `kubectl apply` puts our labels on a namespace that was there, too.
    if manifest.kind() == "Namespace" && !pod_names(access, manifest.name(), "").await?.is_empty() {
        return Ok(ObjectOutcome::Kept);
    }
    let uid = object.pointer("/metadata/uid").and_then(Value::as_str);
    Ok(match access.delete(place, uid.unwrap_or_default()).await? {
        true => ObjectOutcome::Removed,
        false => ObjectOutcome::Absent,
    })
}

fn is_ours(object: &Value) -> bool {
    let labels = object.pointer("/metadata/labels");
    labels
        .and_then(|labels| labels.get(MANAGED_BY))
        .and_then(Value::as_str)
        == Some(MANAGER)
}

/// Whether two states of an object are the same but for what the API server keeps of changes.
fn same(before: &Value, after: &Value) -> bool {
    let essence = |object: &Value| {
        let mut object = object.clone();
        if let Some(top) = object.as_object_mut() {
            top.remove("status");
        }
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            for field in ["managedFields", "resourceVersion", "generation"] {
                metadata.remove(field);
            }
        }
        object
    };
    essence(before) == essence(after)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bookkeeping_of_the_api_server_is_no_change() {
        let object = |version: &str, replicas: u32| {
            json!({
                "metadata": {"name": "a", "resourceVersion": version, "managedFields": [version]},
                "spec": {"replicas": replicas}, "status": {"observed": version},
            })
        };
        assert!(same(&object("1", 2), &object("2", 2)));
        assert!(!same(&object("1", 2), &object("2", 3)));
    }

    #[test]
    fn labels_become_a_selector() {
        assert_eq!(
            labels_of(&workload::selector()),
            "app.kubernetes.io/component=controller,app.kubernetes.io/name=pac-concurrency"
        );
    }
}
