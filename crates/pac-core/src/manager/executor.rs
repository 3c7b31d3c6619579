//! Where the work of a manager is done.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};

use tokio::runtime::Handle;

/// The runtime on which the manager was opened, and the panics of its tasks.
#[derive(Debug)]
pub(super) struct Executor {
    runtime: Handle,
    panics: Arc<AtomicU64>,
}

impl Executor {
    /// On the current runtime.
    pub(super) fn here() -> Self {
        Self {
            runtime: Handle::current(),
            panics: Arc::default(),
        }
    }

    /// Tasks that ended in a panic.
    pub(super) fn panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }

    /// Runs `work` as far as it goes without waiting, and the rest in a task.
    pub(super) fn run(&self, work: impl Future<Output = ()> + Send + 'static) {
        // The caller may be on another runtime, or on none.
        let runtime = self.runtime.enter();
        let mut work = Box::pin(work);
        let first = work.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        drop(runtime);
        if first.is_pending() {
            self.spawn(work);
        }
    }

    /// Runs `work` in a task. One that panics is counted.
    pub(super) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let watched = Watched(Arc::clone(&self.panics));
        self.runtime.spawn(async move {
            let _watched = watched;
            work.await;
        });
    }

    /// `work`, which needs the runtime, for a caller that may be polled on another one, or on
    /// none.
    pub(super) fn within<F: Future>(&self, work: F) -> Within<F> {
        Within {
            runtime: self.runtime.clone(),
            work: Box::pin(work),
        }
    }
}

/// See [`Executor::within`].
#[derive(Debug)]
pub(super) struct Within<F> {
    runtime: Handle,
    work: Pin<Box<F>>,
}

impl<F: Future> Future for Within<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let _entered = this.runtime.enter();
        this.work.as_mut().poll(cx)
    }
}

/// Dropped with a task: notices if that is because of a panic.
#[derive(Debug)]
struct Watched(Arc<AtomicU64>);

impl Drop for Watched {
    fn drop(&mut self) {
        if std::thread::panicking() {
            tracing::error!("a task of the manager panicked: this is a bug");
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
}
