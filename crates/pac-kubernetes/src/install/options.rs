//! What is to be installed.

use std::collections::BTreeSet;

use super::manifest::Manifest;
use super::{policies, rbac, settings, workload};

/// How PipelineRuns are held back for the controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum InstallMode {
    /// Pipelines-as-Code holds its runs back itself, where a Repository has a
    /// `concurrency_limit`; a policy keeps their order from its queue, and the controller starts
    /// them.
    #[default]
    Takeover,
    /// A policy holds runs back whose Repository has the limit in
    /// [`vocabulary::LIMIT`](pac_pipelines::vocabulary::LIMIT), and no `concurrency_limit`.
    Gate,
    /// Nothing is held back and nothing is changed.
    Observe,
}

impl InstallMode {
    /// All modes.
    pub const ALL: [Self; 3] = [Self::Takeover, Self::Gate, Self::Observe];

    /// Its name on the command line: `takeover`, `gate` or `observe`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Takeover => "takeover",
            Self::Gate => "gate",
            Self::Observe => "observe",
        }
    }
}

/// The store that the generated settings begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum StoreDriver {
    /// PostgreSQL.
    #[default]
    Postgresql,
    /// etcd.
    Etcd,
}

impl StoreDriver {
    /// The value of the setting `concurrency-driver`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql",
            Self::Etcd => "etcd",
        }
    }

    /// The key of the Secret that holds the store's password.
    #[must_use]
    pub fn password_key(self) -> &'static str {
        match self {
            Self::Postgresql => "postgresql-password",
            Self::Etcd => "etcd-password",
        }
    }
}

/// What is to be installed in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Install {
    /// The namespace of the controller, its settings and its account. Default:
    /// [`Install::NAMESPACE`]. In a namespace of Pipelines-as-Code
    /// ([`is_shared`](Self::is_shared)) the Namespace and the ConfigMap are not ours.
    pub namespace: String,
    /// How runs are held back. Default: takeover.
    pub mode: InstallMode,
    /// The image of the controller. Default: `pac-concurrency:VERSION`, as the Dockerfile of this
    /// project is built and tagged.
    pub image: String,
    /// How many replicas of the controller run. All of them are active. Default: 2.
    pub replicas: u32,
    /// The store that the generated settings begin with. Default: PostgreSQL.
    pub driver: StoreDriver,
    /// Namespaces whose runs the policies leave alone. Default: none.
    pub excluded_namespaces: BTreeSet<String>,
    /// Whether a run that is cancelled gracefully before it has started is cancelled at once, so
    /// that its `finally` tasks do not run. Default: no.
    pub cancel_at_once: bool,
}

impl Install {
    /// The namespace of the controller unless it is set.
    pub const NAMESPACE: &str = "pac-concurrency";

    /// The name of the controller's Deployment, account, roles and budget, and the value of the
    /// label `app.kubernetes.io/name` of every object.
    pub const NAME: &str = "pac-concurrency";

    /// The ConfigMap that settings are read from.
    pub const CONFIG_MAP: &str = "pipelines-as-code";

    /// The Secret that passwords are read from. It is never among the manifests.
    pub const SECRET: &str = "pac-concurrency-secret";

    /// The Secret with certificates for the connections to the store; it need not exist.
    pub const TLS_SECRET: &str = "pac-concurrency-tls";

    /// The namespaces that Pipelines-as-Code is installed in by its own manifests, and by the
    /// operator of OpenShift.
    pub const PAC_NAMESPACES: [&str; 2] = ["pipelines-as-code", "openshift-pipelines"];

    /// In another namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// In another mode.
    #[must_use]
    pub fn with_mode(mut self, mode: InstallMode) -> Self {
        self.mode = mode;
        self
    }

    /// With another image.
    #[must_use]
    pub fn with_image(mut self, image: impl Into<String>) -> Self {
        self.image = image.into();
        self
    }

    /// With another number of replicas.
    #[must_use]
    pub fn with_replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// With settings for another store.
    #[must_use]
    pub fn with_driver(mut self, driver: StoreDriver) -> Self {
        self.driver = driver;
        self
    }

