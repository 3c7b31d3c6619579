//! A cluster with everything that acts in it, in memory or given.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use pac_core::RepositoryKey;
use pac_core::driver::Driver;
use pac_core::manager::ManagerOptions;
use pac_kubernetes::{KubernetesCluster, KubernetesOptions};
use pac_kubernetes_mock::{ApiServer, Ending, Handle, PacController, PacWatcher, Tekton};
use pac_pipelines::{ControllerOptions, Mode};
use serde_json::{Value, json};
use tempfile::NamedTempFile;
use tokio::time::{Instant, sleep};

use crate::common::{self, LONG, kubeconfig_file, repository};
use crate::given::Given;
use crate::peaks::Peaks;
use crate::setting::{
    LOOK_AGAIN, RUNS, Working, controller_options, ended, is_done, name, repository_of, store,
    take_over, templates, token,
};

/// Where a case takes place.
#[derive(Clone)]
pub(crate) enum Place {
    /// On a server in this process, in the namespace `ci`.
    InMemory,
    /// In a namespace of its own of a cluster that is given.
    Given(Arc<Given>),
}

/// A cluster with the takeover policy, Tekton, both parts of Pipelines-as-Code, and a store.
pub(crate) struct World {
    /// The namespace of its Repositories and runs.
    pub(crate) namespace: String,
    pub(crate) objects: Handle,
    pub(crate) store: Arc<dyn Driver>,
    pub(crate) tekton: Tekton,
    pub(crate) peaks: Peaks,
    pac: PacController,
    /// Pipelines-as-Code's watcher; `None` once a test does without it.
    pub(crate) watcher: Option<PacWatcher>,
    site: Site,
}

/// How the cluster is reached.
enum Site {
    InMemory {
        server: ApiServer,
        kubeconfig: NamedTempFile,
    },
    Given {
        kubeconfig: PathBuf,
    },
}

impl World {
    /// In memory, with Repositories of these limits; 0 is none.
    pub(crate) async fn new(repositories: &[(&str, i64)], ending: Ending) -> Self {
        Self::at(&Place::InMemory, repositories, ending).await
    }

    /// At this place.
    pub(crate) async fn at(place: &Place, repositories: &[(&str, i64)], ending: Ending) -> Self {
        let (objects, namespace, site) = match place {
            Place::InMemory => {
                let (server, objects) = common::server().await;
                take_over(&server, &objects);
                let kubeconfig = kubeconfig_file(&server);
                let site = Site::InMemory { server, kubeconfig };
                (objects, "ci".to_owned(), site)
            }
            Place::Given(given) => {
                let namespace = given.new_namespace().unwrap();
                let kubeconfig = given.kubeconfig().to_owned();
                let objects = given.objects(&namespace);
                (objects, namespace, Site::Given { kubeconfig })
            }
        };
        let world = Self {
            tekton: Tekton::start_at(objects.clone(), ending),
            peaks: Peaks::new(&objects, &namespace),
            pac: PacController::at(objects.clone()),
            watcher: Some(PacWatcher::start_at(objects.clone())),
            store: store(),
            namespace,
            objects,
            site,
        };
        for (name, limit) in repositories {
            world.add_repository(&world.namespace, name, *limit);
        }
        world
    }

    /// The server with its switches. Cases that use it are for memory only.
    pub(crate) fn server(&self) -> &ApiServer {
        match &self.site {
            Site::InMemory { server, .. } => server,
            Site::Given { .. } => panic!("a given cluster has no switches"),
        }
    }

    /// How a controller of this world is connected to its cluster.
    pub(crate) fn options(&self) -> KubernetesOptions {
        let options = common::options();
        match &self.site {
            Site::InMemory { kubeconfig, .. } => options.with_kubeconfig(kubeconfig.path()),
            Site::Given { kubeconfig } => options
                .with_kubeconfig(kubeconfig)
                .with_namespace(&self.namespace),
        }
    }

    pub(crate) async fn cluster(&self) -> KubernetesCluster {
        KubernetesCluster::connect(&self.options()).await.unwrap()
    }

    pub(crate) async fn controller(&self) -> Working {
        self.controller_in(Mode::Takeover).await
    }

    pub(crate) async fn controller_in(&self, mode: Mode) -> Working {
        let options = controller_options().with_mode(mode);
        self.controller_with(&self.store, options, ManagerOptions::default())
            .await
    }

