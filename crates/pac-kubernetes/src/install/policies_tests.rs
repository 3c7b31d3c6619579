//! What the policies match and change, as it was tried beside Pipelines-as-Code on an API server.

use super::*;

/// The spec of a policy, and that of its binding.
fn specs(install: &Install, name: &str) -> (Value, Value) {
    let manifests = manifests(install);
    let spec = |kind: &str| {
        let found = manifests
            .iter()
            .find(|one| one.kind() == kind && one.name() == name);
        let found = found.unwrap_or_else(|| panic!("{kind} {name}"));
        assert_eq!(found.api_version(), "admissionregistration.k8s.io/v1");
        assert_eq!(found.namespace(), None);
        found.as_value()["spec"].clone()
    };
    (
        spec("MutatingAdmissionPolicy"),
        spec("MutatingAdmissionPolicyBinding"),
    )
}

fn in_mode(mode: InstallMode) -> Install {
    Install::default().with_mode(mode)
}

/// The names of the policies' objects: each policy comes before its binding.
fn names(install: &Install) -> Vec<(String, String)> {
    let manifests = manifests(install);
    let name = |one: &Manifest| (one.kind().to_owned(), one.name().to_owned());
    manifests.iter().map(name).collect()
}

fn condition<'a>(spec: &'a Value, name: &str) -> &'a str {
    let conditions = spec["matchConditions"].as_array().unwrap();
    let found = conditions.iter().find(|one| one["name"] == name);
    found.unwrap_or_else(|| panic!("{name}"))["expression"]
        .as_str()
        .unwrap()
}

