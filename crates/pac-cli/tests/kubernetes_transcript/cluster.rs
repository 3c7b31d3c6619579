//! The cluster: an API server for tests, with stand-ins for Pipelines-as-Code and Tekton, and the
//! commands of the person in front of it.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Output;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pac_kubernetes_mock::{
    ApiServer, Effect, Ending, Handle, PacController, PacWatcher, Policy, Tekton, Template,
};
use pac_pipelines::vocabulary::{OUR_EXECUTION_ORDER, PENDING, STATE, TOKEN};
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::place::{Place, SECRET};
use crate::servers::{Store, eventually};

pub(crate) const RUNS: &str = "pipelineruns";
pub(crate) const NAMESPACE: &str = "pac-concurrency";
const TAKEOVER: &str = "takeover.concurrency.pipelinesascode.tekton.dev";
pub(crate) const PAC: &str = PacWatcher::NAMESPACE;
const WATCHER: &str = PacWatcher::DEPLOYMENT;
const SITE: &str = "ci/website";

/// A cluster with one Repository, `ci/website`, of limit 2.
pub(crate) struct Cluster {
    runtime: Runtime,
    server: ApiServer,
    pub(crate) objects: Handle,
    tekton: Tekton,
    pac: PacController,
    /// Pipelines-as-Code's watcher; `None` while it is scaled to 0.
    watcher: Option<PacWatcher>,
    pub(crate) place: Place,
    /// The settings as the ConfigMap is to have them.
    settings: Map<String, Value>,
    /// The revision before the first run.
    begun: u64,
}

/// A command of the person in front of the cluster, and what it said.
pub(crate) struct Ran {
    pub(crate) command: String,
    pub(crate) output: Output,
}