    pub(crate) async fn controller_with(
        &self,
        store: &Arc<dyn Driver>,
        options: ControllerOptions,
        manager: ManagerOptions,
    ) -> Working {
        Working::over(self.options(), store, options, manager).await
    }

    pub(crate) fn add_repository(&self, namespace: &str, name: &str, limit: i64) {
        let mut new = repository(name, limit);
        new["metadata"]["namespace"] = namespace.into();
        if limit == 0 {
            new["spec"]["concurrency_limit"] = Value::Null;
        }
        self.objects.create_namespace(namespace).unwrap();
        self.objects.create("repositories", new).unwrap();
    }

    pub(crate) fn set_limit(&self, name: &str, limit: Option<i64>) {
        let patch = json!({"spec": {"concurrency_limit": limit}});
        self.objects
            .merge("repositories", &self.namespace, name, patch)
            .unwrap();
    }

    /// The key of one of its Repositories.
    pub(crate) fn repository(&self, name: &str) -> RepositoryKey {
        format!("{}/{name}", self.namespace).parse().unwrap()
    }

    /// An event whose runs are the prefix with the numbers from 0; their names in their order.
    pub(crate) fn event(&self, repository: &str, prefix: &str, runs: usize) -> Vec<String> {
        let templates = templates(0..runs, prefix);
        let event = self.pac.event(&self.namespace, repository, &templates);
        event.unwrap()
    }

    /// A run that is held back, yet to be made.
    pub(crate) fn held(&self, name: &str) -> Value {
        let mut run = common::held(name);
        run["metadata"]["namespace"] = self.namespace.as_str().into();
        run
    }

    pub(crate) fn merge(&self, run: &str, patch: Value) {
        self.objects
            .merge(RUNS, &self.namespace, run, patch)
            .unwrap();
    }

    pub(crate) fn delete(&self, run: &str) {
        self.objects.delete(RUNS, &self.namespace, run).unwrap();
    }

    /// Lets Tekton end a run.
    pub(crate) fn finish(&self, run: &str, success: bool) {
        self.tekton.finish(&self.namespace, run, success).unwrap();
    }

    pub(crate) async fn ended(&self, runs: usize) -> BTreeMap<String, u64> {
        let all = ended(&self.objects, &self.namespace, runs);
        tokio::pin!(all);
        loop {
            tokio::select! {
                tokens = &mut all => return tokens,
                () = sleep(LOOK_AGAIN) => self.peaks.look(),
            }
        }
    }

    pub(crate) fn run(&self, name: &str) -> Value {
        self.objects.get(RUNS, &self.namespace, name).unwrap()
    }

    fn all_runs(&self) -> Vec<Value> {
        let all = self.objects.list(RUNS, &self.namespace, "");
        all.unwrap_or_default()
    }

    /// The runs of a Repository that Tekton runs, in the order of their tokens.
    pub(crate) fn running(&self, repository: &str) -> Vec<String> {
        let all = self.all_runs();
        let mut running: Vec<_> = all
            .iter()
            .filter(|run| run["status"]["startTime"].is_string() && !is_done(run))
            .filter(|run| repository_of(run) == repository)
            .map(|run| (token(run), name(run)))
            .collect();
        running.sort();
        running.into_iter().map(|(_, name)| name).collect()
    }

    /// Waits until just these runs of a Repository run.
    pub(crate) async fn runs(&self, repository: &str, expected: &[&str]) {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        let begun = Instant::now();
        loop {
            self.peaks.look();
            let mut running = self.running(repository);
            running.sort_unstable();
            if running == expected {
                return;
            }
            assert!(
                begun.elapsed() < LONG,
                "{running:?} run, not {expected:?}: {:#?}",
                self.all_runs()
            );
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until so many runs of a Repository wait, by the store of this controller.
    pub(crate) async fn queued(&self, working: &Working, repository: &str, runs: usize) {
        let (manager, key) = (working.controller.manager(), self.repository(repository));
        let begun = Instant::now();
        while manager.status(&key).await.unwrap().queued.len() != runs {
            assert!(begun.elapsed() < LONG, "there never wait {runs} runs");
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Waits until so many runs of a Repository hold a slot, by the store of this controller.
    pub(crate) async fn counted(&self, working: &Working, repository: &str, runs: usize) {
        let (manager, key) = (working.controller.manager(), self.repository(repository));
        let begun = Instant::now();
        while manager.status(&key).await.unwrap().running.len() != runs {
            assert!(begun.elapsed() < LONG, "there are never {runs} slots held");
            sleep(LOOK_AGAIN).await;
        }
    }
}
