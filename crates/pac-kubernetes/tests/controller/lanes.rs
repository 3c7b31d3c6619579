//! Queues that a Namespace says, in gate mode: for runs of Pipelines-as-Code and for others.

use std::sync::Arc;

use pac_core::driver::Driver;
use pac_core::manager::ConcurrencyManager;
use pac_kubernetes::{KubernetesCluster, ReportOptions, Reporter};
use pac_kubernetes_mock::{
    ApiServer, Effect, Ending, Handle, PacController, Policy, Tekton, Template,
};
use pac_pipelines::{Mode, vocabulary};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::common;
use crate::setting::{RUNS, Working, install, is_done, name, store, until};

/// A cluster with the policy of the mode about Namespaces, and `ci` with these annotations.
struct World {
    server: ApiServer,
    objects: Handle,
    store: Arc<dyn Driver>,
    tekton: Tekton,
}

impl World {
    async fn new(annotations: &Value) -> Self {
        let (server, objects) = common::server().await;
        server.recognise(Policy::new(
            "namespace",
            "namespace",
            Effect::GateNamespace {
                limits: vocabulary::NAMESPACE_LIMITS.map(str::to_owned).to_vec(),
                held: vocabulary::HELD.to_owned(),
            },
        ));
        install(&objects, "namespace");
        let world = Self {
            tekton: Tekton::start(&server, Ending::WhenTold),
            store: store(),
            server,
            objects,
        };
        world.annotate(annotations);
        world
    }

    fn annotate(&self, annotations: &Value) {
        let patch = json!({"metadata": {"annotations": annotations}});
        self.objects.merge("namespaces", "", "ci", patch).unwrap();
    }

    async fn controller(&self) -> Working {
        Working::start(&self.server, &self.store, Mode::Gate).await
    }

    /// A run that a cron job or a person makes: nothing on it is of Pipelines-as-Code.
    fn plain(&self, name: &str, labels: &Value) {
        let run = json!({
            "metadata": {"name": name, "namespace": "ci", "labels": labels},
            "spec": {"pipelineSpec": {"tasks": []}},
        });
        let made = self.objects.create(RUNS, run).unwrap();
        assert_eq!(made["spec"]["status"], "PipelineRunPending", "it is held");
    }

    fn running(&self) -> Vec<String> {
        let all = self.objects.list(RUNS, "ci", "").unwrap_or_default();
        let running = all
            .iter()
            .filter(|run| run["status"]["startTime"].is_string() && !is_done(run));
        let mut names: Vec<_> = running.map(name).collect();
        names.sort();
        names
    }

    /// Waits until just these run, and looks whether it stays so.
    async fn runs(&self, expected: &[&str]) {
        until(&format!("{expected:?} run"), || self.running() == expected).await;
        sleep(common::options().request_timeout / 10).await;
        assert_eq!(self.running(), expected);
    }

    fn finish(&self, name: &str) {
        self.tekton.finish("ci", name, true).unwrap();
    }
}

fn branch(name: &str) -> Value {
    json!({"branch": name})
}

/// Without Pipelines-as-Code, and without annotations on the runs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_of_a_namespace_holds_for_runs_of_anybody() {
    let world = World::new(&json!({vocabulary::LIMIT: "2"})).await;
    let working = world.controller().await;
    for name in ["a", "b", "c", "d"] {
        world.plain(name, &json!({}));
        until("it is known", || {
            let run = format!("ci/{name}").parse().unwrap();
            working.controller.seen(&run).is_some()
        })
        .await;
    }
    until("two run", || world.running().len() == 2).await;
    let first = world.running();
    world.finish(&first[0]);
    until("a third has started", || {
        let running = world.running();
        running.len() == 2 && running != first
    })
    .await;
    // A restart knows both that run and the one that waits.
    working.end().await;
    let _second = world.controller().await;
    world.annotate(&json!({vocabulary::LIMIT: "3"}));
    until("all that are left run", || world.running().len() == 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_of_two_branches_run_side_by_side_and_two_of_one_do_not() {
    let lanes = json!({vocabulary::LANE_LABELS: "branch", vocabulary::LANE_LIMIT: "1"});
    let world = World::new(&lanes).await;
    let website = json!({"metadata": {"name": "website", "namespace": "ci"}, "spec": {}});
    world.objects.create("repositories", website).unwrap();
    let first = world.controller().await;
    let pac = PacController::new(&world.server);
    for (run, of) in [("m1", "main"), ("n1", "next")] {
        let mut template = Template::exact(run);
        template.labels.push(("branch".to_owned(), of.to_owned()));
        pac.event("ci", "website", &[template]).unwrap();
    }
    world.runs(&["m1", "n1"]).await;
    world.plain("m2", &branch("main"));
    world.plain("n2", &branch("next"));
    world.runs(&["m1", "n1"]).await;
    first.end().await;
    let second = world.controller().await;
    world.runs(&["m1", "n1"]).await;
    world.finish("m1");
    world.runs(&["m2", "n1"]).await;
    let manager: &ConcurrencyManager = second.controller.manager();
    let lane = manager
        .status(&"ci/lane.next".parse().unwrap())
        .await
        .unwrap();
    assert_eq!((lane.running.len(), lane.queued.len()), (1, 1));
    // Another label is another lane, which is free.
    let other = json!({"metadata": {"labels": branch("other")}});
    world.objects.merge(RUNS, "ci", "n2", other).unwrap();
    world.runs(&["m2", "n1", "n2"]).await;
}

/// By an expression, whose mistakes people see on the run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_whose_lane_cannot_be_told_stays_held_and_says_why() {
    let cluster = "object.metadata.annotations['example.org/cluster']";
    let lanes = json!({vocabulary::LANE: cluster, vocabulary::LIMIT: "1"});
    let world = World::new(&lanes).await;
    let working = world.controller().await;
    let connected: KubernetesCluster = common::cluster(&world.server, common::options()).await;
    let reporter = Reporter::new(&connected, ReportOptions::default());
    let controller = working.controller.clone();
    let reports = tokio::spawn(async move { reporter.run(&controller).await });
    world.plain("x", &json!({}));
    let events = || world.objects.list("events", "ci", "").unwrap_or_default();
    until("it is told", || {
        events().iter().any(|event| {
            let note = event["note"].as_str().unwrap_or_default();
            event["reason"] == "NotQueued" && note.contains("No such key")
        })
    })
    .await;
    world.runs(&[]).await;
    let annotations = json!({"metadata": {"annotations": {"example.org/cluster": "c-7"}}});
    world.objects.merge(RUNS, "ci", "x", annotations).unwrap();
    world.runs(&["x"]).await;
    let lane = "ci/lane.c-7".parse().unwrap();
    let status = working.controller.manager().status(&lane).await.unwrap();
    assert_eq!(status.running.len(), 1);
    reports.abort();
}
