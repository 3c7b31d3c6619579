//! A stand-in for Pipelines-as-Code's watcher, which runs the queue and reports.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::follow::{Follower, Key, Pace, key_of, settled};
use super::queue::Queues;
use super::{effective_limit, is_done, pac, succeeded};
use crate::failure::Failure;
use crate::handle::Handle;
use crate::object::{self, annotation, text};
use crate::policies::{EXECUTION_ORDER, PENDING, REPOSITORY};
use crate::server::ApiServer;

/// Does to PipelineRuns what the watcher of Pipelines-as-Code v0.50.0 does, its known faults
/// included; dropping it stops it, and starting another is its restart.
///
/// - It looks at runs with the state annotation only, puts its finalizer on them, marks them
///   `started` once Tekton says that they run, and `completed` once they are done.
/// - A run with state `queued` that is pending waits for its order, and then in the queue of its
///   Repository; the watcher starts it by clearing `spec.status`.
/// - At its start it rebuilds the queues of all Repositories with a limit of their own, each from
///   all runs of the namespace, other Repositories' too.
///
/// It knows no provider and no secrets: there is always a check run, and reporting never fails.
#[derive(Debug)]
pub struct PacWatcher {
    objects: Handle,
    queues: Arc<Mutex<Queues>>,
    handled: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl PacWatcher {
    /// The namespace of Pipelines-as-Code.
    pub const NAMESPACE: &str = pac::GLOBAL;

    /// The Deployment of the watcher.
    pub const DEPLOYMENT: &str = "pipelines-as-code-watcher";

    /// Creates the namespace of Pipelines-as-Code and the watcher's Deployment in it, scaled to so
    /// many replicas and without a pod. It starts nothing.
    ///
    /// # Errors
    /// [`Failure`] where one of them is there.
    pub fn deploy(objects: &Handle, replicas: u32) -> Result<(), Failure> {
        objects.create_namespace(Self::NAMESPACE)?;
        let watcher = json!({
            "metadata": {"namespace": Self::NAMESPACE, "name": Self::DEPLOYMENT},
            "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "watcher"}}},
        });
        objects.create("deployments", watcher).map(drop)
    }

    /// Starts it, with queues rebuilt from the objects.
    ///
    /// # Panics
    /// Without a Tokio runtime.
    #[must_use]
    pub fn start(server: &ApiServer) -> Self {
        Self::start_at(server.handle())
    }

    /// Starts it for the server of this handle.
    ///
    /// # Panics
    /// Without a Tokio runtime.
    #[must_use]
    pub fn start_at(objects: Handle) -> Self {
        let queues = Arc::new(Mutex::new(Queues::default()));
        let (pace, handled) = Pace::new(&objects);
        let reconciler = Reconciler {
            objects: objects.clone(),
            queues: Arc::clone(&queues),
        };
        // Before this returns, so that an event that follows is not part of what it rebuilds.
        let rebuilt = reconciler.init_queues().is_ok();
        Self {
            task: tokio::spawn(reconciler.work(pace, rebuilt)),
            objects,
            queues,
            handled,
        }
    }

    /// Its queues, as its `/debug/queue` shows them.
    #[must_use]
    pub fn queue(&self) -> Value {
        let queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        queues.snapshot()
    }

    /// Waits until it has dealt with all that was written when this was called.
    pub async fn settled(&self) {
        settled(&self.objects, self.handled.clone()).await;
    }
}

impl Drop for PacWatcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Reconciler {
    objects: Handle,
    queues: Arc<Mutex<Queues>>,
}

/// How long it waits before it tries again what failed; the real one backs off.
const AGAIN: Duration = Duration::from_millis(50);

/// How often it asks its queue for runs at one reconciliation.
const ROUNDS: usize = 6;

impl Reconciler {
    async fn work(self, mut pace: Pace, rebuilt: bool) {
        let mut runs = Follower::new(self.objects.clone(), "pipelineruns");
        let mut repositories = Follower::new(self.objects.clone(), "repositories");
        while !rebuilt && self.init_queues().is_err() {
            pace.next(Some(Instant::now() + AGAIN)).await;
        }
        let mut open = BTreeSet::new();
        loop {
            let revision = self.objects.revision();
            let (changed, limits) = (runs.changed(), repositories.changed());
            let told_all = changed.is_some() && limits.is_some();
            open.extend(changed.unwrap_or_default());
            for repository in limits.unwrap_or_default() {
                open.extend(self.queued_of(&repository));
            }
            open.retain(|key| self.reconcile(key).is_err());
            let again = (!told_all || !open.is_empty()).then(|| Instant::now() + AGAIN);
            if again.is_none() {
                pace.handled(revision);
            }
            pace.next(again).await;
        }
    }

