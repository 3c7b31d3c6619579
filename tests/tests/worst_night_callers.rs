//! Callers without a tokio runtime: every future of a manager can be polled by any executor, as
//! long as the runtime lives on which the manager was opened.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use pac_concurrency::driver::{Driver, Placement};
use pac_concurrency::{
    Admission, ConcurrencyManager, LeaseLoss, Limit, ManagerOptions, MemoryDriver, MemoryOptions,
    RunOutcome, RunStatus, Turn,
};
use pac_conformance::faults::{Fault, Faults, Request, When};
use pac_conformance::{durable, ephemeral, queued, repository, run, started, uid};
use tokio::runtime::Builder;

const DONE: RunOutcome = RunOutcome::Completed;

fn options() -> ManagerOptions {
    ManagerOptions::default()
}

/// Admissions and their ends always worked so: the measure of the rest.
#[test]
fn a_slot_is_asked_for_and_given_back_off_the_runtime() {
    off_the_runtime(async |manager| {
        let web = repository("web");
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&manager, &web, durable("a")).await;
        let b = queued(&manager, &web, durable("b")).await;
        manager.release(a, DONE).await.unwrap();
        assert!(matches!(b.await, Ok(Turn::Started(_))));
        let admitted = manager.admit_all(&web, None, vec![durable("c"), durable("d")]);
        assert_eq!(admitted.await.unwrap().len(), 2);
        let (run, uid) = (run("b"), uid("b"));
        let ended = manager.release_run(&web, &run, &uid, None, DONE).await;
        ended.unwrap();
        manager.cancel(&web, &run, None).await.unwrap();
        let adopted = manager.adopt(&web, durable("e")).await.unwrap();
        let Admission::Started(lease) = adopted else {
            unreachable!("it runs already: {adopted:?}");
        };
        assert!(manager.requeue(lease).await.unwrap().is_some());
        manager.remove_repository(&web).await.unwrap();
    });
}

/// A slot in one line, and its loss.
#[test]
fn a_slot_is_acquired_off_the_runtime() {
    off_the_runtime(async |manager| {
        let web = repository("web");
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let permit = manager.acquire(&web).await.unwrap();
        let lost = permit.lost();
        assert!(manager.try_acquire(&web).await.unwrap().is_none());
        let late = manager.acquire_timeout(&web, Duration::from_millis(20));
        assert!(late.await.unwrap().is_none());
        permit.release().await.unwrap();
        assert_eq!(lost.await, LeaseLoss::Ended(Some(DONE)));
        assert_eq!(manager.with_slot(&web, async { 42 }).await.unwrap(), 42);
        drop(manager.acquire(&web).await.unwrap());
        let admission = manager.admit(&web, ephemeral("a")).await.unwrap();
        assert!(matches!(admission.turn().await, Ok(Turn::Started(_))));
    });
}

/// `status` panicked off the runtime where `admit` does not.
#[test]
fn a_status_is_read_off_the_runtime() {
    off_the_runtime(async |manager| {
        let status = manager.status(&repository("web")).await.unwrap();
        assert!(!status.exists);
    });
}

/// The same, of one run.
#[test]
fn the_status_of_a_run_is_read_off_the_runtime() {
    off_the_runtime(async |manager| {
        let status = manager.run_status(&repository("web"), &run("a")).await;
        assert_eq!(status.unwrap(), RunStatus::Unknown);
    });
}

/// The same, of the list of repositories.
#[test]
fn repositories_are_listed_off_the_runtime() {
    off_the_runtime(async |manager| {
        assert_eq!(manager.list(None, 10).await.unwrap(), []);
    });
}

/// The same, of a watch.
#[test]
fn a_repository_is_watched_off_the_runtime() {
    off_the_runtime(async |manager| {
        let web = repository("web");
        let mut watch = manager.watch(&web).await.unwrap();
        assert!(!watch.next().await.unwrap().status.exists);
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        assert!(watch.next().await.unwrap().status.exists);
    });
}

/// The same, of waiting with a time limit.
#[test]
fn a_waiter_waits_for_a_while_off_the_runtime() {
    off_the_runtime(async |manager| {
        let web = repository("web");
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let _a = started(&manager, &web, ephemeral("a")).await;
        let b = queued(&manager, &web, ephemeral("b")).await;
        let turn = b.wait_for(Duration::from_millis(20)).await.unwrap();
        assert!(turn.is_none(), "{turn:?}");
    });
}

/// The same, of grants.
#[test]
fn grants_are_read_off_the_runtime() {
    off_the_runtime(async |manager| {
        let web = repository("web");
        let mut grants = manager.grants().unwrap();
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let a = started(&manager, &web, durable("a")).await;
        queued(&manager, &web, durable("b")).await.detach();
        manager.release(a, DONE).await.unwrap();
        assert!(manager.holds(&grants.next().await.unwrap()));
    });
}

/// The same, of the end.
#[test]
fn a_manager_is_closed_off_the_runtime() {
    off_the_runtime(async |manager| {
        let web = repository("web");
        let mut events = manager.events();
        let _a = started(&manager, &web, ephemeral("a")).await;
        manager.close().await.unwrap();
        while events.next().await.is_some() {}
    });
}

/// Has `ask` polled on a thread without a runtime. The manager's store takes time, as one behind
/// a network, and its requests need the runtime's clock.
fn off_the_runtime(ask: impl AsyncFnOnce(ConcurrencyManager) + Send + 'static) {
    let memory: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let line = Faults::none();
    line.describe(|inner| {
        inner.with_placement(Placement::Remote {
            batches_in_flight: 2,
        })
    });
    let delay = Fault::Delay(Duration::from_millis(1));
    line.inject(Request::ALL, delay, When::Always);
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let driver = line.over(&memory);
    let manager = runtime.block_on(ConcurrencyManager::open(driver, options()));
    let manager = manager.unwrap();
    let (told, over) = channel();
    let asking = thread::spawn(move || {
        block_on(ask(manager));
        told.send(()).unwrap();
    });
    match over.recv_timeout(Duration::from_secs(20)) {
        Ok(()) => asking.join().unwrap(),
        Err(RecvTimeoutError::Timeout) => panic!("it hangs off the runtime"),
        Err(RecvTimeoutError::Disconnected) => {
            let panic = asking.join().unwrap_err();
            let message = panic.downcast_ref::<String>().cloned();
            let message = message.or(panic.downcast_ref::<&str>().map(ToString::to_string));
            panic!(
                "it panicked off the runtime: {}",
                message.unwrap_or_default()
            );
        }
    }
    runtime.shutdown_timeout(Duration::from_secs(5));
}

/// The smallest executor there is.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => thread::park(),
        }
    }
}
