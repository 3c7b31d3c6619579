//! The probes of Kubernetes.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use pac_concurrency::kubernetes::PipelinesController;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::exit::{Exit, Failure};

/// What the probes answer by.
#[derive(Debug, Default)]
pub(super) struct Health {
    standing: Mutex<Standing>,
}

/// What the controller is doing.
#[derive(Debug, Default)]
enum Standing {
    /// It connects to the store.
    #[default]
    Connecting,
    Controls(PipelinesController),
    /// It waits for limits to be enabled.
    Disabled,
    /// It keeps the queues without a store.
    WithoutStore,
    Closing,
}

/// An answer to a probe: its status and what there is to say.
type Answer = (StatusCode, &'static str);

impl Health {
    pub(super) fn connecting(&self) {
        self.set(Standing::Connecting);
    }

    pub(super) fn controls(&self, controller: PipelinesController) {
        self.set(Standing::Controls(controller));
    }

    pub(super) fn disabled(&self) {
        self.set(Standing::Disabled);
    }

    pub(super) fn without_store(&self) {
        self.set(Standing::WithoutStore);
    }

    pub(super) fn closing(&self) {
        self.set(Standing::Closing);
    }

    fn set(&self, standing: Standing) {
        *self.standing.lock().unwrap_or_else(PoisonError::into_inner) = standing;
    }

    /// Whether the process does what it is there for; if not, it has to be started anew.
    fn live(&self) -> Answer {
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match &*standing {
            Standing::Controls(controller) if controller.manager().health().dead.is_some() => (
                StatusCode::SERVICE_UNAVAILABLE,
                "a part of the manager has died\n",
            ),
            _ => (StatusCode::OK, "ok\n"),
        }
    }

    /// Whether runs are being seen to.
    fn ready(&self) -> Answer {
        let no = |why| (StatusCode::SERVICE_UNAVAILABLE, why);
        let standing = self.standing.lock().unwrap_or_else(PoisonError::into_inner);
        match &*standing {
            Standing::Connecting => no("the store is not connected\n"),
            Standing::Controls(controller) => {
                if !controller.manager().health().is_ready() {
                    no("the store has no session of this controller\n")
                } else if controller.has_listed() {
                    (StatusCode::OK, "ok\n")
                } else {
                    no("the cluster's first lists are not complete\n")
                }
            }
            Standing::Disabled => no("limits are disabled: concurrency-enabled is false\n"),
            Standing::WithoutStore => (StatusCode::OK, "ok, without a store\n"),
            Standing::Closing => no("closing\n"),
        }
    }
}

/// Answers probes at an address until the result is dropped.
pub(super) async fn serve(address: SocketAddr, health: Arc<Health>) -> Result<Probes, Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        let message = format!("--health-address {address}: {error}; name a free address");
        Failure::new(Exit::Usage, message)
    })?;
    let live = async |State(health): State<Arc<Health>>| health.live();
    let ready = async |State(health): State<Arc<Health>>| health.ready();
    let router = Router::new()
        .route("/healthz", get(live))
        .route("/readyz", get(ready))
        .with_state(health);
    let task = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!(%error, "probes are not answered any more");
        }
    });
    Ok(Probes(task))
}

/// The server of the probes.
#[derive(Debug)]
pub(super) struct Probes(JoinHandle<()>);

impl Drop for Probes {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_sees_to_runs_is_ready() {
        let health = Health::default();
        assert_eq!(health.live().0, StatusCode::OK);
        assert_eq!(health.ready().0, StatusCode::SERVICE_UNAVAILABLE);
        health.disabled();
        assert!(health.ready().1.contains("concurrency-enabled"));
        health.without_store();
        assert_eq!(health.ready().0, StatusCode::OK);
        health.closing();
        assert_eq!(
            (health.live().0, health.ready().0),
            (StatusCode::OK, StatusCode::SERVICE_UNAVAILABLE)
        );
    }
}