    fn with_queues<T>(&self, act: impl FnOnce(&mut Queues) -> T) -> T {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        act(&mut queues)
    }

    /// Rebuilds the queues. The runs of a namespace come into the queue of each of its
    /// Repositories: the real one does not select by Repository.
    fn init_queues(&self) -> Result<(), Failure> {
        for repository in self.objects.list("repositories", "", "")? {
            let limit = repository.pointer("/spec/concurrency_limit");
            let Some(limit) = limit.and_then(Value::as_i64) else {
                continue;
            };
            let key = joined(&key_of(&repository));
            for state in ["started", "queued"] {
                for run in self.by_creation(object::namespace(&repository), state)? {
                    let Some(order) = annotation(&run, EXECUTION_ORDER) else {
                        continue;
                    };
                    let runs = self.in_state(order, state);
                    self.with_queues(|queues| {
                        if state == "started" {
                            queues.add_to_running(&key, Some(limit), &runs);
                        } else {
                            queues.add_to_pending(&key, Some(limit), &runs);
                        }
                    });
                }
            }
        }
        Ok(())
    }

    fn by_creation(&self, namespace: &str, state: &str) -> Result<Vec<Value>, Failure> {
        let selector = format!("{}={state}", pac::STATE);
        let mut runs = self.objects.list("pipelineruns", namespace, &selector)?;
        runs.sort_by(|a, b| {
            let created = "/metadata/creationTimestamp";
            text(a, created).cmp(text(b, created))
        });
        Ok(runs)
    }

    /// The runs of an order that have the state by their annotation; queued ones must be pending
    /// too. A run that cannot be read is dropped.
    fn in_state(&self, order: &str, state: &str) -> Vec<String> {
        let keys = order.split(',').filter(|key| {
            let Ok(run) = self.get(key) else {
                return false;
            };
            annotation(&run, pac::STATE) == Some(state)
                && (state != "queued" || text(&run, "/spec/status") == PENDING)
        });
        keys.map(str::to_owned).collect()
    }

    /// The runs that a change of their Repository wakes.
    fn queued_of(&self, (namespace, repository): &Key) -> Vec<Key> {
        let selector = format!("{}=queued", pac::STATE);
        let runs = self.objects.list("pipelineruns", namespace, &selector);
        let runs = runs.unwrap_or_default();
        let of_repository = |run: &&Value| annotation(run, REPOSITORY) == Some(repository);
        runs.iter().filter(of_repository).map(key_of).collect()
    }

    fn reconcile(&self, key: &Key) -> Result<(), Failure> {
        let run = match self.objects.get("pipelineruns", &key.0, &key.1) {
            Err(failure) if failure.code == 404 => return Ok(()),
            run => run?,
        };
        if object::is_deleting(&run) {
            return self.finalize(&run);
        }
        let Some(state) = annotation(&run, pac::STATE) else {
            return Ok(());
        };
        self.add_finalizer(&run)?;
        if matches!(state, "completed" | "failed") {
            return Ok(());
        }
        let repository = annotation(&run, REPOSITORY).unwrap_or_default();
        let Ok(repository) = self.objects.get("repositories", &key.0, repository) else {
            return Ok(());
        };
        if annotation(&run, pac::SECRET_CREATED) == Some("false") {
            let created = json!({"annotations": {pac::SECRET_CREATED: "true"}});
            self.merge(key, json!({"metadata": created}))?;
        }
        let reported = annotation(&run, pac::REPORTED) == Some("true");
        let pending = text(&run, "/spec/status") == PENDING;
        if text(&succeeded(&run), "/reason") == "Running" && !reported {
            self.merge(key, json!({"metadata": marks("started", true)}))?;
            return Ok(());
        }
        if state == "queued" && pending {
            return self.queue(&run, &repository);
        }
        if is_done(&run) || text(&run, "/spec/status") == "Cancelled" {
            self.merge(key, json!({"metadata": marks("completed", false)}))?;
            self.start_next(&joined(&key_of(&repository)), &joined(key));
        }
        Ok(())
    }

