//! A server with Pipelines-as-Code in it.

use pac_kubernetes_mock::{ApiServer, Effect, PacWatcher, Policy};
use pac_pipelines::vocabulary::OUR_EXECUTION_ORDER;
use serde_json::json;

/// The policy of the mode takeover, and its binding.
pub(crate) const TAKEOVER: &str = "takeover.concurrency.pipelinesascode.tekton.dev";
/// The namespace of Pipelines-as-Code.
pub(crate) const PAC: &str = PacWatcher::NAMESPACE;
/// The Deployment of its watcher.
pub(crate) const WATCHER: &str = PacWatcher::DEPLOYMENT;

/// A server that knows our policy, with Pipelines-as-Code, whose watcher is scaled to 1 and has no
/// pod, and one Repository `ci/website` with the limit 1.
pub(crate) async fn server_with_pac() -> ApiServer {
    let server = ApiServer::start().await;
    let order = OUR_EXECUTION_ORDER.to_owned();
    server.recognise(Policy::new(TAKEOVER, TAKEOVER, Effect::Takeover { order }));
    let objects = server.handle();
    objects.create_namespace("ci").unwrap();
    PacWatcher::deploy(&objects, 1).unwrap();
    let repository = json!({
        "metadata": {"namespace": "ci", "name": "website"},
        "spec": {"url": "https://git.example.com/ci/website", "concurrency_limit": 1},
    });
    objects.create("repositories", repository).unwrap();
    server
}
