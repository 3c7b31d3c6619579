//! The admission policies: what the API server itself changes about PipelineRuns. They need no
//! service and no certificate, and hold whether the controller is there or not.
//!
//! All of them are about `tekton.dev/v1`. Whatever a policy leaves to a default of the API server
//! is written out, so that what is installed can be compared with what is there.

use pac_pipelines::vocabulary::{
    CANCELLED, CANCELLED_RUN_FINALLY, EXECUTION_ORDER, HELD, KUEUE_QUEUE, LIMIT, MANAGED_BY,
    NAMESPACE_LIMITS, OUR_EXECUTION_ORDER, PAC_MANAGER, PENDING, REPOSITORY, STOPPED_RUN_FINALLY,
};
use serde_json::{Value, json};

use super::manifest::Manifest;
use super::options::{Install, InstallMode};

const ADMISSION: &str = "admissionregistration.k8s.io/v1";

/// The policy of the mode takeover, and its binding.
pub(super) const TAKEOVER: &str = "takeover.concurrency.pipelinesascode.tekton.dev";

/// The policy of the mode gate, and its binding.
pub(super) const GATE: &str = "gate.concurrency.pipelinesascode.tekton.dev";

/// The policy of the mode gate about Namespaces with a limit, and its binding.
pub(super) const NAMESPACE: &str = "namespace.concurrency.pipelinesascode.tekton.dev";

/// The policy about runs that are cancelled before they have started, and its binding.
pub(super) const CANCEL: &str = "cancel.concurrency.pipelinesascode.tekton.dev";

/// All names of policies, of every mode.
pub(super) const NAMES: [&str; 4] = [TAKEOVER, GATE, NAMESPACE, CANCEL];

/// The policies that are asked for, each before its binding.
pub(super) fn manifests(install: &Install) -> Vec<Manifest> {
    let mut policies = match install.mode {
        InstallMode::Takeover => takeover(install).to_vec(),
        InstallMode::Gate => [gate(install), namespace(install)].concat(),
        InstallMode::Observe => return Vec::new(),
    };
    if install.cancel_at_once {
        policies.extend(cancel(install));
    }
    policies
}

/// The policies of every mode.
pub(super) fn all(install: &Install) -> Vec<Manifest> {
    [
        takeover(install),
        gate(install),
        namespace(install),
        cancel(install),
    ]
    .concat()
}

/// Moves the execution order out of the sight of the queue of Pipelines-as-Code, which starts
/// nothing without it. If this fails, that queue acts as it does without the policy.
fn takeover(install: &Install) -> [Manifest; 2] {
    let of_pac = json!({"matchLabels": {MANAGED_BY: PAC_MANAGER}});
    let mut spec = policy(
        install,
        "Ignore",
        &["CREATE", "UPDATE"],
        &of_pac,
        &format!(
            "[\n  JSONPatch{{\n    op: \"add\",\n    path: {},\n    value: {}\n  }},\n  \
             JSONPatch{{\n    op: \"remove\",\n    path: {}\n  }}\n]",
            annotation_path(OUR_EXECUTION_ORDER),
            annotation("object", EXECUTION_ORDER),
            annotation_path(EXECUTION_ORDER),
        ),
    );
    set(
        &mut spec,
        "matchConditions",
        json!([
            {"name": "has-execution-order", "expression": has_annotation("object", EXECUTION_ORDER)},
        ]),
    );
    [
        Manifest::cluster_wide(ADMISSION, "MutatingAdmissionPolicy", TAKEOVER).with("spec", spec),
        binding(TAKEOVER, None),
    ]
}

/// Holds a new run back whose Repository bears our limit, unless its user or Kueue holds it back.
/// If this fails, the run is refused: it would be beyond the limit.
fn gate(install: &Install) -> [Manifest; 2] {
    let not_of_kueue =
        json!({"matchExpressions": [{"key": KUEUE_QUEUE, "operator": "DoesNotExist"}]});
    let mut spec = policy(
        install,
        "Fail",
        &["CREATE"],
        &not_of_kueue,
        &format!(
            "[\n  JSONPatch{{\n    op: \"add\",\n    path: \"/spec/status\",\n    value: \
             \"{PENDING}\"\n  }},\n  JSONPatch{{\n    op: \"add\",\n    path: {},\n    value: \
             \"true\"\n  }}\n]",
            annotation_path(HELD),
        ),
    );
    set(
        &mut spec,
        "paramKind",
        json!({
            "apiVersion": format!("{PAC_MANAGER}/v1alpha1"),
            "kind": "Repository",
        }),
    );
    set(
        &mut spec,
        "matchConditions",
        json!([
            not_held_by_others(),
            {
                "name": "of-this-repository",
                "expression": format!(
                    "{} && {} == params.metadata.name",
                    has_annotation("object", REPOSITORY),
                    annotation("object", REPOSITORY),
                ),
            },
            {"name": "repository-has-limit", "expression": has_annotation("params", LIMIT)},
        ]),
    );
    // An empty selector: all Repositories of the namespace of the run.
    let params = json!({"selector": {}, "parameterNotFoundAction": "Allow"});
    [
        Manifest::cluster_wide(ADMISSION, "MutatingAdmissionPolicy", GATE).with("spec", spec),
        binding(GATE, Some(params)),
    ]
}

