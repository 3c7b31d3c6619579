//! What is to be installed.

use std::collections::BTreeSet;

use super::manifest::Manifest;
use super::{policies, queues, rbac, settings, webhook, workload};

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

/// What changes PipelineRuns on their way into the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Admission {
    /// Policies, which the API server evaluates itself.
    #[default]
    Policy,
    /// A webhook in a Deployment of its own, for servers without such policies.
    Webhook,
}

/// What is to be installed in a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Install {
    /// The namespace of the controller, its settings and its account. Default:
    /// [`Install::NAMESPACE`]. In a namespace of Pipelines-as-Code
    /// ([`is_shared`](Self::is_shared)) the Namespace and the ConfigMap are not ours.
    pub namespace: String,
    /// The namespace of Pipelines-as-Code, where the global Repository is. Default: that of the
    /// controller if it is one of [`PAC_NAMESPACES`](Self::PAC_NAMESPACES), else
    /// `pipelines-as-code`.
    pub pac_namespace: Option<String>,
    /// How runs are held back. Default: takeover.
    pub mode: InstallMode,
    /// What holds them back. Default: policies.
    pub admission: Admission,
    /// The Certificate of cert-manager, in the namespace, whose Secret is
    /// [`Install::WEBHOOK_SECRET`], for the webhook. Default: `None`, the webhook makes its own.
    pub webhook_certificate: Option<String>,
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
    /// Whether the controller writes an object for each Repository, which shows its queue. It takes
    /// a CustomResourceDefinition. In the mode observe, which writes nothing, it means nothing.
    /// Default: no.
    pub queues: bool,
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

    /// The name of the webhook's Deployment, Service, account, roles and budget.
    pub const WEBHOOK: &str = "pac-concurrency-webhook";

    /// The port that the webhook listens on.
    pub const WEBHOOK_PORT: u16 = 8443;

    /// The Secret that the webhook keeps its certificate in.
    pub const WEBHOOK_SECRET: &str = "pac-concurrency-webhook-tls";

    /// The MutatingWebhookConfiguration that makes the API server ask the webhook.
    pub const WEBHOOK_CONFIGURATION: &str = "concurrency.pipelinesascode.tekton.dev";

    /// The namespaces that Pipelines-as-Code is installed in by its own manifests, and by the
    /// operator of OpenShift.
    pub const PAC_NAMESPACES: [&str; 2] = ["pipelines-as-code", "openshift-pipelines"];

    /// In another namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// Beside Pipelines-as-Code in another namespace.
    #[must_use]
    pub fn with_pac_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.pac_namespace = Some(namespace.into());
        self
    }

    /// In another mode.
    #[must_use]
    pub fn with_mode(mut self, mode: InstallMode) -> Self {
        self.mode = mode;
        self
    }

    /// With another kind of admission.
    #[must_use]
    pub fn with_admission(mut self, admission: Admission) -> Self {
        self.admission = admission;
        self
    }

    /// With the Certificate of this name of cert-manager for the webhook.
    #[must_use]
    pub fn with_webhook_certificate(mut self, name: impl Into<String>) -> Self {
        self.webhook_certificate = Some(name.into());
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

    /// With an object for each Repository that shows its queue, or without.
    #[must_use]
    pub fn with_queues(mut self, queues: bool) -> Self {
        self.queues = queues;
        self
    }

    /// Whether the controller shows queues.
    pub(super) fn shows_queues(&self) -> bool {
        self.queues && self.mode != InstallMode::Observe
    }

    /// The namespace of Pipelines-as-Code, where the global Repository is.
    #[must_use]
    pub fn pac_namespace(&self) -> &str {
        let [usual, _] = Self::PAC_NAMESPACES;
        let is_known = Self::PAC_NAMESPACES.contains(&self.namespace.as_str());
        let default = if is_known { &self.namespace } else { usual };
        self.pac_namespace.as_deref().unwrap_or(default)
    }

    /// Whether the namespace is that of Pipelines-as-Code: then its Namespace and its ConfigMap are
    /// there already, belong to Pipelines-as-Code, and are not among the manifests. The settings go
    /// into that ConfigMap.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.namespace == self.pac_namespace()
    }

    /// The objects, in the order in which they are applied: each comes after those it needs, and
    /// the policies come before the controller, since a controller without its policy would start
    /// runs beside the queue of Pipelines-as-Code.
    #[must_use]
    pub fn manifests(&self) -> Vec<Manifest> {
        let admission = [self.webhook(), self.policies()].concat();
        self.with_admission_objects(admission, self.shows_queues())
    }

    /// The objects that are removed, in this order: the reverse of the [manifests](Self::manifests),
    /// with the policies of every mode, the webhook, and the definition of the objects that show
    /// queues. With it go these objects.
    #[must_use]
    pub fn removals(&self) -> Vec<Manifest> {
        // With the Secret of a webhook that makes its own certificate.
        let mut own = self.clone();
        own.webhook_certificate = None;
        let admission = [webhook::all(&own), policies::all(self)].concat();
        let mut manifests = self.with_admission_objects(admission, true);
        manifests.reverse();
        manifests
    }

    fn with_admission_objects(
        &self,
        admission: Vec<Manifest>,
        with_definition: bool,
    ) -> Vec<Manifest> {
        let mut manifests = Vec::new();
        if !self.is_shared() {
            manifests.push(Manifest::cluster_wide("v1", "Namespace", &self.namespace));
        }
        if with_definition {
            manifests.push(queues::definition());
        }
        manifests.extend(rbac::manifests(self));
        if !self.is_shared() {
            manifests.push(settings::config_map(self));
        }
        manifests.extend(admission);
        manifests.extend(workload::manifests(self));
        manifests
    }

    /// Those of the [manifests](Self::manifests) that are admission policies and their bindings.
    #[must_use]
    pub fn policies(&self) -> Vec<Manifest> {
        match self.admission {
            Admission::Policy => policies::manifests(self),
            Admission::Webhook => Vec::new(),
        }
    }

    /// Those of the [manifests](Self::manifests) that are the webhook's: what it needs, and last
    /// the configuration that makes the API server ask it.
    #[must_use]
    pub fn webhook(&self) -> Vec<Manifest> {
        match self.admission {
            Admission::Policy => Vec::new(),
            Admission::Webhook => webhook::manifests(self),
        }
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
            pac_namespace: None,
            mode: InstallMode::default(),
            admission: Admission::default(),
            webhook_certificate: None,
            image: format!("{}:{}", Self::NAME, env!("CARGO_PKG_VERSION")),
            replicas: 2,
            driver: StoreDriver::default(),
            excluded_namespaces: BTreeSet::new(),
            cancel_at_once: false,
            queues: false,
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
    fn a_definition_is_installed_only_where_queues_are_shown_and_removed_in_any_case() {
        let definition = "CustomResourceDefinition".to_owned();
        let shown = Install::default().with_queues(true);
        assert_eq!(kinds(&shown)[1], definition, "before the controller");
        for without in [Install::default(), shown.with_mode(InstallMode::Observe)] {
            assert!(!kinds(&without).contains(&definition));
            let removals = without.removals();
            assert_eq!(removals[removals.len() - 2].kind(), definition);
        }
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
