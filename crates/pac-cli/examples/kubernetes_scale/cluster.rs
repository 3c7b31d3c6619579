//! The cluster: finished runs, as they stay in a real one, running ones, and such as wait.

use std::fmt;
use std::time::{Duration, Instant};

use pac_kubernetes_mock::{ApiOptions, ApiServer, Effect, Handle, PacController, Policy, Template};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::Failed;

const DOMAIN: &str = "pipelinesascode.tekton.dev";
const RUNS: &str = "pipelineruns";

/// The runs of one event in the Repository `team-0/burst`, of which [`BURST_LIMIT`] run at once.
pub(crate) const BURST: usize = 500;
const BURST_LIMIT: usize = 40;

/// How long anything may take that is waited for.
const LONG: Duration = Duration::from_secs(300);

/// How much there is in the cluster.
pub(crate) struct Size {
    namespaces: usize,
    repositories: usize,
    finished: usize,
    /// Each has a run that runs, and as many that wait as [`waiting`](Self::waiting) says.
    pub(crate) repositories_with_runs: usize,
    waiting: usize,
    bytes: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self {
            namespaces: 900,
            repositories: 3_000,
            finished: 8_000,
            repositories_with_runs: 500,
            waiting: 3,
            bytes: 44_000,
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (running, repositories) = (self.repositories_with_runs, self.repositories);
        write!(
            f,
            "{} PipelineRuns of {} KB ({} have ended, {running} run, {} wait), {repositories} \
             Repositories in {} namespaces.",
            self.finished + running * (1 + self.waiting),
            self.bytes / 1_000,
            self.finished,
            running * self.waiting,
            self.namespaces
        )
    }
}

/// Starts a server with all of that in it.
pub(crate) async fn start(size: &Size) -> Result<ApiServer, Failed> {
    let options = {
        let mut options = ApiOptions::default();
        // What a watch may be behind; the history of what is made here is of no use.
        options.history = 5_000;
        options
    };
    let server = ApiServer::start_with(options).await;
    let objects = server.handle();
    take_over(&server, &objects)?;
    for at in 0..size.namespaces {
        objects.create_namespace(&format!("team-{at}"))?;
    }
    for at in 0..size.repositories {
        add_repository(
            &objects,
            &size.namespace(at),
            &format!("repository-{at}"),
            1,
        )?;
    }
    add_repository(&objects, "team-0", "burst", BURST_LIMIT)?;
    for at in 0..size.finished {
        let repository = at % size.repositories;
        let (name, state) = (format!("ended-{at}"), "completed");
        let run = size.run(repository, &name, state, &ended_spec(size.bytes));
        objects.create(RUNS, run)?;
    }
    for repository in 0..size.repositories_with_runs {
        let running = format!("running-{repository}");
        let run = size.run(repository, &running, "started", &spec(size.bytes, false));
        objects.create(RUNS, run)?;
        let status = json!({"status": {"startTime": "2026-11-29T08:00:02Z", "conditions": [
            {"type": "Succeeded", "status": "Unknown", "reason": "Running", "message": "Tasks Completed: 0"},
        ]}});
        objects.merge_status(RUNS, &size.namespace(repository), &running, status)?;
        for at in 0..size.waiting {
            let name = format!("waiting-{repository}-{at}");
            let spec = spec(size.bytes, true);
            objects.create(RUNS, size.run(repository, &name, "queued", &spec))?;
        }
    }
    Ok(server)
}

