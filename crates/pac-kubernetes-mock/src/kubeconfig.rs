//! How clients find a server.

use serde_json::json;

/// A kubeconfig, as JSON, for a server at a [URL](crate::ApiServer::url). The token in it is
/// `s3cr3t`: the server does not ask for it, and nothing may print it.
#[must_use]
pub fn kubeconfig(url: &str) -> String {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "test",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": "s3cr3t"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    });
    config.to_string()
}
