//! The admission webhook: a Deployment of its own, and the configuration that makes the API server
//! ask it what the policies would do by themselves.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pac_pipelines::vocabulary::{HOLD_RUNS, PAC_MANAGER, REPOSITORY};
use serde_json::{Map, Value, json};

use super::api::{ClusterAccess, DEPLOYMENT, Place, SECRET};
use super::apply::LOOK_AGAIN;
use super::error::{InstallError, InstallErrorKind};
use super::manifest::Manifest;
use super::options::{Install, InstallMode};
use super::policies::{self, CANCEL, GATE, NAMESPACE, TAKEOVER, has_annotation};
use super::rbac::{self, Permission};
use super::workload::{self, COMPONENT};
use crate::webhook::{Rule, authorities_in};

/// The port of the Service.
const PORT: u16 = 443;

/// Where the certificate is mounted that others make.
const CERTIFICATE_DIR: &str = "/etc/pac/webhook";

/// What makes cert-manager put the authority of a Certificate into a configuration.
const INJECT: &str = "cert-manager.io/inject-ca-from";

/// How long the API server waits for an answer, in seconds.
const TIMEOUT: u8 = 5;

/// How long the webhook may take until a replica is ready, or acts: its image has to be fetched.
pub(super) const WEBHOOK_BEGINS: Duration = Duration::from_secs(180);

/// The webhook of a mode, in the order in which its objects are applied; none for an observer.
pub(super) fn manifests(install: &Install) -> Vec<Manifest> {
    match install.mode {
        InstallMode::Observe => Vec::new(),
        InstallMode::Takeover | InstallMode::Gate => all(install),
    }
}

/// The objects of the webhook, whatever the mode.
pub(super) fn all(install: &Install) -> Vec<Manifest> {
    let (name, namespace) = (Install::WEBHOOK, install.namespace.as_str());
    let service = json!({
        "selector": selector(),
        "ports": [{"name": "https", "port": PORT, "targetPort": "https"}],
    });
    let (everywhere, in_its_own) = (cluster_wide(install), own_namespace(install));
    let mut manifests = rbac::account(install, name, &everywhere, &in_its_own);
    if install.webhook_certificate.is_none() {
        // Without data: the certificate in it is the webhook's, and stays when this is applied again.
        let secret = Manifest::namespaced("v1", "Secret", namespace, Install::WEBHOOK_SECRET);
        manifests.push(secret.with("type", "Opaque".into()));
    }
    manifests.push(Manifest::namespaced("v1", "Service", namespace, name).with("spec", service));
    manifests.extend(workload::replicated(
        install,
        name,
        &selector(),
        &pod(install),
    ));
    manifests.push(configuration(install));
    manifests
}

/// What makes the API server ask. Its authorities are the webhook's to put in, or cert-manager's.
pub(super) fn configuration(install: &Install) -> Manifest {
    let policies = policies::manifests(install);
    let webhooks = policies
        .iter()
        .filter_map(|policy| webhook(install, policy))
        .collect();
    let configuration = Manifest::cluster_wide(
        "admissionregistration.k8s.io/v1",
        "MutatingWebhookConfiguration",
        Install::WEBHOOK_CONFIGURATION,
    )
    .with("webhooks", Value::Array(webhooks));
    match &install.webhook_certificate {
        Some(certificate) => {
            let from = format!("{}/{certificate}", install.namespace);
            configuration.with_annotation(INJECT, &from)
        }
        None => configuration,
    }
}

