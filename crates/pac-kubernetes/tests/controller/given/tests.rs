//! The cases on a given cluster, and the way to it on a server in this process.

use std::path::Path;

use pac_kubernetes::install::Install;
use pac_kubernetes_mock::{ApiOptions, ApiServer, Effect, Ending, PacWatcher, Policy, Requests};
use pac_pipelines::vocabulary::OUR_EXECUTION_ORDER;
use serde_json::json;

use super::{BINDINGS, DEFINITIONS, KINDS, MADE_BY, NAMESPACES, POLICIES, US, run};
use crate::cases::{self, Case};
use crate::common::kubeconfig_file;
use crate::setting::RUNS;
use crate::world::{Place, World};

/// The variable that names a kubeconfig. `cargo xtask test` leaves the test out, aloud, where it is
/// not set.
const VARIABLE: &str = "PAC_TEST_KUBECONFIG";

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn given_cluster_passes_the_cases() {
    let path = std::env::var(VARIABLE).unwrap_or_else(|_| {
        panic!(
            "{VARIABLE} is not set: it names the kubeconfig of a cluster for tests; without one, \
             run the tests with `cargo xtask test`, or with `-- --skip given_cluster`"
        )
    });
    let failed = run(Path::new(&path), &cases::all()).await;
    assert_eq!(failed, Ok(Vec::new()), "these cases failed");
}

/// A server as a new cluster is: without Tekton's kinds, and its policies by their names.
async fn new_cluster() -> ApiServer {
    let mut bare = ApiOptions::default();
    bare.custom_resources = false;
    let server = ApiServer::start_with(bare).await;
    recognise(&server);
    server
}

fn recognise(server: &ApiServer) {
    let policy = Install::default().policies();
    let name = policy[0].name();
    let order = OUR_EXECUTION_ORDER.to_owned();
    server.recognise(Policy::new(name, name, Effect::Takeover { order }));
}

async fn run_on(server: &ApiServer, cases: &[Case]) -> Result<Vec<String>, String> {
    run(kubeconfig_file(server).path(), cases).await
}

/// How many objects there are of each kind of which some are made.
fn objects(server: &ApiServer) -> [usize; 4] {
    KINDS.map(|kind| server.handle().list(kind, "", "").unwrap().len())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_over_tcp_passes_the_cases_and_is_left_as_it_was() {
    let server = new_cluster().await;
    let before = objects(&server);
    let failed = run_on(&server, &cases::all()).await;
    assert_eq!(failed, Ok(Vec::new()), "these cases failed");
    assert_eq!(objects(&server), before);
    assert_eq!(server.handle().list(RUNS, "", "").unwrap_err().code, 404);
    let namespaces = Requests::writes().resource(NAMESPACES);
    assert!(server.count(&namespaces) > 2 * cases::all().len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_a_case_that_fails_has_made_is_removed_and_so_is_what_a_killed_one_left() {
    let server = new_cluster().await;
    let before = objects(&server);
    let left = json!({"metadata": {"name": "pac-test-left", "labels": {MADE_BY: US}}});
    server.handle().create(NAMESPACES, left).unwrap();
    let fails: Case = ("fails", |place| Box::pin(fails(place)));
    let passes: Case = ("passes", |_| Box::pin(async {}));
    let failed = run_on(&server, &[fails, passes]).await;
    assert_eq!(failed, Ok(vec!["fails".to_owned()]));
    assert_eq!(objects(&server), before);
    let left = server.handle().get(NAMESPACES, "", "pac-test-left");
    assert!(left.is_err());
}

async fn fails(place: Place) {
    let world = World::at(&place, &[("website", 1)], Ending::WhenTold).await;
    world.event("website", "pr", 2);
    assert_eq!(world.running("website"), ["pr0"], "no controller is there");
}

/// Its kinds are used, and stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_that_has_the_kinds_keeps_them() {
    let server = ApiServer::start().await;
    recognise(&server);
    let passes: Case = ("passes", |_| Box::pin(async {}));
    assert_eq!(run_on(&server, &[passes]).await, Ok(Vec::new()));
    let definitions = Requests::writes().resource(DEFINITIONS);
    assert_eq!(server.requests(&definitions), []);
    let runs = Requests::writes().resource(RUNS);
    assert!(server.count(&runs) > 0, "by which the policy was tried");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cluster_that_is_in_use_is_refused_and_left_alone() {
    let with_pac = ApiServer::start().await;
    PacWatcher::deploy(&with_pac.handle(), 1).unwrap();
    let installed = ApiServer::start().await;
    for manifest in Install::default().policies() {
        let plural = match manifest.kind() {
            "MutatingAdmissionPolicy" => POLICIES,
            _ => BINDINGS,
        };
        let object = manifest.as_value().clone();
        installed.handle().create(plural, object).unwrap();
    }
    for (server, found) in [
        (with_pac, "the Deployment pipelines-as-code-watcher"),
        (installed, "the policy takeover."),
    ] {
        let why = run_on(&server, &cases::all()).await.unwrap_err();
        assert!(why.contains(found) && why.contains("name a"), "{why}");
        assert_eq!(server.requests(&Requests::writes()), []);
    }
}
