//! The controller's Deployment, and how many of its pods may be away at once.

use serde_json::{Value, json};

use super::manifest::Manifest;
use super::options::Install;

/// The label that the pods of the controller are selected by, beside the name.
pub(super) const COMPONENT: &str = "app.kubernetes.io/component";

/// The port that answers `/healthz` and `/readyz`.
const HEALTH_PORT: u16 = 8080;

/// The labels that select the pods of the controller. They never change with a version.
pub(super) fn selector() -> Value {
    json!({"app.kubernetes.io/name": Install::NAME, COMPONENT: "controller"})
}

/// The budget and the Deployment.
pub(super) fn manifests(install: &Install) -> Vec<Manifest> {
    replicated(install, Install::NAME, &selector(), &pod(install))
}

/// A Deployment of pods that these labels select, and their budget.
pub(super) fn replicated(
    install: &Install,
    name: &str,
    selector: &Value,
    pod: &Value,
) -> Vec<Manifest> {
    let namespace = install.namespace.as_str();
    let budget = json!({
        // At most one is away at a time: with one replica alone a node can still be drained.
        "maxUnavailable": 1,
        "selector": {"matchLabels": selector},
    });
    vec![
        Manifest::namespaced("policy/v1", "PodDisruptionBudget", namespace, name)
            .with("spec", budget),
        Manifest::namespaced("apps/v1", "Deployment", namespace, name)
            .with("spec", deployment(install, selector, pod)),
    ]
}

/// What a pod may do on its node: nothing.
pub(super) fn pod_security() -> Value {
    json!({
        // Its number is that of the image: OpenShift gives each namespace numbers of its own, and
        // refuses others.
        "runAsNonRoot": true,
        "seccompProfile": {"type": "RuntimeDefault"},
    })
}

/// What a container may do: nothing.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}

/// Pods of these labels rather on different nodes.
pub(super) fn apart(selector: &Value) -> Value {
    json!([{
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": selector},
    }])
}

fn deployment(install: &Install, selector: &Value, pod: &Value) -> Value {
    let mut labels = selector.clone();
    let version = [
        ("app.kubernetes.io/part-of", Install::NAME),
        ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION")),
    ];
    if let Some(labels) = labels.as_object_mut() {
        labels.extend(version.map(|(key, value)| (key.to_owned(), value.into())));
    }
    json!({
        "replicas": install.replicas,
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {"labels": labels},
            "spec": pod,
        },
    })
}

fn pod(install: &Install) -> Value {
    json!({
        "serviceAccountName": Install::NAME,
        // Their variables (PAC_POSTGRESQL_PORT=tcp://…) look like settings.
        "enableServiceLinks": false,
        "securityContext": pod_security(),
        "topologySpreadConstraints": apart(&selector()),
        "containers": [container(install)],
        "volumes": [
            {"name": "config", "configMap": {"name": Install::CONFIG_MAP}},
            // Without it no pod starts, and its events say so.
            {"name": "secret", "secret": {"secretName": Install::SECRET}},
            {"name": "tls", "secret": {"secretName": Install::TLS_SECRET, "optional": true}},
        ],
    })
}

fn container(install: &Install) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "health"}});
    json!({
        "name": "controller",
        "image": install.image,
        "args": arguments(install),
        "ports": [{"name": "health", "containerPort": HEALTH_PORT}],
        "livenessProbe": probe("/healthz"),
        "readinessProbe": probe("/readyz"),
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi"},
            "limits": {"memory": "256Mi"},
        },
        "securityContext": container_security(),
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/pac/config", "readOnly": true},
            {"name": "secret", "mountPath": "/etc/pac/secret", "readOnly": true},
            {"name": "tls", "mountPath": "/etc/pac/tls", "readOnly": true},
        ],
    })
}

/// The arguments of `pac`.
fn arguments(install: &Install) -> Vec<String> {
    let mut arguments = vec![
        "--config=/etc/pac/config".to_owned(),
        "--config=/etc/pac/secret".to_owned(),
        "controller".to_owned(),
        format!("--mode={}", install.mode.name()),
        format!("--health-address=0.0.0.0:{HEALTH_PORT}"),
    ];
    let pac = install.pac_namespace();
    let [usual, _] = Install::PAC_NAMESPACES;
    if pac != usual {
        arguments.push(format!("--global-repository={pac}/pipelines-as-code"));
    }
    if install.shows_queues() {
        arguments.push("--queues".to_owned());
    }
    let excluded = install.excluded_namespaces.iter();
    arguments.extend(excluded.map(|namespace| format!("--exclude-namespace={namespace}")));
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::InstallMode;

    fn spec(install: &Install) -> Value {
        let manifests = manifests(install);
        manifests[1].as_value()["spec"].clone()
    }

    #[test]
    fn the_controller_may_do_nothing_on_its_node() {
        let pod = &spec(&Install::default())["template"]["spec"];
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(
            pod["securityContext"]["seccompProfile"]["type"],
            "RuntimeDefault"
        );
        let container = &pod["containers"][0]["securityContext"];
        assert_eq!(container["readOnlyRootFilesystem"], true);
        assert_eq!(container["allowPrivilegeEscalation"], false);
        assert_eq!(container["capabilities"]["drop"], json!(["ALL"]));
        for field in ["hostNetwork", "hostPID", "hostIPC"] {
            assert!(pod.get(field).is_none());
        }
    }

    #[test]
    fn pods_are_selected_by_labels_that_they_have_and_that_no_version_changes() {
        let spec = spec(&Install::default());
        let wanted = spec["selector"]["matchLabels"].as_object().unwrap();
        assert!(!wanted.contains_key("app.kubernetes.io/version"));
        for (key, value) in wanted {
            assert_eq!(spec["template"]["metadata"]["labels"][key], *value);
        }
        let budget = manifests(&Install::default());
        assert_eq!(budget[0].as_value()["spec"]["selector"], spec["selector"]);
    }

    #[test]
    fn what_is_asked_for_reaches_the_controller() {
        let install = Install::default()
            .with_mode(InstallMode::Gate)
            .with_replicas(3)
            .with_image("registry.example.com/pac:1")
            .with_queues(true)
            .with_excluded_namespace("sandbox");
        let spec = spec(&install);
        assert_eq!(spec["replicas"], 3);
        let container = &spec["template"]["spec"]["containers"][0];
        assert_eq!(container["image"], "registry.example.com/pac:1");
        let arguments = json!([
            "--config=/etc/pac/config",
            "--config=/etc/pac/secret",
            "controller",
            "--mode=gate",
            "--health-address=0.0.0.0:8080",
            "--queues",
            "--exclude-namespace=sandbox",
        ]);
        assert_eq!(container["args"], arguments);
    }

    #[test]
    fn both_probes_ask_the_port_of_health() {
        let container = &spec(&Install::default())["template"]["spec"]["containers"][0];
        for (probe, path) in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            assert_eq!(
                container[probe]["httpGet"],
                json!({"path": path, "port": "health"})
            );
        }
        assert_eq!(container["ports"][0]["name"], "health");
    }
}
