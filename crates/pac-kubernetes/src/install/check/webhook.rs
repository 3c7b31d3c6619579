//! What changes PipelineRuns on their way into the cluster: the policies, or the webhook.

use serde_json::Value;

use super::super::api::{ClusterAccess, Place, WEBHOOK_CONFIGURATION};
use super::super::compare::difference;
use super::super::error::{InstallError, InstallErrorKind};
use super::super::options::{Admission, Install};
use super::super::webhook::{configuration, deployment, ready_replicas};
use super::{Examined, objects, ok, wrong};

/// Examines whichever of both is installed, and that the other one is not there.
pub(super) async fn admission(access: &ClusterAccess, install: &Install) -> Examined {
    let policies = objects::policies(access, install).await?;
    let place = Place::new(WEBHOOK_CONFIGURATION, None, Install::WEBHOOK_CONFIGURATION);
    let found = access.get(place).await?;
    if install.webhook().is_empty() {
        if found.is_none() {
            return Ok(policies);
        }
        let message = match install.admission {
            Admission::Policy => {
                "is there beside the policies; remove it, or say --admission=webhook"
            }
            Admission::Webhook => "is there, and the mode observe has none; remove it",
        };
        return wrong(place, message);
    }
    for manifest in &install.webhook() {
        if access.get(Place::of(manifest)?).await?.is_none() {
            let message =
                "is not there; apply it: pac kubernetes install --admission=webhook --apply";
            return wrong(manifest, message);
        }
    }
    is_as_wanted(install, &found.unwrap_or_default())?;
    let ready = is_ready(access, install).await?;
    ok(format!(
        "the webhook is configured as this version installs it, and {ready} of its replicas are ready"
    ))
}

/// That the configuration is what this version installs, and has the authority of the certificate.
fn is_as_wanted(install: &Install, found: &Value) -> Result<(), InstallError> {
    let wanted = configuration(install);
    let failure = |message: String| {
        Err(InstallError::new(
            InstallErrorKind::Unsafe,
            &wanted,
            message,
        ))
    };
    let mut webhooks = found.get("webhooks").cloned().unwrap_or_default();
    let mut authorities = Vec::new();
    for webhook in webhooks.as_array_mut().into_iter().flatten() {
        let client = webhook
            .get_mut("clientConfig")
            .and_then(Value::as_object_mut);
        authorities.push(client.and_then(|client| client.remove("caBundle")));
    }
    let wanted_webhooks = wanted.as_value().get("webhooks").unwrap_or(&Value::Null);
    if let Some(path) = difference(wanted_webhooks, &webhooks) {
        return failure(format!(
            "its webhooks{path} is not what this version installs; apply it again: pac kubernetes \
             install --admission=webhook --apply"
        ));
    }
    if authorities.iter().any(Option::is_none) {
        let puts_it_in = match &install.webhook_certificate {
            Some(certificate) => {
                format!(
                    "cert-manager puts that of the Certificate {certificate} in: see its cainjector"
                )
            }
            None => format!(
                "the webhook puts it in: see kubectl logs deployment/{} --namespace={}",
                Install::WEBHOOK,
                install.namespace
            ),
        };
        return failure(format!(
            "has no caBundle, so that the API server trusts no answer; {puts_it_in}"
        ));
    }
    Ok(())
}

/// How many replicas are ready; at least one has to be.
async fn is_ready(access: &ClusterAccess, install: &Install) -> Result<u64, InstallError> {
    match ready_replicas(access, install).await? {
        ready if ready > 0 => Ok(ready),
        _ => {
            let place = deployment(install);
            let message = format!(
                "none of its replicas is ready: in the mode gate no PipelineRun can be created, in the \
                 mode takeover orders stay with Pipelines-as-Code; see kubectl describe pods \
                 --namespace={} and their logs",
                install.namespace
            );
            Err(InstallError::new(InstallErrorKind::Unsafe, place, message))
        }
    }
}
