//! The webhook asks about the same objects as the policies, and may do what it needs.

use pac_pipelines::vocabulary::{EXECUTION_ORDER, HOLD_RUNS, KUEUE_QUEUE, MANAGED_BY};

use super::*;
use crate::install::Admission;

fn install(mode: InstallMode) -> Install {
    Install::default()
        .with_admission(Admission::Webhook)
        .with_mode(mode)
        .with_cancel_at_once(true)
        .with_excluded_namespace("sandbox")
}

fn webhooks(mode: InstallMode) -> Vec<Value> {
    let configuration = configuration(&install(mode));
    assert_eq!(configuration.name(), Install::WEBHOOK_CONFIGURATION);
    configuration.as_value()["webhooks"]
        .as_array()
        .unwrap()
        .clone()
}

/// The names of the conditions.
fn conditions(webhook: &Value) -> Vec<&str> {
    let all = webhook["matchConditions"].as_array().unwrap();
    all.iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect()
}

#[test]
fn each_policy_has_its_webhook_with_the_same_selection() {
    let cancel = (CANCEL, "/cancel");
    let takeover = vec![(TAKEOVER, "/takeover"), cancel];
    let gate = vec![(GATE, "/gate"), (NAMESPACE, "/namespace"), cancel];
    for (mode, expected) in [(InstallMode::Takeover, takeover), (InstallMode::Gate, gate)] {
        let webhooks = webhooks(mode);
        assert_eq!(webhooks.len(), expected.len());
        for (webhook, (name, path)) in webhooks.iter().zip(expected) {
            assert_eq!(webhook["name"], name);
            let service = json!({
                "namespace": "pac-concurrency", "name": "pac-concurrency-webhook", "path": path,
                "port": 443,
            });
            assert_eq!(webhook["clientConfig"], json!({"service": service}));
            assert_eq!(webhook["sideEffects"], "None");
            assert_eq!(webhook["timeoutSeconds"], 5);
            assert_eq!(webhook["admissionReviewVersions"], json!(["v1"]));
            assert_eq!(webhook["reinvocationPolicy"], "Never");
            assert_eq!(webhook["matchPolicy"], "Equivalent");
            let excluded = &webhook["namespaceSelector"]["matchExpressions"][0];
            assert_eq!(excluded["values"], json!(["sandbox"]));
            assert_eq!(webhook["rules"][0]["resources"], json!(["pipelineruns"]));
        }
    }
    let [takeover, cancel] = &webhooks(InstallMode::Takeover)[..] else {
        panic!("two");
    };
    assert_eq!(takeover["failurePolicy"], "Ignore");
    assert_eq!(
        takeover["rules"][0]["operations"],
        json!(["CREATE", "UPDATE"])
    );
    let of_pac = json!({"matchLabels": {MANAGED_BY: PAC_MANAGER}});
    assert_eq!(takeover["objectSelector"], of_pac);
    assert_eq!(conditions(takeover), ["has-execution-order"]);
    let expression = &takeover["matchConditions"][0]["expression"];
    assert!(expression.as_str().unwrap().contains(EXECUTION_ORDER));
    assert_eq!(cancel["failurePolicy"], "Ignore");
    assert_eq!(cancel["rules"][0]["operations"], json!(["UPDATE"]));
    assert_eq!(
        conditions(cancel),
        ["of-a-queue", "was-held", "is-cancelled-gracefully"]
    );
    let gate = &webhooks(InstallMode::Gate)[0];
    assert_eq!(gate["failurePolicy"], "Fail");
    assert_eq!(gate["rules"][0]["operations"], json!(["CREATE"]));
    let not_of_kueue = json!([{"key": KUEUE_QUEUE, "operator": "DoesNotExist"}]);
    assert_eq!(gate["objectSelector"]["matchExpressions"], not_of_kueue);
    // A webhook has no parameters: an expression about them would be refused.
    assert_eq!(conditions(gate), ["not-held-by-others", "of-a-repository"]);
    assert!(!gate.to_string().contains("params"), "{gate}");
    let namespace = &webhooks(InstallMode::Gate)[1];
    assert_eq!(namespace["failurePolicy"], "Fail");
    let labelled = json!({HOLD_RUNS: "true"});
    assert_eq!(namespace["namespaceSelector"]["matchLabels"], labelled);
    assert_eq!(namespace["objectSelector"], gate["objectSelector"]);
    assert_eq!(
        conditions(namespace),
        ["not-held-by-others", "not-made-by-another-run"]
    );
}