/// A configuration as it is applied over what was there before. One that is not there yet waits until a
/// replica of the webhook is ready: a gate that does not answer would have all new runs refused. And it
/// has the authority of the certificate that the webhook has made, so that the webhook is trusted all
/// along; from then on that is the webhook's to change.
///
/// # Errors
/// - `Unsafe` where no replica gets ready: there is no configuration then.
/// - Those of the API server.
pub(super) async fn trusting(
    access: &ClusterAccess,
    install: &Install,
    configuration: &Manifest,
    before: Option<&Value>,
) -> Result<Manifest, InstallError> {
    if before.is_none() {
        wait_for_a_replica(access, install).await?;
    }
    if install.webhook_certificate.is_some() {
        // cert-manager puts the authority in.
        return Ok(configuration.clone());
    }
    let secret = Place::new(SECRET, install.namespace.as_str(), Install::WEBHOOK_SECRET);
    let bundle = match before {
        Some(before) => bundle_of(before),
        None => {
            let secret = access.get(secret).await?;
            let authorities = secret.as_ref().map(authorities_in);
            authorities.map(|authorities| STANDARD.encode(authorities))
        }
    };
    let Some(bundle) = bundle.filter(|bundle| !bundle.is_empty()) else {
        return Ok(configuration.clone());
    };
    let mut webhooks = configuration.as_value().get("webhooks").cloned();
    let all = webhooks.as_mut().and_then(Value::as_array_mut);
    for webhook in all.into_iter().flatten() {
        let client = webhook.get_mut("clientConfig");
        if let Some(client) = client.and_then(Value::as_object_mut) {
            client.insert("caBundle".to_owned(), bundle.as_str().into());
        }
    }
    let webhooks = webhooks.unwrap_or_default();
    Ok(configuration.clone().with("webhooks", webhooks))
}

async fn wait_for_a_replica(access: &ClusterAccess, install: &Install) -> Result<(), InstallError> {
    let began = Instant::now();
    while ready_replicas(access, install).await? == 0 {
        if began.elapsed() > WEBHOOK_BEGINS {
            let message = format!(
                "none of its replicas is ready after {} s, so that the API server does not ask it \
                 yet; see kubectl describe pods --namespace={} and their logs, and run the command \
                 again",
                WEBHOOK_BEGINS.as_secs(),
                install.namespace
            );
            let place = deployment(install);
            return Err(InstallError::new(InstallErrorKind::Unsafe, place, message));
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
    Ok(())
}

/// The authorities that a configuration has, as it has them.
fn bundle_of(configuration: &Value) -> Option<String> {
    let webhooks = configuration.get("webhooks")?.as_array()?;
    let mut bundles = webhooks
        .iter()
        .filter_map(|webhook| webhook.pointer("/clientConfig/caBundle")?.as_str());
    bundles.next().map(str::to_owned)
}

/// How many replicas of the webhook are ready.
pub(super) async fn ready_replicas(
    access: &ClusterAccess,
    install: &Install,
) -> Result<u64, InstallError> {
    let found = access.get(deployment(install)).await?.unwrap_or_default();
    let ready = found.pointer("/status/readyReplicas");
    Ok(ready.and_then(Value::as_u64).unwrap_or_default())
}

/// Where the Deployment of the webhook is.
pub(super) fn deployment(install: &Install) -> Place<'_> {
    Place::new(DEPLOYMENT, install.namespace.as_str(), Install::WEBHOOK)
}

/// What the webhook does in all namespaces: it reads the Repository of a new run, and tells the API
/// server of the authority of a certificate that it makes.
pub(super) fn cluster_wide(install: &Install) -> Vec<Permission> {
    let configuration = Permission {
        group: "admissionregistration.k8s.io",
        resource: "mutatingwebhookconfigurations",
        name: Some(Install::WEBHOOK_CONFIGURATION),
        verbs: &["get", "patch"],
    };
    let repositories = Permission {
        group: PAC_MANAGER,
        resource: "repositories",
        name: None,
        verbs: &["get"],
    };
    let makes_its_own = install.webhook_certificate.is_none();
    let holds = install.mode == InstallMode::Gate;
    let permissions = [(makes_its_own, configuration), (holds, repositories)];
    let needed = permissions.into_iter().filter(|(is_needed, _)| *is_needed);
    needed.map(|(_, permission)| permission).collect()
}

/// What the webhook does in its own namespace: it keeps a certificate that it makes.
pub(super) fn own_namespace(install: &Install) -> Vec<Permission> {
    let secret = Permission {
        group: "",
        resource: "secrets",
        name: Some(Install::WEBHOOK_SECRET),
        verbs: &["get", "patch"],
    };
    match install.webhook_certificate {
        Some(_) => Vec::new(),
        None => vec![secret],
    }
}

/// The labels that select the pods of the webhook. They never change with a version.
fn selector() -> Value {
    json!({"app.kubernetes.io/name": Install::NAME, COMPONENT: "webhook"})
}

fn pod(install: &Install) -> Value {
    let ready = json!({"path": "/readyz", "port": "https", "scheme": "HTTPS"});
    let mut arguments = vec![
        "webhook".to_owned(),
        format!("--address=0.0.0.0:{}", Install::WEBHOOK_PORT),
        format!("--namespace={}", install.namespace),
    ];
    let (mut volumes, mut mounts) = (Vec::new(), Vec::new());
    if install.webhook_certificate.is_some() {
        arguments.push(format!("--certificate-dir={CERTIFICATE_DIR}"));
        let secret = json!({"secretName": Install::WEBHOOK_SECRET});
        volumes.push(json!({"name": "tls", "secret": secret}));
        mounts.push(json!({"name": "tls", "mountPath": CERTIFICATE_DIR, "readOnly": true}));
    }
    let container = json!({
        "name": "webhook",
        "image": install.image,
        "args": arguments,
        "ports": [{"name": "https", "containerPort": Install::WEBHOOK_PORT}],
        // Without a certificate it is alive and not ready: a restart would bring none.
        "livenessProbe": {"tcpSocket": {"port": "https"}},
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5},
        "resources": {
            "requests": {"cpu": "10m", "memory": "32Mi"},
            "limits": {"memory": "128Mi"},
        },
        "securityContext": workload::container_security(),
        "volumeMounts": mounts,
    });
    json!({
        "serviceAccountName": Install::WEBHOOK,
        "enableServiceLinks": false,
        "securityContext": workload::pod_security(),
        "topologySpreadConstraints": workload::apart(&selector()),
        "containers": [container],
        "volumes": volumes,
    })
}

