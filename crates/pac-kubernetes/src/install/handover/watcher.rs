//! The watcher of Pipelines-as-Code: whether it is stopped.

use super::super::api::{ClusterAccess, DEPLOYMENT, Place};
use super::super::apply::{labels_of, pod_names, replicas};
use super::super::error::InstallError;
use super::super::runs::some_of;
use super::{HandoverOptions, StepOutcome, Steps, unsafe_step};

/// What says that the watcher is stopped.
pub(super) const STEP: &str = "watcher";

/// The step of making sure that the watcher is stopped.
pub(super) async fn make_sure(
    access: &ClusterAccess,
    options: &HandoverOptions,
    steps: Steps<'_>,
) -> Result<(), InstallError> {
    is_stopped(access, options).await?;
    steps(STEP, StepOutcome::Holds, "scaled to 0, without a pod");
    Ok(())
}

/// That the watcher is scaled to 0 and has no pod.
pub(super) async fn is_stopped(
    access: &ClusterAccess,
    options: &HandoverOptions,
) -> Result<(), InstallError> {
    let place = Place::new(DEPLOYMENT, options.pac_namespace.as_str(), &options.watcher);
    let Some(deployment) = access.get(place).await? else {
        let message = format!(
            "there is no {place}, so that nothing proves that the watcher is stopped; name its \
             namespace with --pac-namespace, and the Deployment with --watcher"
        );
        return Err(unsafe_step(STEP, message));
    };
    if replicas(&deployment) > 0 {
        let message = format!(
            "it must be stopped first, since it would start runs beside those that it does not count: \
             {}, and run this again; where an operator scales it up again, tell the operator",
            scale(options, 0)
        );
        return Err(unsafe_step(STEP, message));
    }
    let labels = deployment.pointer("/spec/selector/matchLabels");
    let labels = labels.map(labels_of).filter(|labels| !labels.is_empty());
    let Some(labels) = labels else {
        let message =
            format!("{place} selects its pods by no labels, so that they cannot be found");
        return Err(unsafe_step(STEP, message));
    };
    let pods = pod_names(access, &options.pac_namespace, &labels).await?;
    if pods.is_empty() {
        return Ok(());
    }
    let message = format!(
        "its pods have not ended yet: {}; run this again in some seconds",
        some_of(&pods)
    );
    Err(unsafe_step(STEP, message))
}

/// The command that scales the watcher.
pub(super) fn scale(options: &HandoverOptions, replicas: u32) -> String {
    format!(
        "kubectl scale deployment/{} --namespace={} --replicas={replicas}",
        options.watcher, options.pac_namespace
    )
}
