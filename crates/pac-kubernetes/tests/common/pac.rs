//! A server with Pipelines-as-Code in it.

use pac_kubernetes_mock::{ApiServer, Effect, Policy};
use pac_pipelines::vocabulary::OUR_EXECUTION_ORDER;
use serde_json::json;

/// The policy of the mode takeover, and its binding.
pub(crate) const TAKEOVER: &str = "takeover.concurrency.pipelinesascode.tekton.dev";
/// The namespace of Pipelines-as-Code.
pub(crate) const PAC: &str = "pipelines-as-code";
/// The Deployment of its watcher.
pub(crate) const WATCHER: &str = "pipelines-as-code-watcher";

/// A server that knows our policy, with Pipelines-as-Code, whose watcher is scaled to 1 and has no
/// pod, and one Repository `ci/website` with the limit 1.
pub(crate) async fn server_with_pac() -> ApiServer {
    let server = ApiServer::start().await;
    let order = OUR_EXECUTION_ORDER.to_owned();
    server.recognise(Policy::new(TAKEOVER, TAKEOVER, Effect::Takeover { order }));
    let objects = server.handle();
    for namespace in [PAC, "ci"] {
        objects.create_namespace(namespace).unwrap();
    }
    let watcher = json!({
        "metadata": {"namespace": PAC, "name": WATCHER},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "watcher"}}},
    });
    objects.create("deployments", watcher).unwrap();
    let repository = json!({
        "metadata": {"namespace": "ci", "name": "website"},
        "spec": {"url": "https://git.example.com/ci/website", "concurrency_limit": 1},
    });
    objects.create("repositories", repository).unwrap();
    server
}