impl Cluster {
    pub(crate) fn start(store: &Store) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let (server, tekton, watcher) = runtime.block_on(async {
            let server = ApiServer::start().await;
            let order = OUR_EXECUTION_ORDER.to_owned();
            server.recognise(Policy::new(TAKEOVER, TAKEOVER, Effect::Takeover { order }));
            make_objects(&server.handle());
            let tekton = Tekton::start(&server, Ending::WhenTold);
            let watcher = PacWatcher::start(&server);
            (server, tekton, watcher)
        });
        let mut settings = Map::new();
        for (key, value) in store.settings() {
            settings.insert(key.clone(), value.as_str().into());
        }
        settings.insert("concurrency-enabled".to_owned(), "true".into());
        settings.insert("concurrency-session-ttl".to_owned(), "3s".into());
        let objects = server.handle();
        Self {
            place: Place::new(server.url()),
            pac: PacController::new(&server),
            begun: objects.revision(),
            watcher: Some(watcher),
            settings,
            objects,
            tekton,
            server,
            runtime,
        }
    }

    /// `pac kubernetes` with these arguments.
    pub(crate) fn pac(&self, arguments: &str) -> Ran {
        let mut command = self.place.pac();
        command.arg("kubernetes").args(arguments.split(' '));
        Ran {
            command: format!("pac kubernetes {arguments}"),
            output: command.output().unwrap(),
        }
    }

    pub(crate) fn status(&self) -> Ran {
        self.of_the_store("status")
    }

    pub(crate) fn history_of_the_store(&self) -> Ran {
        self.of_the_store("history")
    }

    /// What an administrator does after the installation.
    pub(crate) fn fill_settings_in(&self) {
        let map = json!({"data": self.settings});
        let map = self.objects.merge("configmaps", NAMESPACE, PAC, map);
        let secret = json!({
            "metadata": {"namespace": NAMESPACE, "name": SECRET},
            "data": {"postgresql-password": STANDARD.encode("not asked for")},
        });
        // Pods start as soon as there is a Secret.
        self.place.mount(&map.unwrap(), &secret);
        self.objects.create("secrets", secret).unwrap();
    }

    /// How many replicas the Deployment says are ready.
    pub(crate) fn ready_replicas(&self) -> u64 {
        let deployment = self.objects.get("deployments", NAMESPACE, NAMESPACE);
        let ready = deployment.unwrap()["status"]["readyReplicas"].as_u64();
        ready.unwrap_or(0)
    }

    /// A push, for which this many runs of a template are made; their names in their order.
    pub(crate) fn push(&self, template: &[&str], runs: usize) -> Vec<String> {
        let names = template
            .iter()
            .flat_map(|name| (1..=runs).map(move |at| Template::exact(&format!("{name}-{at}"))));
        let names: Vec<_> = names.collect();
        self.pac.event("ci", "website", &names).unwrap()
    }

    /// Ends a run that runs.
    pub(crate) fn finish(&self, run: &str) {
        self.tekton.finish("ci", run, true).unwrap();
    }

    /// Waits until these run in the cluster and hold the slots in the store, and those wait there in
    /// this order.
    pub(crate) fn comes_to(&self, running: &[String], waiting: &[String]) {
        eventually(&format!("{running:?} run, {waiting:?} wait"), || {
            let status = self.status_as_json();
            let names = |list: &str| {
                let runs = status[0][list].as_array().cloned().unwrap_or_default();
                let name = |run: &Value| run["run"].as_str().unwrap().replace("ci/", "");
                runs.iter().map(name).collect::<Vec<_>>()
            };
            let started: BTreeSet<_> = names("running").into_iter().collect();
            started == running.iter().cloned().collect()
                && names("queued") == waiting
                && running.iter().all(|run| self.runs(run))
        });
    }

    /// The session of the replica that looks after a run which runs.
    pub(crate) fn session_of(&self, run: &str) -> String {
        let sessions = self.sessions();
        let found = sessions.iter().find(|(name, _)| name == run);
        found.expect("it is in the store").1.clone()
    }

    /// Waits until every run has another replica than the one with this session.
    pub(crate) fn until_others_look_after_all(&self, session: &str) {
        eventually("others look after all", || {
            let sessions = self.sessions();
            let is_other = |(_, other): &(String, String)| !other.is_empty() && other != session;
            !sessions.is_empty() && sessions.iter().all(is_other)
        });
    }

    /// Waits until Pipelines-as-Code has seen these runs run.
    pub(crate) fn until_all_starts_are_known(&self, runs: &[String]) {
        eventually("their state is started", || {
            let state = |run: &String| self.run(run)["metadata"]["annotations"][STATE].clone();
            runs.iter().all(|run| state(run) == "started")
        });
    }

    /// Waits until Tekton runs a run.
    pub(crate) fn until_runs(&self, run: &str) {
        eventually(&format!("{run} runs"), || self.runs(run));
    }

    /// What `kubectl scale` does to the watcher of Pipelines-as-Code; answers with the command.
    pub(crate) fn scale_watcher(&mut self, replicas: u32) -> String {
        let patch = json!({"spec": {"replicas": replicas}});
        self.objects
            .merge("deployments", PAC, WATCHER, patch)
            .unwrap();
        let _in_runtime = self.runtime.enter();
        self.watcher = (replicas > 0).then(|| PacWatcher::start(&self.server));
        format!(
            "kubectl scale deployment/{WATCHER} --namespace={PAC} --replicas={replicas}\n\
             deployment.apps/{WATCHER} scaled"
        )
    }

    /// The runs in the order in which they were let run, which is that of their tokens; those that
    /// Pipelines-as-Code has started are last. Of what was written at each revision follows how many
    /// ran at it: at none of them may it be more than `limit`, and at the last one it is none.
    pub(crate) fn started_in_order(&self, limit: usize) -> Vec<String> {
        let mut running = BTreeSet::new();
        let mut tokens = BTreeMap::new();
        for written in self.objects.history(RUNS, self.begun).unwrap() {
            let (run, name) = (&*written.object, name_of(&written.object));
            if !written.deleted && run["spec"]["status"] != PENDING && !is_done(run) {
                running.insert(name.clone());
            } else {
                running.remove(&name);
            }
            let revision = &run["metadata"]["resourceVersion"];
            assert!(running.len() <= limit, "{running:?} at revision {revision}");
            let token = run["metadata"]["annotations"][TOKEN].as_str();
            let token = token.map_or(u64::MAX, |token| token.parse().unwrap());
            tokens.insert(name, token);
        }
        assert_eq!(running, BTreeSet::new(), "all have ended");
        let mut runs: Vec<_> = tokens.into_iter().collect();
        runs.sort_by_key(|(_, token)| *token);
        runs.into_iter().map(|(name, _)| name).collect()
    }

    /// A command about the store, with the settings of the ConfigMap.
    fn of_the_store(&self, name: &str) -> Ran {
        Ran {
            command: format!("pac {name} {SITE}"),
            output: self
                .place
                .pac_with_settings()
                .args([name, SITE])
                .output()
                .unwrap(),
        }
    }

    /// The runs, and the sessions of the replicas that look after them; empty where there is none.
    fn sessions(&self) -> Vec<(String, String)> {
        let status = self.status_as_json();
        let of = |list: &str, field: &str| {
            let runs = status[0][list].as_array().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or_default().replace("ci/", "");
            let pairs = runs
                .iter()
                .map(|run| (text(&run["run"]), text(&run[field])));
            pairs.collect::<Vec<_>>()
        };
        [of("running", "session"), of("queued", "owner")].concat()
    }

    fn status_as_json(&self) -> Value {
        let mut status = self.place.pac_with_settings();
        let output = status.args(["status", SITE, "--output", "json"]).output();
        serde_json::from_slice(&output.unwrap().stdout).unwrap_or_default()
    }

    fn runs(&self, run: &str) -> bool {
        let run = self.run(run);
        run["status"]["startTime"].is_string() && !is_done(&run)
    }

    fn run(&self, name: &str) -> Value {
        self.objects.get(RUNS, "ci", name).unwrap()
    }
}

fn make_objects(objects: &Handle) {
    objects.create_namespace("ci").unwrap();
    PacWatcher::deploy(objects, 1).unwrap();
    let repository = json!({
        "metadata": {"namespace": "ci", "name": "website"},
        "spec": {"url": "https://git.example.com/ci/website", "concurrency_limit": 2},
    });
    objects.create("repositories", repository).unwrap();
}

fn name_of(run: &Value) -> String {
    run["metadata"]["name"].as_str().unwrap().to_owned()
}

fn is_done(run: &Value) -> bool {
    let conditions = run["status"]["conditions"].as_array();
    let succeeded = conditions.and_then(|all| all.iter().find(|one| one["type"] == "Succeeded"));
    succeeded.is_some_and(|condition| condition["status"] != "Unknown")
}