/// Makes the runs of one event, and waits until as many of them as may were started, which have to be
/// the first ones; answers with how long that took after the last one was made.
pub(crate) async fn burst(server: &ApiServer) -> Result<Duration, Failed> {
    let templates: Vec<_> = (0..BURST)
        .map(|at| Template::exact(&format!("burst-{at}")))
        .collect();
    let order = PacController::new(server).event("team-0", "burst", &templates)?;
    let (objects, begun) = (server.handle(), Instant::now());
    loop {
        let is_started = |name: &&String| {
            let run = objects.get(RUNS, "team-0", name);
            run.is_ok_and(|run| run.pointer("/spec/status").is_none())
        };
        let started: Vec<_> = order.iter().filter(is_started).collect();
        if started.len() >= BURST_LIMIT {
            if started != order.iter().take(BURST_LIMIT).collect::<Vec<_>>() {
                return Err(format!("not the first ones were started: {started:?}").into());
            }
            return Ok(begun.elapsed());
        }
        if begun.elapsed() > LONG {
            return Err("the burst does not start".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
}

impl Size {
    fn namespace(&self, repository: usize) -> String {
        format!("team-{}", repository % self.namespaces)
    }

    fn run(&self, repository: usize, name: &str, state: &str, spec: &Value) -> Value {
        let namespace = self.namespace(repository);
        let order = format!("{namespace}/{name}");
        json!({
            "metadata": {
                "namespace": namespace,
                "name": name,
                "labels": {
                    "app.kubernetes.io/managed-by": DOMAIN,
                    format!("{DOMAIN}/state"): state,
                    format!("{DOMAIN}/repository"): format!("repository-{repository}"),
                },
                "annotations": {
                    format!("{DOMAIN}/repository"): format!("repository-{repository}"),
                    format!("{DOMAIN}/state"): state,
                    format!("{DOMAIN}/secret-created"): "true",
                    format!("{DOMAIN}/log-url"): "https://console.example.com/pipelineruns/1",
                    format!("{DOMAIN}/sha-title"): "Build what was pushed",
                    format!("concurrency.{DOMAIN}/execution-order"): order,
                },
                "managedFields": managed_fields(),
            },
            "spec": spec,
        })
    }
}

/// The policy that moves the execution order out of sight of Pipelines-as-Code's own queue.
fn take_over(server: &ApiServer, objects: &Handle) -> Result<(), Failed> {
    let (name, order) = ("takeover", format!("concurrency.{DOMAIN}/execution-order"));
    server.recognise(Policy::new(name, name, Effect::Takeover { order }));
    let policy = json!({"metadata": {"name": name}, "spec": {}});
    objects.create("mutatingadmissionpolicies", policy)?;
    let binding = json!({"metadata": {"name": name}, "spec": {"policyName": name}});
    objects.create("mutatingadmissionpolicybindings", binding)?;
    Ok(())
}

fn add_repository(
    objects: &Handle,
    namespace: &str,
    name: &str,
    limit: usize,
) -> Result<(), Failed> {
    let repository = json!({
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"url": format!("https://git.example.com/{namespace}/{name}"), "concurrency_limit": limit},
    });
    objects.create("repositories", repository)?;
    Ok(())
}

/// Tasks with scripts, as Pipelines-as-Code puts them into a run; with the rest of the run they have
/// about so many bytes.
fn spec(bytes: usize, is_held: bool) -> Value {
    let script = "set -eu\necho build the sources and run the tests\n".repeat(20);
    let task = |at: usize| {
        json!({
            "name": format!("task-{at}"),
            "params": [{"name": "revision", "value": "$(params.revision)"}],
            "taskSpec": {"steps": [
                {"name": "step", "image": "registry.example.com/ci/image:1", "script": script},
            ], "workspaces": [{"name": "source", "mountPath": "/workspace/source"}]},
        })
    };
    let one = task(0).to_string().len();
    let rest = managed_fields().to_string().len() + 1_500;
    let tasks: Vec<_> = (0..bytes.saturating_sub(rest) / one).map(task).collect();
    let pipeline = json!({"tasks": tasks});
    if is_held {
        json!({"status": "PipelineRunPending", "pipelineSpec": pipeline})
    } else {
        json!({"pipelineSpec": pipeline})
    }
}

/// The selection leaves them out, so that only their size matters.
fn ended_spec(bytes: usize) -> Value {
    json!({"pipelineSpec": {"description": "x".repeat(bytes)}})
}

/// What a real server keeps of the changes of an object.
fn managed_fields() -> Value {
    let fields: serde_json::Map<String, Value> = (0..120)
        .map(|at| (format!("f:{DOMAIN}/field-{at}"), json!({})))
        .collect();
    json!([
        {"manager": "controller", "operation": "Update", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:annotations": fields}}},
        {"manager": "watcher", "operation": "Update", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:metadata": {"f:labels": fields}}},
    ])
}
