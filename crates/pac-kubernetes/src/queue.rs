//! The object that shows the queue of a Repository. Pure.
//!
//! It has no `spec`, since nothing reads it, and its `status` is no subresource, so that one request
//! makes it and brings it up to date.

use kube::core::{ApiResource, GroupVersion};
use pac_core::manager::RepositoryStatus;
use pac_core::{Limit, RepositoryKey, SessionId, Timestamp, Uid};
use serde_json::{Map, Value, json};

pub(crate) const GROUP: &str = "concurrency.pipelinesascode.tekton.dev";
pub(crate) const VERSION: &str = "v1alpha1";
pub(crate) const API_VERSION: &str = "concurrency.pipelinesascode.tekton.dev/v1alpha1";
pub(crate) const KIND: &str = "ConcurrencyQueue";
pub(crate) const PLURAL: &str = "concurrencyqueues";

/// The fields of `status`.
pub(crate) const LIMIT: &str = "limit";
pub(crate) const RUNNING: &str = "running";
pub(crate) const WAITING: &str = "waiting";
pub(crate) const OLDEST: &str = "oldestWaitingSince";

/// What is shown of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Queue {
    limit: Limit,
    running: usize,
    waiting: usize,
    /// Since when the run waits that has waited longest.
    oldest: Option<Timestamp>,
}

impl Queue {
    /// One in which nothing runs and nothing waits.
    pub(crate) fn idle(limit: Limit) -> Self {
        Self {
            limit,
            running: 0,
            waiting: 0,
            oldest: None,
        }
    }

    pub(crate) fn of(status: &RepositoryStatus) -> Self {
        Self {
            limit: status.limit,
            running: status.running.len(),
            waiting: status.queued.len(),
            oldest: status.queued.iter().filter_map(|run| run.queued_at).min(),
        }
    }

    /// The object, as it is applied. It goes with the Repository of this uid.
    pub(crate) fn object(&self, repository: &RepositoryKey, owner: &Uid) -> Value {
        let mut status = Map::new();
        // Without a limit there is no field: 0 would look like a limit.
        if let Some(limit) = self.limit.get() {
            status.insert(LIMIT.to_owned(), limit.into());
        }
        status.insert(RUNNING.to_owned(), self.running.into());
        status.insert(WAITING.to_owned(), self.waiting.into());
        if let Some(oldest) = self.oldest {
            status.insert(OLDEST.to_owned(), oldest.to_string().into());
        }
        json!({
            "apiVersion": API_VERSION,
            "kind": KIND,
            "metadata": {
                "name": repository.name(),
                "namespace": repository.namespace(),
                "labels": {"app.kubernetes.io/managed-by": "pac-concurrency"},
                "ownerReferences": [{
                    "apiVersion": "pipelinesascode.tekton.dev/v1alpha1",
                    "kind": "Repository",
                    "name": repository.name(),
                    "uid": owner.as_str(),
                }],
            },
            "status": status,
        })
    }
}

/// The session whose controller shows a queue, the same for all who know this state: the one that
/// the next grant goes to, or else that of the last grant. `None` where no controller looks after a
/// run of the Repository.
pub(crate) fn writer(status: &RepositoryStatus) -> Option<SessionId> {
    let next = status.queued.iter().find_map(|run| run.owner);
    let last = || {
        let mut running = status.running.iter().rev();
        running.find(|run| !run.orphaned).map(|run| run.session)
    };
    next.or_else(last)
}

/// The kind, as the client addresses it.
pub(crate) fn resource() -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: GroupVersion::gv(GROUP, VERSION).api_version(),
        kind: KIND.to_owned(),
        plural: PLURAL.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pac_core::manager::{Admission, ConcurrencyManager, ManagerOptions};
    use pac_core::protocol::RunRequest;
    use pac_memory::{MemoryDriver, MemoryOptions};

    use super::*;

    async fn admit(manager: &ConcurrencyManager, run: &str) -> Admission {
        let request = RunRequest::durable(run.parse().unwrap(), "u".parse().unwrap());
        let repository = "ci/website".parse().unwrap();
        manager.admit(&repository, request).await.unwrap()
    }

    #[tokio::test]
    async fn an_object_shows_what_runs_and_what_waits_and_since_when() {
        let driver = Arc::new(MemoryDriver::new(MemoryOptions::default()));
        let open = || ConcurrencyManager::open(driver.clone(), ManagerOptions::default());
        let (first, second) = (open().await.unwrap(), open().await.unwrap());
        let repository = "ci/website".parse().unwrap();
        let limit = first.set_limit(&repository, Limit::new(1), None).await;
        assert!(limit.unwrap().accepted);
        let _runs = admit(&first, "ci/a").await;
        let status = first.status(&repository).await.unwrap();
        assert_eq!(writer(&status), Some(first.session()));
        let _next = admit(&second, "ci/b").await;
        let _last = admit(&first, "ci/c").await;
        let status = first.status(&repository).await.unwrap();
        assert_eq!(writer(&status), Some(second.session()));
        let since = status.queued[0].queued_at.unwrap();
        let object = Queue::of(&status).object(&repository, &"u-1".parse().unwrap());
        let expected = json!({
            "apiVersion": "concurrency.pipelinesascode.tekton.dev/v1alpha1",
            "kind": "ConcurrencyQueue",
            "metadata": {
                "name": "website", "namespace": "ci",
                "labels": {"app.kubernetes.io/managed-by": "pac-concurrency"},
                "ownerReferences": [{"apiVersion": "pipelinesascode.tekton.dev/v1alpha1",
                    "kind": "Repository", "name": "website", "uid": "u-1"}],
            },
            "status": {"limit": 1, "running": 1, "waiting": 2,
                "oldestWaitingSince": since.to_string()},
        });
        assert_eq!(object, expected);
    }

    #[test]
    fn one_without_a_limit_shows_none() {
        let object = Queue::idle(Limit::UNLIMITED);
        let object = object.object(&"ci/a".parse().unwrap(), &"u".parse().unwrap());
        assert_eq!(object["status"], json!({"running": 0, "waiting": 0}));
        assert_eq!(API_VERSION, resource().api_version);
    }
}
