//! What can be set of a connection to a cluster.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// How a cluster is reached, and what of it is followed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct KubernetesOptions {
    /// The kubeconfig file to read. Default: inside a pod its service account; elsewhere the files
    /// that `KUBECONFIG` names, or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig to use. Default: its current one. Where it is set, the service
    /// account of a pod is not used.
    pub context: Option<String>,
    /// The one namespace whose PipelineRuns are followed. Default: all of them.
    pub namespace: Option<String>,
    /// Namespaces whose PipelineRuns are not followed. Default: none.
    pub excluded_namespaces: BTreeSet<String>,
    /// The label selector of the PipelineRuns to follow. Default:
    /// [`PAC_RUNS`](Self::PAC_RUNS).
    pub run_selector: String,
    /// Whether Namespaces are followed too, and all labels and short annotations of runs are kept,
    /// for [lanes](pac_pipelines::lanes). Default: no.
    pub lanes: bool,
    /// How long one request may take, from the call to the last byte of its answer. Default: 10 s.
    pub request_timeout: Duration,
    /// How long listing all objects of a kind may take, over all of its pages. Default: 2 min.
    pub list_timeout: Duration,
    /// How long one request of a watch lasts before it is opened anew, in whole seconds. It is
    /// also how old a list may be that is answered from the cache when the connection has died
    /// silently, so it must stay well below the grace period of the controller. Default: 40 s.
    pub watch_timeout: Duration,
    /// How many objects one page of a list has at most. Default: 500.
    pub page_size: u32,
}

impl KubernetesOptions {
    /// Selects the runs of Pipelines-as-Code that have not ended: `app.kubernetes.io/managed-by` is
    /// `pipelinesascode.tekton.dev`, and the state is neither `completed` nor `failed`.
    pub const PAC_RUNS: &str = "app.kubernetes.io/managed-by=pipelinesascode.tekton.dev,\
                                pipelinesascode.tekton.dev/state notin (completed,failed)";

    /// Selects all runs, those of other tools too, but for those of Pipelines-as-Code that have
    /// ended.
    pub const ALL_RUNS: &str = "pipelinesascode.tekton.dev/state notin (completed,failed)";

    /// With a kubeconfig file.
    #[must_use]
    pub fn with_kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// With a context of the kubeconfig.
    #[must_use]
    pub fn with_context(mut self, context: impl Into<String>) -> Self {
        self.context = Some(context.into());
        self
    }

    /// With one namespace alone.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = Some(namespace.into());
        self
    }

    /// With a namespace less.
    #[must_use]
    pub fn with_excluded_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.excluded_namespaces.insert(namespace.into());
        self
    }

    /// Whether the PipelineRuns of a namespace are followed.
    pub(crate) fn follows(&self, namespace: &str) -> bool {
        self.namespace.as_ref().is_none_or(|one| one == namespace)
            && !self.excluded_namespaces.contains(namespace)
    }

    /// Selects the PipelineRuns that are followed by their fields; `None` when those are all.
    pub(crate) fn field_selector(&self) -> Option<String> {
        let excluded = self.excluded_namespaces.iter();
        let parts: Vec<_> = excluded
            .map(|namespace| format!("metadata.namespace!={namespace}"))
            .collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// Selects by their fields the Namespaces of what is followed; `None` when that is all.
    pub(crate) fn namespace_selector(&self) -> Option<String> {
        let only = self.namespace.iter();
        let excluded = self.excluded_namespaces.iter();
        let parts: Vec<_> = only
            .map(|namespace| format!("metadata.name={namespace}"))
            .chain(excluded.map(|namespace| format!("metadata.name!={namespace}")))
            .collect();
        (!parts.is_empty()).then(|| parts.join(","))
    }

    /// With what Namespaces say about queues, or without.
    #[must_use]
    pub fn with_lanes(mut self, lanes: bool) -> Self {
        self.lanes = lanes;
        self
    }

    /// With another label selector for PipelineRuns.
    #[must_use]
    pub fn with_run_selector(mut self, selector: impl Into<String>) -> Self {
        self.run_selector = selector.into();
        self
    }

    /// With another deadline of a request.
    #[must_use]
    pub fn with_request_timeout(mut self, timeout: Duration) -> Self {
        self.request_timeout = timeout;
        self
    }

    /// With another deadline of a list.
    #[must_use]
    pub fn with_list_timeout(mut self, timeout: Duration) -> Self {
        self.list_timeout = timeout;
        self
    }

    /// With another length of a watch; at least 1 s.
    #[must_use]
    pub fn with_watch_timeout(mut self, timeout: Duration) -> Self {
        self.watch_timeout = timeout.max(Duration::from_secs(1));
        self
    }

    /// With another size of a page; at least 1.
    #[must_use]
    pub fn with_page_size(mut self, objects: u32) -> Self {
        self.page_size = objects.max(1);
        self
    }
}

impl Default for KubernetesOptions {
    fn default() -> Self {
        Self {
            kubeconfig: None,
            context: None,
            namespace: None,
            excluded_namespaces: BTreeSet::new(),
            run_selector: Self::PAC_RUNS.to_owned(),
            lanes: false,
            request_timeout: Duration::from_secs(10),
            list_timeout: Duration::from_secs(2 * 60),
            watch_timeout: Duration::from_secs(40),
            page_size: 500,
        }
    }
}
