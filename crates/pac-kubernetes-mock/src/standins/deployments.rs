//! A stand-in for what runs the pods of Deployments.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::follow::{Pace, key_of};
use crate::handle::Handle;
use crate::server::ApiServer;

/// How long it waits before it tries again what failed.
const AGAIN: Duration = Duration::from_millis(50);

/// Says of each Deployment that all of its replicas are ready, as soon as it is there; dropping it
/// leaves them as they are. There are no pods.
#[derive(Debug)]
pub struct Deployments {
    task: JoinHandle<()>,
}

impl Deployments {
    /// Starts it.
    ///
    /// # Panics
    /// Without a Tokio runtime.
    #[must_use]
    pub fn start(server: &ApiServer) -> Self {
        let objects = server.handle();
        let (mut pace, _handled) = Pace::new(&objects);
        let task = tokio::spawn(async move {
            loop {
                let all = objects.list("deployments", "", "");
                let is_done = all.is_ok_and(|all| {
                    let mut all = all.iter();
                    all.all(|deployment| make_ready(&objects, deployment))
                });
                pace.next((!is_done).then(|| Instant::now() + AGAIN)).await;
            }
        });
        Self { task }
    }

    /// Ends it: afterwards nothing more is written.
    pub async fn stop(mut self) {
        self.task.abort();
        // An error says that it was ended.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Deployments {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// False when it could not be written.
fn make_ready(objects: &Handle, deployment: &Value) -> bool {
    let number = |pointer: &str| deployment.pointer(pointer).and_then(Value::as_u64);
    let wanted = number("/spec/replicas").unwrap_or(1);
    if number("/status/readyReplicas").unwrap_or_default() == wanted {
        return true;
    }
    let ready = json!({"status": {"readyReplicas": wanted}});
    let (namespace, name) = key_of(deployment);
    objects
        .merge_status("deployments", &namespace, &name, ready)
        .is_ok()
}