/// Holds a new run back whose Namespace bears a limit, whatever made the run, unless its user or
/// Kueue holds it back, or another run has made it: that one would wait for it, in a slot. If this
/// fails, the run is refused: it would be beyond the limit.
///
/// The Namespace is looked at by the patch, which changes nothing without a limit: a condition of
/// the policy sees `null` in its place (Kubernetes fills `namespaceObject` in for mutations alone).
fn namespace(install: &Install) -> [Manifest; 2] {
    let not_of_kueue =
        json!({"matchExpressions": [{"key": KUEUE_QUEUE, "operator": "DoesNotExist"}]});
    let namespace = "namespaceObject.metadata.annotations";
    let limits = NAMESPACE_LIMITS.map(|key| format!("\"{key}\" in {namespace}"));
    let mut spec = policy(
        install,
        "Fail",
        &["CREATE"],
        &not_of_kueue,
        &format!(
            "has({namespace}) && ({}) ? [\n  JSONPatch{{\n    op: \"add\",\n    path: \"/spec/status\",\n    \
             value: \"{PENDING}\"\n  }}\n] + (\n  has(object.metadata.annotations) ? [\n    JSONPatch{{\n      \
             op: \"add\",\n      path: {},\n      value: \"true\"\n    }}\n  ] : [\n    JSONPatch{{\n      \
             op: \"add\",\n      path: \"/metadata/annotations\",\n      value: {{\"{HELD}\": \"true\"}}\n    \
             }}\n  ]\n) : []",
            limits.join(" || "),
            annotation_path(HELD),
        ),
    );
    set(
        &mut spec,
        "matchConditions",
        json!([
            not_held_by_others(),
            {
                "name": "not-made-by-another-run",
                "expression": "!has(object.metadata.ownerReferences) || \
                               !object.metadata.ownerReferences.exists(owner, owner.kind in \
                               [\"PipelineRun\", \"CustomRun\"])",
            },
        ]),
    );
    [
        Manifest::cluster_wide(ADMISSION, "MutatingAdmissionPolicy", NAMESPACE).with("spec", spec),
        binding(NAMESPACE, None),
    ]
}

/// A condition: neither its user nor another policy holds the run back.
fn not_held_by_others() -> Value {
    json!({
        "name": "not-held-by-others",
        "expression": "!has(object.spec.status) || object.spec.status == \"\"",
    })
}

/// Makes a graceful cancel of a run that is still held back one that ends it at once: Tekton
/// would start the run for its `finally` tasks. If this fails, Tekton does that.
fn cancel(install: &Install) -> [Manifest; 2] {
    let mut spec = policy(
        install,
        "Ignore",
        &["UPDATE"],
        &json!({}),
        &format!(
            "[\n  JSONPatch{{\n    op: \"replace\",\n    path: \"/spec/status\",\n    value: \
             \"{CANCELLED}\"\n  }}\n]"
        ),
    );
    set(
        &mut spec,
        "matchConditions",
        json!([
            {
                "name": "of-a-queue",
                "expression": format!(
                    "({}) || ({})",
                    has_annotation("object", REPOSITORY),
                    has_annotation("object", HELD)
                ),
            },
            {
                "name": "was-held",
                "expression":
                    format!("has(oldObject.spec.status) && oldObject.spec.status == \"{PENDING}\""),
            },
            {
                "name": "is-cancelled-gracefully",
                "expression": format!(
                    "has(object.spec.status) && object.spec.status in \
                     [\"{CANCELLED_RUN_FINALLY}\", \"{STOPPED_RUN_FINALLY}\"]"
                ),
            },
        ]),
    );
    [
        Manifest::cluster_wide(ADMISSION, "MutatingAdmissionPolicy", CANCEL).with("spec", spec),
        binding(CANCEL, None),
    ]
}

/// A policy that patches PipelineRuns, without its conditions.
fn policy(
    install: &Install,
    failure: &str,
    operations: &[&str],
    objects: &Value,
    patch: &str,
) -> Value {
    let namespaces = match install.excluded_namespaces.is_empty() {
        true => json!({}),
        false => json!({"matchExpressions": [{
            "key": "kubernetes.io/metadata.name",
            "operator": "NotIn",
            "values": install.excluded_namespaces,
        }]}),
    };
    json!({
        "failurePolicy": failure,
        "reinvocationPolicy": "Never",
        "matchConstraints": {
            "matchPolicy": "Equivalent",
            "namespaceSelector": namespaces,
            "objectSelector": objects,
            "resourceRules": [{
                "apiGroups": ["tekton.dev"],
                "apiVersions": ["v1"],
                "operations": operations,
                "resources": ["pipelineruns"],
                "scope": "*",
            }],
        },
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {"expression": patch}}],
    })
}

fn binding(policy: &str, params: Option<Value>) -> Manifest {
    let mut spec = json!({"policyName": policy});
    if let Some(params) = params {
        set(&mut spec, "paramRef", params);
    }
    Manifest::cluster_wide(ADMISSION, "MutatingAdmissionPolicyBinding", policy).with("spec", spec)
}

fn set(spec: &mut Value, field: &str, value: Value) {
    if let Some(spec) = spec.as_object_mut() {
        spec.insert(field.to_owned(), value);
    }
}

/// CEL: whether an object bears an annotation.
pub(super) fn has_annotation(object: &str, key: &str) -> String {
    format!("has({object}.metadata.annotations) && \"{key}\" in {object}.metadata.annotations")
}

/// CEL: the value of an annotation.
fn annotation(object: &str, key: &str) -> String {
    format!("{object}.metadata.annotations[\"{key}\"]")
}

/// CEL: the path of an annotation in a JSON patch.
fn annotation_path(key: &str) -> String {
    format!("\"/metadata/annotations/\" + jsonpatch.escapeKey(\"{key}\")")
}

#[cfg(test)]
#[path = "policies_tests.rs"]
mod tests;