    /// Puts the runs of the order into the queue, and starts those that it lets run.
    fn queue(&self, run: &Value, repository: &Value) -> Result<(), Failure> {
        let Some(order) = annotation(run, EXECUTION_ORDER) else {
            return Ok(());
        };
        let queue = joined(&key_of(repository));
        let limit = effective_limit(&self.objects, repository);
        if limit == Some(0) {
            self.with_queues(|queues| queues.remove(&queue, &joined(&key_of(run))));
            return self.start(run);
        }
        let mut runs = self.in_state(order, "queued");
        let mut error = None;
        for _ in 0..ROUNDS {
            let acquired = self.with_queues(|queues| queues.add_to_running(&queue, limit, &runs));
            let mut again = false;
            for acquired in acquired {
                let started = self.get(&acquired).and_then(|run| self.start(&run));
                if let Err(failure) = started {
                    self.with_queues(|queues| queues.remove(&queue, &acquired));
                    runs.retain(|run| *run != acquired);
                    if failure.code != 404 {
                        error = Some(failure);
                    }
                    again = true;
                }
            }
            if !again {
                break;
            }
        }
        error.map_or(Ok(()), Err)
    }

    /// At the end of a run: lets the next one run. One that cannot be started is dropped.
    fn start_next(&self, queue: &str, ended: &str) {
        let mut ended = ended.to_owned();
        while let Some(next) = self.with_queues(|queues| queues.remove_and_take(queue, &ended)) {
            if self.get(&next).and_then(|run| self.start(&run)).is_ok() {
                return;
            }
            ended = next;
        }
    }

    fn start(&self, run: &Value) -> Result<(), Failure> {
        let mut patch = json!({"metadata": marks("started", true)});
        if text(run, "/spec/status") == PENDING {
            object::as_map(&mut patch).insert("spec".to_owned(), json!({"status": ""}));
        }
        self.merge(&key_of(run), patch)
    }

    /// A deleted run leaves its queue and lets the next one run; an error there strands a slot.
    fn finalize(&self, run: &Value) -> Result<(), Failure> {
        let finalizers = run
            .pointer("/metadata/finalizers")
            .and_then(Value::as_array);
        let finalizers = finalizers.cloned().unwrap_or_default();
        if !finalizers
            .iter()
            .any(|finalizer| finalizer == pac::FINALIZER)
        {
            return Ok(());
        }
        let (namespace, _) = key_of(run);
        let repository = annotation(run, REPOSITORY).unwrap_or_default();
        let queue = format!("{namespace}/{repository}");
        match annotation(run, pac::STATE) {
            None | Some("completed" | "failed") => {}
            Some(_)
                if self
                    .objects
                    .get("repositories", &namespace, repository)
                    .is_err() =>
            {
                self.with_queues(|queues| queues.remove_repository(&queue));
            }
            Some(_) => {
                let ended = joined(&key_of(run));
                let next = self.with_queues(|queues| queues.remove_and_take(&queue, &ended));
                if let Some(next) = next {
                    self.get(&next).and_then(|run| self.start(&run))?;
                }
            }
        }
        let rest: Vec<&Value> = finalizers
            .iter()
            .filter(|finalizer| *finalizer != pac::FINALIZER)
            .collect();
        self.merge(&key_of(run), json!({"metadata": {"finalizers": rest}}))
    }

    fn add_finalizer(&self, run: &Value) -> Result<(), Failure> {
        if object::has_finalizers(run) {
            return Ok(());
        }
        let finalizers = json!({"finalizers": [pac::FINALIZER]});
        self.merge(&key_of(run), json!({"metadata": finalizers}))
    }

    /// Reads the run of an entry of an order.
    fn get(&self, key: &str) -> Result<Value, Failure> {
        let (namespace, name) = key.split_once('/').unwrap_or_default();
        self.objects.get("pipelineruns", namespace, name)
    }

    fn merge(&self, (namespace, name): &Key, patch: Value) -> Result<(), Failure> {
        self.objects
            .merge("pipelineruns", namespace, name, patch)
            .map(drop)
    }
}

/// The annotation and the label of a state, and the mark that it was reported.
fn marks(state: &str, reported: bool) -> Value {
    let mut annotations = json!({pac::STATE: state});
    if reported {
        object::as_map(&mut annotations).insert(pac::REPORTED.to_owned(), json!("true"));
    }
    json!({"labels": {pac::STATE: state}, "annotations": annotations})
}

fn joined((namespace, name): &Key) -> String {
    format!("{namespace}/{name}")
}