/// The webhook that does what a policy does, for the same objects; `None` for a binding.
fn webhook(install: &Install, policy: &Manifest) -> Option<Value> {
    let rule = match policy.name() {
        TAKEOVER => Rule::Takeover,
        GATE => Rule::Gate,
        NAMESPACE => Rule::Namespace,
        CANCEL => Rule::Cancel,
        _ => return None,
    };
    let spec = policy.as_value().get("spec")?;
    let constraints = spec.get("matchConstraints")?;
    let mut webhook = Map::new();
    let mut set = |field: &str, value: Value| webhook.insert(field.to_owned(), value);
    set("name", policy.name().into());
    set("admissionReviewVersions", json!(["v1"]));
    set(
        "clientConfig",
        json!({"service": {
            "namespace": install.namespace,
            "name": Install::WEBHOOK,
            "path": rule.path(),
            "port": PORT,
        }}),
    );
    set("sideEffects", "None".into());
    set("timeoutSeconds", TIMEOUT.into());
    for field in ["failurePolicy", "reinvocationPolicy"] {
        set(field, spec.get(field)?.clone());
    }
    for field in ["matchPolicy", "namespaceSelector", "objectSelector"] {
        set(field, constraints.get(field)?.clone());
    }
    set("rules", constraints.get("resourceRules")?.clone());
    if rule == Rule::Namespace {
        // The policy looks at annotations of the Namespace, which a webhook does not see.
        let mut namespaces = constraints.get("namespaceSelector")?.clone();
        let labels = json!({HOLD_RUNS: "true"});
        namespaces
            .as_object_mut()?
            .insert("matchLabels".to_owned(), labels);
        set("namespaceSelector", namespaces);
    }
    let conditions = spec.get("matchConditions")?.as_array()?;
    set("matchConditions", conditions_without_params(conditions));
    Some(Value::Object(webhook))
}

/// The conditions of a policy as far as they are about the object alone. That of the Repository,
/// which the policy has as its parameter, is the webhook's to look at; it is asked only where the run
/// has one.
fn conditions_without_params(conditions: &[Value]) -> Value {
    let is_about_params = |condition: &Value| {
        let expression = condition.get("expression").and_then(Value::as_str);
        expression.is_some_and(|expression| expression.contains("params."))
    };
    let (about_params, mut kept): (Vec<Value>, Vec<Value>) =
        conditions.iter().cloned().partition(is_about_params);
    if !about_params.is_empty() {
        kept.push(json!({
            "name": "of-a-repository",
            "expression": has_annotation("object", REPOSITORY),
        }));
    }
    Value::Array(kept)
}

#[cfg(test)]
#[path = "webhook_tests.rs"]
mod tests;