#[test]
fn the_configuration_comes_last_and_an_observer_has_no_webhook() {
    let kinds = |install: &Install| -> Vec<String> {
        let manifests = install.webhook();
        manifests.iter().map(|one| one.kind().to_owned()).collect()
    };
    assert_eq!(
        kinds(&install(InstallMode::Takeover)),
        [
            "ServiceAccount",
            "ClusterRole",
            "ClusterRoleBinding",
            "Role",
            "RoleBinding",
            "Secret",
            "Service",
            "PodDisruptionBudget",
            "Deployment",
            "MutatingWebhookConfiguration",
        ]
    );
    assert_eq!(kinds(&install(InstallMode::Observe)), [] as [String; 0]);
    assert_eq!(kinds(&Install::default()), [] as [String; 0]);
    let all = install(InstallMode::Gate).manifests();
    assert!(!all.iter().any(|one| one.kind().contains("Policy")));
    // It is removed first, so that nothing is asked that does not answer.
    let removals = Install::default().removals();
    let at = |kind: &str, name: &str| {
        let found = removals
            .iter()
            .position(|one| one.kind() == kind && one.name() == name);
        found.unwrap()
    };
    let configuration = at(
        "MutatingWebhookConfiguration",
        Install::WEBHOOK_CONFIGURATION,
    );
    assert!(configuration < at("Deployment", Install::WEBHOOK));
    assert!(at("Deployment", Install::NAME) < configuration);
}

#[test]
fn the_webhook_may_do_exactly_what_it_needs() {
    let rules = |mode: InstallMode, kind: &str| {
        let manifests = manifests(&install(mode));
        let role = manifests.iter().find(|one| one.kind() == kind).unwrap();
        assert_eq!(role.name(), Install::WEBHOOK);
        role.as_value()["rules"].clone()
    };
    let own = json!({
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": ["mutatingwebhookconfigurations"], "verbs": ["get", "patch"],
        "resourceNames": [Install::WEBHOOK_CONFIGURATION],
    });
    let repositories = json!({
        "apiGroups": [PAC_MANAGER], "resources": ["repositories"], "verbs": ["get"],
    });
    assert_eq!(rules(InstallMode::Takeover, "ClusterRole"), json!([own]));
    assert_eq!(
        rules(InstallMode::Gate, "ClusterRole"),
        json!([own, repositories])
    );
    let secret = json!({
        "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "patch"],
        "resourceNames": [Install::WEBHOOK_SECRET],
    });
    assert_eq!(rules(InstallMode::Gate, "Role"), json!([secret]));
}

/// Whatever is in the Secret is the webhook's; and its pods have no settings and no store.
#[test]
fn no_certificate_is_installed_and_no_store_is_reached() {
    let manifests = manifests(&install(InstallMode::Gate));
    let of = |kind: &str| manifests.iter().find(|one| one.kind() == kind).unwrap();
    assert!(of("Secret").as_value().get("data").is_none());
    let spec = &of("Deployment").as_value()["spec"];
    assert_eq!(spec["replicas"], 2);
    let pod = &spec["template"]["spec"];
    assert_eq!(pod["volumes"], json!([]));
    assert_eq!(pod["serviceAccountName"], Install::WEBHOOK);
    assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
    let container = &pod["containers"][0];
    assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    assert_eq!(
        container["args"],
        json!([
            "webhook",
            "--address=0.0.0.0:8443",
            "--namespace=pac-concurrency"
        ])
    );
    let labels = &spec["template"]["metadata"]["labels"];
    for selector in [
        &spec["selector"]["matchLabels"],
        &of("Service").as_value()["spec"]["selector"],
    ] {
        for (key, value) in selector.as_object().unwrap() {
            assert_eq!(labels[key], *value);
        }
        // The pods of the controller are none of it.
        assert_ne!(selector, &workload::selector());
    }
}

/// Then neither the Secret nor the configuration is the webhook's to change.
#[test]
fn with_the_certificate_of_cert_manager_less_is_installed_and_allowed() {
    let install = install(InstallMode::Gate)
        .with_namespace("queues")
        .with_webhook_certificate("webhook");
    let manifests = manifests(&install);
    let of = |kind: &str| manifests.iter().find(|one| one.kind() == kind);
    assert!(of("Secret").is_none());
    assert_eq!(of("Role").unwrap().as_value()["rules"], json!([]));
    let rules = &of("ClusterRole").unwrap().as_value()["rules"];
    assert_eq!(rules.as_array().unwrap().len(), 1);
    assert_eq!(rules[0]["resources"], json!(["repositories"]));
    let configuration = of("MutatingWebhookConfiguration").unwrap().as_value();
    assert_eq!(
        configuration["metadata"]["annotations"],
        json!({"cert-manager.io/inject-ca-from": "queues/webhook"})
    );
    let pod = &of("Deployment").unwrap().as_value()["spec"]["template"]["spec"];
    assert_eq!(
        pod["volumes"],
        json!([{"name": "tls", "secret": {"secretName": Install::WEBHOOK_SECRET}}])
    );
    let container = &pod["containers"][0];
    let mount = &container["volumeMounts"][0];
    let argument = format!("--certificate-dir={}", mount["mountPath"].as_str().unwrap());
    assert!(
        container["args"]
            .as_array()
            .unwrap()
            .contains(&json!(argument))
    );
    // A Secret of ours that was there before is removed all the same.
    let removed = install.removals();
    assert!(removed.iter().any(|one| one.kind() == "Secret"));
}
