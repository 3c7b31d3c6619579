//! What the controller does while limits are disabled.

use std::sync::Arc;

use pac_concurrency::kubernetes::Cluster;
use pac_concurrency::kubernetes::annotations::AnnotationController;

use super::health::Health;
use super::{Args, Left, WithoutStore, switched};
use crate::config::Sources;
use crate::end::End;

/// Waits, or does without a store, until a signal comes or limits are enabled.
pub(super) async fn run(
    args: &Args,
    sources: &Sources,
    cluster: &Arc<dyn Cluster>,
    health: &Health,
    end: &mut End,
) -> Left {
    let queues = async {
        match args.without_store {
            WithoutStore::Wait => {
                tracing::warn!(
                    "limits are disabled: no run is started; set concurrency-enabled to true and \
                     name a driver, or say --without-store annotations"
                );
                health.disabled();
                std::future::pending::<()>().await;
            }
            WithoutStore::Annotations => {
                tracing::warn!(
                    "limits are kept without a store: of one controller at a time alone"
                );
                health.without_store();
                let options = args.controller_options();
                AnnotationController::new(Arc::clone(cluster), options)
                    .run()
                    .await;
            }
        }
    };
    tokio::select! {
        () = queues => Left::Switched,
        () = end.asked() => Left::Asked,
        () = switched(sources, true) => Left::Switched,
    }
}
