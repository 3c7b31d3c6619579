//! Servers and drivers of the tests.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "each test file uses a part of it, and fails by panicking"
)]

pub(crate) mod member;
pub(crate) mod own;
pub(crate) mod planned;
pub(crate) mod proxy;
pub(crate) mod vandal;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use pac_core::SessionIdentity;
use pac_core::driver::{Driver, Retention};
use pac_core::manager::{ConcurrencyManager, ManagerOptions};
use pac_etcd::{EtcdDriver, EtcdOptions};

/// The options for a server, under a prefix that no other test uses.
pub(crate) fn options(endpoints: impl IntoIterator<Item = impl Into<String>>) -> EtcdOptions {
    static LAST: AtomicU32 = AtomicU32::new(0);
    let mut options = EtcdOptions::new(endpoints);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    options.prefix = format!("/test-{}-{number}/", std::process::id());
    options
}

/// Who opens sessions here.
pub(crate) fn me() -> SessionIdentity {
    SessionIdentity::of_this_process()
}

/// Finished runs vanish while a test waits.
pub(crate) const RETENTION: Retention = Retention::new(Duration::from_secs(20), 100);

pub(crate) async fn driver(options: &EtcdOptions) -> Arc<EtcdDriver> {
    Arc::new(EtcdDriver::connect(options).await.unwrap())
}

/// A manager whose session outlives the election of a leader, over a driver of its own.
pub(crate) async fn manager(options: &EtcdOptions) -> ConcurrencyManager {
    manager_on(driver(options).await).await
}

pub(crate) async fn manager_on(driver: Arc<dyn Driver>) -> ConcurrencyManager {
    let options = ManagerOptions::default()
        .with_session_ttl(Duration::from_secs(6))
        .with_lease_ttl(Duration::from_secs(30))
        .with_command_timeout(Duration::from_secs(20))
        .with_poll_interval(Duration::from_secs(2))
        .with_sweep_interval(Duration::from_millis(500));
    ConcurrencyManager::open(driver, options).await.unwrap()
}

/// A client of the etcd library, for what an operator or another program does.
pub(crate) async fn raw(endpoint: &str) -> etcd_client::Client {
    etcd_client::Client::connect([endpoint], None)
        .await
        .unwrap()
}