/// The one patch of a policy, with a single blank between words.
fn patch(spec: &Value) -> String {
    let mutations = spec["mutations"].as_array().unwrap();
    assert_eq!(mutations.len(), 1);
    assert_eq!(mutations[0]["patchType"], "JSONPatch");
    let text = mutations[0]["jsonPatch"]["expression"].as_str().unwrap();
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn each_mode_has_its_policy_and_an_observer_has_none() {
    let both = |name: &str| {
        [
            ("MutatingAdmissionPolicy".to_owned(), name.to_owned()),
            ("MutatingAdmissionPolicyBinding".to_owned(), name.to_owned()),
        ]
    };
    assert_eq!(names(&in_mode(InstallMode::Takeover)), both(TAKEOVER));
    let gate = names(&in_mode(InstallMode::Gate));
    assert_eq!(
        (&gate[..2], &gate[2..]),
        (&both(GATE)[..], &both(NAMESPACE)[..])
    );
    for at_once in [false, true] {
        let observe = in_mode(InstallMode::Observe).with_cancel_at_once(at_once);
        assert_eq!(names(&observe), []);
    }
    let with_cancel = in_mode(InstallMode::Takeover).with_cancel_at_once(true);
    assert_eq!(names(&with_cancel)[..2], both(TAKEOVER));
    assert_eq!(names(&with_cancel)[2..], both(CANCEL));
}

/// The order comes with an update after the creation, and lands as ours with its value; that of
/// Pipelines-as-Code is gone, and runs of others are left alone. Without the policy the limit is
/// still kept, by the queue of Pipelines-as-Code: so a failure is ignored.
#[test]
fn takeover_moves_the_order_of_runs_of_pipelines_as_code() {
    let (spec, binding) = specs(&in_mode(InstallMode::Takeover), TAKEOVER);
    assert_eq!(spec["failurePolicy"], "Ignore");
    let constraints = &spec["matchConstraints"];
    let rule = json!([{
        "apiGroups": ["tekton.dev"], "apiVersions": ["v1"], "operations": ["CREATE", "UPDATE"],
        "resources": ["pipelineruns"], "scope": "*",
    }]);
    assert_eq!(constraints["resourceRules"], rule);
    let of_pac = json!({"matchLabels": {MANAGED_BY: PAC_MANAGER}});
    assert_eq!(constraints["objectSelector"], of_pac);
    assert_eq!(
        condition(&spec, "has-execution-order"),
        format!(
            "has(object.metadata.annotations) && \"{EXECUTION_ORDER}\" in \
             object.metadata.annotations"
        )
    );
    assert_eq!(
        patch(&spec),
        format!(
            "[ JSONPatch{{ op: \"add\", path: \"/metadata/annotations/\" + \
             jsonpatch.escapeKey(\"{OUR_EXECUTION_ORDER}\"), value: \
             object.metadata.annotations[\"{EXECUTION_ORDER}\"] }}, JSONPatch{{ op: \"remove\", \
             path: \"/metadata/annotations/\" + jsonpatch.escapeKey(\"{EXECUTION_ORDER}\") }} ]"
        )
    );
    assert_eq!(binding, json!({"policyName": TAKEOVER}));
}

/// A run of a Repository with our limit is held at its creation and marked; a run that its user
/// created pending is not marked, and one with Kueue's label is Kueue's. A run that cannot be
/// looked at is refused: it would be beyond the limit.
#[test]
fn gate_holds_runs_of_repositories_with_our_limit() {
    let (spec, binding) = specs(&in_mode(InstallMode::Gate), GATE);
    assert_eq!(spec["failurePolicy"], "Fail");
    let constraints = &spec["matchConstraints"];
    assert_eq!(
        constraints["resourceRules"][0]["operations"],
        json!(["CREATE"])
    );
    let selector = &constraints["objectSelector"]["matchExpressions"][0];
    assert_eq!(
        *selector,
        json!({"key": KUEUE_QUEUE, "operator": "DoesNotExist"})
    );
    let repository =
        json!({"apiVersion": "pipelinesascode.tekton.dev/v1alpha1", "kind": "Repository"});
    assert_eq!(spec["paramKind"], repository);
    assert_eq!(
        condition(&spec, "not-held-by-others"),
        "!has(object.spec.status) || object.spec.status == \"\""
    );
    assert_eq!(
        condition(&spec, "of-this-repository"),
        format!(
            "has(object.metadata.annotations) && \"{REPOSITORY}\" in object.metadata.annotations \
             && object.metadata.annotations[\"{REPOSITORY}\"] == params.metadata.name"
        )
    );
    assert_eq!(
        condition(&spec, "repository-has-limit"),
        format!("has(params.metadata.annotations) && \"{LIMIT}\" in params.metadata.annotations")
    );
    assert_eq!(
        patch(&spec),
        format!(
            "[ JSONPatch{{ op: \"add\", path: \"/spec/status\", value: \"{PENDING}\" }}, \
             JSONPatch{{ op: \"add\", path: \"/metadata/annotations/\" + \
             jsonpatch.escapeKey(\"{HELD}\"), value: \"true\" }} ]"
        )
    );
    let params = json!({"selector": {}, "parameterNotFoundAction": "Allow"});
    assert_eq!(binding, json!({"policyName": GATE, "paramRef": params}));
}

/// The Namespace is looked at where the API server fills it in: in the patch, and in no condition.
/// A run without any annotation gets them all at once, since nothing can be added below what is
/// not there; a run that another run waits for is not held, nor is one that its user holds.
#[test]
fn gate_holds_runs_of_namespaces_with_a_limit() {
    let (spec, binding) = specs(&in_mode(InstallMode::Gate), NAMESPACE);
    assert_eq!(spec["failurePolicy"], "Fail");
    assert_eq!(spec.get("paramKind"), None);
    let conditions = spec["matchConditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 2);
    for condition in conditions {
        let expression = condition["expression"].as_str().unwrap();
        assert!(!expression.contains("namespaceObject"), "{expression}");
    }
    assert_eq!(
        condition(&spec, "not-held-by-others"),
        "!has(object.spec.status) || object.spec.status == \"\""
    );
    assert_eq!(
        condition(&spec, "not-made-by-another-run"),
        "!has(object.metadata.ownerReferences) || !object.metadata.ownerReferences.exists(owner, \
         owner.kind in [\"PipelineRun\", \"CustomRun\"])"
    );
    let [limit, lane_limit] = NAMESPACE_LIMITS;
    let annotations = "namespaceObject.metadata.annotations";
    assert_eq!(
        patch(&spec),
        format!(
            "has({annotations}) && (\"{limit}\" in {annotations} || \"{lane_limit}\" in \
             {annotations}) ? [ JSONPatch{{ op: \"add\", path: \"/spec/status\", value: \
             \"{PENDING}\" }} ] + ( has(object.metadata.annotations) ? [ JSONPatch{{ op: \"add\", \
             path: \"/metadata/annotations/\" + jsonpatch.escapeKey(\"{HELD}\"), value: \"true\" \
             }} ] : [ JSONPatch{{ op: \"add\", path: \"/metadata/annotations\", value: \
             {{\"{HELD}\": \"true\"}} }} ] ) : []"
        )
    );
    assert_eq!(binding, json!({"policyName": NAMESPACE}));
}

/// Tekton runs the `finally` tasks of a held run that is cancelled gracefully, and none of one
/// that is `Cancelled`.
#[test]
fn cancel_ends_a_held_run_at_once_and_no_other() {
    let install = in_mode(InstallMode::Gate).with_cancel_at_once(true);
    let (spec, binding) = specs(&install, CANCEL);
    assert_eq!(spec["failurePolicy"], "Ignore");
    let rule = &spec["matchConstraints"]["resourceRules"][0];
    assert_eq!(rule["operations"], json!(["UPDATE"]));
    assert_eq!(
        condition(&spec, "was-held"),
        format!("has(oldObject.spec.status) && oldObject.spec.status == \"{PENDING}\"")
    );
    assert_eq!(
        condition(&spec, "is-cancelled-gracefully"),
        format!(
            "has(object.spec.status) && object.spec.status in [\"{CANCELLED_RUN_FINALLY}\", \
             \"{STOPPED_RUN_FINALLY}\"]"
        )
    );
    assert!(condition(&spec, "of-a-queue").contains(REPOSITORY));
    assert_eq!(
        patch(&spec),
        format!(
            "[ JSONPatch{{ op: \"replace\", path: \"/spec/status\", value: \"{CANCELLED}\" }} ]"
        )
    );
    assert_eq!(binding, json!({"policyName": CANCEL}));
}

#[test]
fn excluded_namespaces_are_left_alone_by_every_policy() {
    for (mode, name) in [
        (InstallMode::Takeover, TAKEOVER),
        (InstallMode::Gate, GATE),
        (InstallMode::Gate, NAMESPACE),
    ] {
        let install = in_mode(mode)
            .with_cancel_at_once(true)
            .with_excluded_namespace("sandbox")
            .with_excluded_namespace("kueue");
        let not_in = json!({"matchExpressions": [{
            "key": "kubernetes.io/metadata.name", "operator": "NotIn",
            "values": ["kueue", "sandbox"],
        }]});
        for policy in [name, CANCEL] {
            let (spec, _) = specs(&install, policy);
            assert_eq!(spec["matchConstraints"]["namespaceSelector"], not_in);
        }
    }
}

/// The API server knows no name that is longer, or has other characters.
#[test]
fn names_are_those_of_subdomains() {
    for name in NAMES {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
        assert!(name.len() <= 253 && name.chars().all(allowed), "{name}");
    }
}
