//! What each process does for the store beside its requests: it deletes what nobody needs, and looks
//! after the upkeep. In a task of its own, so that no request waits for it.

use std::panic::resume_unwind;
use std::sync::{Mutex, MutexGuard, PoisonError};
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
    pub(crate) async fn begin(&self, round: impl Future<Output = ()> + Send + 'static) {
        let last = self.task().take_if(|task| task.is_finished());
        if let Some(last) = last
            && let Err(error) = last.await
            && error.is_panic()
        {
            resume_unwind(error.into_panic());
        }
        let mut task = self.task();
        if task.is_none() {
            *task = Some(tokio::spawn(round));
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
    /// One round.
    pub(crate) async fn do_chores(&self) {
        self.keep_up().await;
        let _ = timeout(EACH_FOR, self.delete_left_behind()).await;
        self.tidy(Instant::now() + EACH_FOR).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::sync::{Notify, mpsc};
    use tokio::task::yield_now;

    use super::*;

    #[tokio::test]
    async fn there_is_one_round_at_a_time_and_it_ends_with_its_owner() {
        let (chores, go_on) = (Chores::default(), Arc::new(Notify::new()));
        let (done, mut rounds) = mpsc::unbounded_channel();
        for _ in 0..3 {
            let (done, go_on) = (done.clone(), Arc::clone(&go_on));
            let round = async move {
                go_on.notified().await;
                let _ = done.send(());
            };
            chores.begin(round).await;
            yield_now().await;
        }
        go_on.notify_one();
        assert_eq!(rounds.recv().await, Some(()));
        yield_now().await;
        chores.begin(async move { go_on.notified().await }).await;
        drop((chores, done));
        assert_eq!(rounds.recv().await, None, "no other round has begun");
    }

    #[tokio::test]
    async fn a_round_that_panicked_is_not_followed_by_another_unseen() {
        let chores = Arc::new(Chores::default());
        let bug = async { std::panic::panic_any("bug") };
        chores.begin(bug).await;
        yield_now().await;
        let next = tokio::spawn(async move { chores.begin(async {}).await });
        assert!(next.await.unwrap_err().is_panic());
    }
}