    /// With one more namespace that the policies leave alone.
    #[must_use]
    pub fn with_excluded_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.excluded_namespaces.insert(namespace.into());
        self
    }

    /// With or without the policy about runs that are cancelled before they have started.
    #[must_use]
    pub fn with_cancel_at_once(mut self, at_once: bool) -> Self {
        self.cancel_at_once = at_once;
        self
    }

    /// Whether the namespace is one of Pipelines-as-Code: then its Namespace and its ConfigMap are
    /// there already, belong to Pipelines-as-Code, and are not among the manifests. The settings go
    /// into that ConfigMap.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        Self::PAC_NAMESPACES.contains(&self.namespace.as_str())
    }

    /// The objects, in the order in which they are applied: each comes after those it needs, and
    /// the policies come before the controller, since a controller without its policy would start
    /// runs beside the queue of Pipelines-as-Code.
    #[must_use]
    pub fn manifests(&self) -> Vec<Manifest> {
        self.with_policies(self.policies())
    }

    /// The objects that are removed, in this order: the reverse of the [manifests](Self::manifests),
    /// with the policies of every mode.
    #[must_use]
    pub fn removals(&self) -> Vec<Manifest> {
        let mut manifests = self.with_policies(policies::all(self));
        manifests.reverse();
        manifests
    }

    fn with_policies(&self, policies: Vec<Manifest>) -> Vec<Manifest> {
        let mut manifests = Vec::new();
        if !self.is_shared() {
            manifests.push(Manifest::cluster_wide("v1", "Namespace", &self.namespace));
        }
        manifests.extend(rbac::manifests(self));
        if !self.is_shared() {
            manifests.push(settings::config_map(self));
        }
        manifests.extend(policies);
        manifests.extend(workload::manifests(self));
        manifests
    }

    /// Those of the [manifests](Self::manifests) that are admission policies and their bindings.
    #[must_use]
    pub fn policies(&self) -> Vec<Manifest> {
        policies::manifests(self)
    }

    /// The command that creates the Secret, for messages and documents.
    #[must_use]
    pub fn secret_command(&self) -> String {
        format!(
            "kubectl create secret generic {} --namespace={} --from-literal={}=\"$PASSWORD\"",
            Self::SECRET,
            self.namespace,
            self.driver.password_key()
        )
    }
}

impl Default for Install {
    fn default() -> Self {
        Self {
            namespace: Self::NAMESPACE.to_owned(),
            mode: InstallMode::default(),
            image: format!("{}:{}", Self::NAME, env!("CARGO_PKG_VERSION")),
            replicas: 2,
            driver: StoreDriver::default(),
            excluded_namespaces: BTreeSet::new(),
            cancel_at_once: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kinds(install: &Install) -> Vec<String> {
        let manifests = install.manifests();
        manifests.iter().map(|one| one.kind().to_owned()).collect()
    }

    #[test]
    fn what_is_needed_comes_before_what_needs_it_and_policies_before_the_controller() {
        assert_eq!(
            kinds(&Install::default()),
            [
                "Namespace",
                "ServiceAccount",
                "ClusterRole",
                "ClusterRoleBinding",
                "Role",
                "RoleBinding",
                "ConfigMap",
                "MutatingAdmissionPolicy",
                "MutatingAdmissionPolicyBinding",
                "PodDisruptionBudget",
                "Deployment",
            ]
        );
    }

    #[test]
    fn the_policies_of_every_mode_are_removed_after_the_controller_and_bindings_first() {
        let removals = Install::default()
            .with_mode(InstallMode::Observe)
            .removals();
        let kinds: Vec<&str> = removals.iter().map(Manifest::kind).collect();
        assert_eq!(kinds[0], "Deployment");
        let binding_first = ["MutatingAdmissionPolicyBinding", "MutatingAdmissionPolicy"];
        assert_eq!(kinds[2..10], [binding_first; 4].concat());
        assert_eq!(kinds[kinds.len() - 1], "Namespace");
    }

    #[test]
    fn what_belongs_to_pipelines_as_code_is_not_among_the_objects() {
        for namespace in Install::PAC_NAMESPACES {
            let kinds = kinds(&Install::default().with_namespace(namespace));
            assert!(!kinds.iter().any(|kind| kind == "Namespace"));
            assert!(!kinds.iter().any(|kind| kind == "ConfigMap"));
        }
    }

    #[test]
    fn no_password_and_no_secret_is_generated() {
        for driver in [StoreDriver::Postgresql, StoreDriver::Etcd] {
            let install = Install::default().with_driver(driver);
            assert!(!kinds(&install).iter().any(|kind| kind == "Secret"));
            assert!(install.secret_command().contains(driver.password_key()));
        }
    }

    #[test]
    fn every_object_bears_the_labels_and_its_namespace() {
        let install = Install::default()
            .with_namespace("queues")
            .with_cancel_at_once(true);
        for manifest in install.manifests() {
            let labels = &manifest.as_value()["metadata"]["labels"];
            assert_eq!(labels["app.kubernetes.io/name"], Install::NAME);
            assert_eq!(labels["app.kubernetes.io/part-of"], Install::NAME);
            assert_eq!(labels["app.kubernetes.io/managed-by"], "pac-kubernetes");
            assert_eq!(
                labels["app.kubernetes.io/version"],
                env!("CARGO_PKG_VERSION")
            );
            assert!(manifest.namespace().is_none_or(|name| name == "queues"));
        }
    }
}
