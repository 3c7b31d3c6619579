//! Options that no clock can count are refused by `open`, before anything is asked of the store.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::driver::Driver;
use pac_concurrency::{
    ConcurrencyManager, Error, ErrorKind, Limit, ManagerOptions, MemoryDriver, MemoryOptions,
};
use pac_conformance::faults::{Faults, Request};
use pac_conformance::{durable, repository, started};
use tokio::time::{sleep, timeout};

/// The usual options, each time with one of them set to `value`.
fn options_with(value: Duration) -> [(&'static str, ManagerOptions); 6] {
    let usual = ManagerOptions::default();
    [
        (
            "session TTL",
            usual.with_session_ttl(value).with_lease_ttl(value),
        ),
        ("lease TTL", usual.with_lease_ttl(value)),
        ("command timeout", usual.with_command_timeout(value)),
        ("request timeout", usual.with_request_timeout(value)),
        ("poll interval", usual.with_poll_interval(value)),
        ("sweep interval", usual.with_sweep_interval(value)),
    ]
}

/// `Duration::MAX` was taken, and some time later a task panicked or a lock was
/// poisoned.
#[tokio::test(start_paused = true)]
async fn an_endless_duration_is_refused_as_a_wrong_setting() {
    let mut wrong = Vec::new();
    for (name, options) in options_with(Duration::MAX) {
        let store = Faults::none();
        match open(&store, options).await {
            Err(error) if error.kind() == ErrorKind::Config => {
                let asked = store.requests(Request::OpenSession);
                assert_eq!(asked, 0, "{name}: a session was opened before the check");
            }
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The same for what is less than endless, and more than a clock can count.
#[tokio::test(start_paused = true)]
async fn a_duration_of_many_ages_of_the_world_is_refused_as_a_wrong_setting() {
    let ages = Duration::from_secs(u64::MAX / 1_000);
    let mut wrong = Vec::new();
    for (name, options) in options_with(ages) {
        match open(&Faults::none(), options).await {
            Err(error) if error.kind() == ErrorKind::Config => {}
            other => wrong.push(format!("{name}: {other:?}")),
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// And no more is refused than that.
#[tokio::test(start_paused = true)]
async fn an_hour_is_a_good_value_for_every_option() {
    for (name, options) in options_with(Duration::from_secs(60 * 60)) {
        let manager = open(&Faults::none(), options).await;
        let manager = manager.unwrap_or_else(|error| panic!("{name}: {error}"));
        let web = repository("web");
        manager.set_limit(&web, Limit::new(1), None).await.unwrap();
        let lease = started(&manager, &web, durable("a")).await;
        sleep(Duration::from_secs(60)).await;
        assert!(manager.holds(&lease), "{name}");
        assert!(manager.health().is_ready(), "{name}");
        assert_eq!(manager.health().panics, 0, "{name}");
    }
}

/// In a task, so that a panic is an answer too.
async fn open(store: &Arc<Faults>, options: ManagerOptions) -> Result<ConcurrencyManager, Error> {
    let memory: Arc<dyn Driver> = Arc::new(MemoryDriver::new(MemoryOptions::default()));
    let driver = store.over(&memory);
    let opening = tokio::spawn(ConcurrencyManager::open(driver, options));
    let opened = timeout(Duration::from_secs(60), opening).await;
    opened.expect("`open` hangs").expect("`open` panicked")
}
