//! What a namespace needs whose runs use sections: two StepActions, and a Role for their account.

use serde_json::{Value, json};

use super::manifest::{Manifest, ManifestError, to_yaml};
use super::options::Install;

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// The name of the Role and its binding.
const ROLE: &str = "pac-sections";

/// The two StepActions of sections in a namespace, and what their steps may do.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct StepActions {
    /// The namespace of the runs. Default: `ci`.
    pub namespace: String,
    /// The service account that the Tasks run under. Default: `default`.
    pub service_account: String,
    /// The image of the steps: that of the controller. Default: as of [`Install`].
    pub image: String,
}

impl Default for StepActions {
    fn default() -> Self {
        Self {
            namespace: "ci".to_owned(),
            service_account: "default".to_owned(),
            image: Install::default().image,
        }
    }
}

impl StepActions {
    /// For runs of another namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// For Tasks that run under another service account.
    #[must_use]
    pub fn with_service_account(mut self, account: impl Into<String>) -> Self {
        self.service_account = account.into();
        self
    }

    /// With another image.
    #[must_use]
    pub fn with_image(mut self, image: impl Into<String>) -> Self {
        self.image = image.into();
        self
    }

    /// The objects, in the order in which they are applied.
    #[must_use]
    pub fn manifests(&self) -> Vec<Manifest> {
        let (namespace, account) = (self.namespace.as_str(), self.service_account.as_str());
        let rule = json!({
            "apiGroups": ["tekton.dev"],
            "resources": ["pipelineruns"],
            "verbs": ["get", "patch"],
        });
        let role = json!({
            "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": ROLE,
        });
        let account = json!({
            "kind": "ServiceAccount", "name": account, "namespace": namespace,
        });
        vec![
            Manifest::namespaced(RBAC, "Role", namespace, ROLE).with("rules", json!([rule])),
            Manifest::namespaced(RBAC, "RoleBinding", namespace, ROLE)
                .with("roleRef", role)
                .with("subjects", json!([account])),
            self.step_action("acquire", acquire(&self.image)),
            self.step_action("release", release(&self.image)),
        ]
    }

    /// The objects as a YAML file, after a comment that says what to set.
    ///
    /// # Errors
    /// As of [`to_yaml`].
    pub fn to_document(&self) -> Result<String, ManifestError> {
        Ok(format!(
            "# What a namespace needs whose runs use sections, as `pac kubernetes steps` prints it.\n\
             # docs/kubernetes.md says more. Set the namespace, the service account of the Tasks and\n\
             # the image. The Role lets a Task that runs under this account patch every PipelineRun\n\
             # of the namespace.\n{}",
            to_yaml(&self.manifests())?
        ))
    }

    fn step_action(&self, name: &str, spec: Value) -> Manifest {
        Manifest::namespaced("tekton.dev/v1beta1", "StepAction", &self.namespace, name)
            .with("spec", spec)
    }
}

fn acquire(image: &str) -> Value {
    let mut spec = step(
        image,
        "Waits until the PipelineRun is in a section. The controller gives the slot back when the \
         PipelineRun ends, if no step has released it before.",
        &[
            "section",
            "acquire",
            "--holder=$(params.holder)",
            "--timeout=$(params.timeout)",
            "--token-file=$(step.results.token.path)",
            "--",
            "$(params.section)",
        ],
    );
    if let Some(params) = spec.pointer_mut("/params").and_then(Value::as_array_mut) {
        params.push(json!({
            "name": "timeout", "type": "string", "default": "1h",
            "description": "How long to wait for the section, such as 30m.",
        }));
    }
    if let Some(spec) = spec.as_object_mut() {
        let token = json!([{
            "name": "token",
            "description": "The fencing token: it grows with every grant of the section. Hand it to \
                what the run changes there, and have smaller ones refused.",
        }]);
        spec.insert("results".to_owned(), token);
    }
    spec
}

fn release(image: &str) -> Value {
    step(
        image,
        "Leaves a section, so that the next PipelineRun enters it.",
        &[
            "section",
            "release",
            "--holder=$(params.holder)",
            "--",
            "$(params.section)",
        ],
    )
}

/// What both have in common. Which run it is a step of is in the labels that Tekton puts on the
/// pod.
fn step(image: &str, description: &str, args: &[&str]) -> Value {
    let from = |name: &str, path: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}});
    json!({
        "description": description,
        "params": [
            {
                "name": "section", "type": "string",
                "description": "The name of the section: up to 49 lower-case letters, digits or dashes.",
            },
            {
                "name": "holder", "type": "string", "default": "run",
                "description": "A name of its own for each of several Tasks that hold the section at \
                    the same time: the slot is given back when the last holder has released it.",
            },
        ],
        "image": image,
        "command": ["/usr/local/bin/pac"],
        "args": args,
        "env": [
            from("PAC_STEP_NAMESPACE", "metadata.namespace"),
            from("PAC_STEP_RUN", "metadata.labels['tekton.dev/pipelineRun']"),
            from("PAC_STEP_RUN_UID", "metadata.labels['tekton.dev/pipelineRunUID']"),
        ],
        "securityContext": {
            "allowPrivilegeEscalation": false,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": true,
            "runAsNonRoot": true,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_may_read_and_patch_runs_of_their_namespace_and_nothing_else() {
        let steps = StepActions::default()
            .with_namespace("builds")
            .with_service_account("pipeline");
        let manifests = steps.manifests();
        let kinds: Vec<_> = manifests.iter().map(Manifest::kind).collect();
        assert_eq!(kinds, ["Role", "RoleBinding", "StepAction", "StepAction"]);
        assert!(
            manifests
                .iter()
                .all(|one| one.namespace() == Some("builds"))
        );
        let rules = &manifests[0].as_value()["rules"];
        let expected = json!([{"apiGroups": ["tekton.dev"], "resources": ["pipelineruns"],
            "verbs": ["get", "patch"]}]);
        assert_eq!(*rules, expected);
        let subjects = &manifests[1].as_value()["subjects"];
        let account =
            json!([{"kind": "ServiceAccount", "name": "pipeline", "namespace": "builds"}]);
        assert_eq!(*subjects, account);
    }

    #[test]
    fn every_parameter_that_is_used_is_declared() {
        for action in &StepActions::default().manifests()[2..] {
            let spec = &action.as_value()["spec"];
            let text = spec.to_string();
            let params = spec["params"].as_array().unwrap();
            let names: Vec<_> = params
                .iter()
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            assert_eq!(text.matches("$(params.").count(), names.len());
            for name in names {
                assert!(text.contains(&format!("$(params.{name})")), "{name}");
            }
            assert_eq!(
                text.contains("step.results.token"),
                spec.get("results").is_some()
            );
        }
    }
}
