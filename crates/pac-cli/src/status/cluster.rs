//! What the runs were made for, which the cluster knows and the store does not.

use pac_concurrency::kubernetes::{
    ClusterErrorKind, KubernetesCluster, KubernetesOptions, RunOrigin, RunOrigins,
};
use pac_concurrency::{PipelineRunKey, RepositoryStatus, Uid};

use crate::event::EventShape;
use crate::exit::{Exit, Failure};
use crate::output::note;

/// Whether a cluster is asked, and which.
#[derive(Debug, clap::Args)]
pub(crate) struct ClusterArgs {
    /// Ask the cluster, too: show what each run was made for (event, pull request, branch, commit)
    #[arg(long)]
    cluster: bool,

    /// The kubeconfig to use [default: KUBECONFIG; in a pod its service account]
    #[arg(long, value_name = "FILE", requires = "cluster")]
    kubeconfig: Option<std::path::PathBuf>,

    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME", requires = "cluster")]
    context: Option<String>,
}

impl ClusterArgs {
    /// Where it is asked; `None` if it is not to be.
    pub(super) async fn origins(&self) -> Result<Option<Origins>, Failure> {
        if !self.cluster {
            return Ok(None);
        }
        let mut options = KubernetesOptions::default();
        options.kubeconfig.clone_from(&self.kubeconfig);
        options.context.clone_from(&self.context);
        let cluster = KubernetesCluster::connect(&options).await?;
        Ok(Some(Origins {
            cluster,
            namespace: String::new(),
            runs: RunOrigins::default(),
            has_failed: false,
            is_away: false,
        }))
    }
}

/// What the runs of the namespace were made for that was asked about last: Repositories come in the
/// order of their namespaces.
#[derive(Debug)]
pub(super) struct Origins {
    cluster: KubernetesCluster,
    namespace: String,
    runs: RunOrigins,
    has_failed: bool,
    is_away: bool,
}

impl Origins {
    /// Reads what there is to know of a Repository's runs. A cluster that does not answer is named
    /// once, and asked no more; one that refuses, once for each namespace. What the store knows is
    /// shown all the same.
    pub(super) async fn read(&mut self, status: &RepositoryStatus) {
        let namespace = status.repository.namespace();
        let has_runs = !(status.running.is_empty() && status.queued.is_empty());
        if self.is_away || !has_runs || namespace == self.namespace {
            return;
        }
        namespace.clone_into(&mut self.namespace);
        self.runs = self
            .cluster
            .origins(namespace)
            .await
            .unwrap_or_else(|error| {
                note(format_args!(
                    "{error}; what runs were made for is not shown"
                ));
                self.has_failed = true;
                // Another namespace may be open to us.
                self.is_away = error.kind() != ClusterErrorKind::Refused;
                RunOrigins::default()
            });
    }

    /// What a run was made for; nothing where that is not known.
    pub(super) fn of(&self, run: &PipelineRunKey, uid: &Uid) -> EventShape<'_> {
        self.runs.get(run, uid).map(shape).unwrap_or_default()
    }

    /// The exit code, if it is not that of success.
    pub(super) fn exit(&self) -> Option<Exit> {
        self.has_failed.then_some(Exit::StoreUnavailable)
    }
}

fn shape(origin: &RunOrigin) -> EventShape<'_> {
    EventShape {
        kind: origin.event_type.as_deref(),
        branch: origin.branch.as_deref(),
        source_branch: origin.source_branch.as_deref(),
        pull_request: origin.pull_request.as_deref(),
        sha: origin.sha.as_deref(),
    }
}
