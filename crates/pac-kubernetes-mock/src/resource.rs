//! The kinds of objects that the server serves.

/// A kind of object: one row of the server's table.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resource {
    /// The API group; empty for the core group.
    pub group: String,
    /// The version, such as `v1`.
    pub version: String,
    /// The name in paths, such as `pipelineruns`.
    pub plural: String,
    /// The kind of one object, such as `PipelineRun`.
    pub kind: String,
    /// Whether an object lives in a namespace.
    pub namespaced: bool,
    /// Whether it has a status subresource: a status in a write to the object itself is ignored.
    pub status: bool,
    /// Whether `metadata.generation` is kept.
    pub generation: bool,
    /// Whether a CustomResourceDefinition declares it. Custom resources take no strategic merge
    /// patch, and lose the fields that their definition does not know.
    pub custom: bool,
    /// The known fields of `spec`; `None` keeps all.
    pub spec_fields: Option<&'static [&'static str]>,
}

impl Resource {
    /// A resource in namespaces that is built into the API server, without status and generation.
    pub fn new(group: &str, version: &str, plural: &str, kind: &str) -> Self {
        Self {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
            kind: kind.to_owned(),
            namespaced: true,
            status: false,
            generation: false,
            custom: false,
            spec_fields: None,
        }
    }

    /// The same, not in namespaces.
    #[must_use]
    pub fn cluster_wide(mut self) -> Self {
        self.namespaced = false;
        self
    }

    /// The same, with a generation.
    #[must_use]
    pub fn with_generation(mut self) -> Self {
        self.generation = true;
        self
    }

    /// The same, with a status subresource, and so with a generation.
    #[must_use]
    pub fn with_status(mut self) -> Self {
        self.status = true;
        self.with_generation()
    }

    /// The same, declared by a CustomResourceDefinition, and so with a generation.
    #[must_use]
    pub fn custom(mut self) -> Self {
        self.custom = true;
        self.with_generation()
    }

    /// The same, with these fields of `spec` and no others.
    #[must_use]
    pub fn with_spec_fields(mut self, fields: &'static [&'static str]) -> Self {
        self.spec_fields = Some(fields);
        self
    }

    /// The group and version as `apiVersion` has them: `tekton.dev/v1`, or `v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The resource as messages name it: `pipelineruns.tekton.dev`, or `configmaps`.
    #[must_use]
    pub fn qualified_plural(&self) -> String {
        self.qualified(&self.plural)
    }

    /// The kind as messages name it: `PipelineRun.tekton.dev`, or `ConfigMap`.
    #[must_use]
    pub fn qualified_kind(&self) -> String {
        self.qualified(&self.kind)
    }

    fn qualified(&self, name: &str) -> String {
        if self.group.is_empty() {
            name.to_owned()
        } else {
            format!("{name}.{}", self.group)
        }
    }
}

/// The resources of a new server.
pub(crate) fn table() -> Vec<Resource> {
    let core = |plural, kind| Resource::new("", "v1", plural, kind);
    let rbac = |plural, kind| Resource::new("rbac.authorization.k8s.io", "v1", plural, kind);
    let admission = |plural, kind| {
        Resource::new("admissionregistration.k8s.io", "v1", plural, kind)
            .cluster_wide()
            .with_generation()
    };
    vec![
        core("namespaces", "Namespace").cluster_wide(),
        core("configmaps", "ConfigMap"),
        core("secrets", "Secret"),
        core("services", "Service"),
        core("serviceaccounts", "ServiceAccount"),
        core("pods", "Pod"),
        Resource::new("apps", "v1", "deployments", "Deployment").with_status(),
        Resource::new("coordination.k8s.io", "v1", "leases", "Lease"),
        Resource::new(
            "authorization.k8s.io",
            "v1",
            "subjectaccessreviews",
            "SubjectAccessReview",
        )
        .cluster_wide(),
        Resource::new("events.k8s.io", "v1", "events", "Event"),
        Resource::new(
            "policy",
            "v1",
            "poddisruptionbudgets",
            "PodDisruptionBudget",
        )
        .with_status(),
        rbac("clusterroles", "ClusterRole").cluster_wide(),
        rbac("clusterrolebindings", "ClusterRoleBinding").cluster_wide(),
        rbac("roles", "Role"),
        rbac("rolebindings", "RoleBinding"),
        admission("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
        admission(
            "mutatingadmissionpolicybindings",
            "MutatingAdmissionPolicyBinding",
        ),
        admission(
            "mutatingwebhookconfigurations",
            "MutatingWebhookConfiguration",
        ),
        Resource::new(
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
        )
        .cluster_wide()
        .with_status(),
        Resource::new("tekton.dev", "v1", "pipelineruns", "PipelineRun")
            .custom()
            .with_status()
            .with_spec_fields(PIPELINE_RUN_SPEC),
        Resource::new("tekton.dev", "v1", "taskruns", "TaskRun")
            .custom()
            .with_status(),
        Resource::new(
            "pipelinesascode.tekton.dev",
            "v1alpha1",
            "repositories",
            "Repository",
        )
        .custom()
        .with_status(),
    ]
}

const PIPELINE_RUN_SPEC: &[&str] = &[
    "managedBy",
    "params",
    "pipelineRef",
    "pipelineSpec",
    "status",
    "taskRunSpecs",
    "taskRunTemplate",
    "timeouts",
    "workspaces",
];
