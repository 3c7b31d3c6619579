//! What each process does for the store beside its requests: it deletes what nobody needs, and looks
//! after the upkeep. In a task of its own, so that no request waits for it.

use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::Store;

/// How long one round may spend on what removals have left behind, and how long on beginning to
/// tidy repositories. The next round goes on.
const EACH_FOR: Duration = Duration::from_secs(10);

/// The task of the current round, or of the last. It ends with this.
#[derive(Debug, Default)]
pub(crate) struct Chores(Mutex<Option<JoinHandle<()>>>);

impl Chores {
    /// Begins another round, unless the last one is still under way. Waits for nothing.
    ///
    /// # Panics
    /// If the last round did: a bug, which must not go on unseen.
    pub(crate) async fn begin(&self, store: &Arc<Store>) {
        let last = self.task().take_if(|task| task.is_finished());
        if let Some(last) = last
            && let Err(error) = last.await
            && error.is_panic()
        {
            resume_unwind(error.into_panic());
        }
        let mut task = self.task();
        if task.is_none() {
            let store = Arc::clone(store);
            *task = Some(tokio::spawn(async move { store.do_chores().await }));
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<JoinHandle<()>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Chores {
    fn drop(&mut self) {
        if let Some(task) = self.task().take() {
            task.abort();
        }
    }
}

impl Store {
    async fn do_chores(&self) {
        self.keep_up().await;
        let _ = timeout(EACH_FOR, self.delete_left_behind()).await;
        self.tidy(Instant::now() + EACH_FOR).await;
    }
}
