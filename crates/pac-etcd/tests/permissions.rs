//! Users who may not do everything.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::time::Duration;

use etcd_client::{AuthClient, Client, ConnectOptions, Permission};
use pac_conformance::repository;
use pac_core::driver::{Driver, Level, SessionTtl};
use pac_core::{ErrorKind, SessionId};
use pac_etcd::{EtcdDriver, EtcdOptions};
use tokio::time::{Instant, sleep};

use crate::access::{PASSWORD, as_pac, changed};
use crate::support;
use crate::support::own::Member;

/// An etcd whose user `pac` has a role of the same name with one permission for the keys under a
/// prefix, and the options to reach it.
async fn with_permission(may: fn(&str) -> Permission) -> (Member, EtcdOptions) {
    let options = support::options(["-"]);
    let member = Member::single(&[]);
    let mut auth = support::raw(&member.endpoint()).await.auth_client();
    auth.role_add("pac").await.unwrap();
    let keys = may(&options.prefix).with_prefix();
    auth.role_grant_permission("pac", keys).await.unwrap();
    auth.role_add("root").await.unwrap();
    for user in ["root", "pac"] {
        auth.user_add(user, PASSWORD, None).await.unwrap();
        auth.user_grant_role(user, user).await.unwrap();
    }
    auth.auth_enable().await.unwrap();
    let options = changed(&as_pac(&options, PASSWORD), |o| {
        o.endpoints = vec![member.endpoint()];
    });
    (member, options)
}

async fn root(member: &Member) -> AuthClient {
    let as_root = ConnectOptions::new().with_user("root", PASSWORD);
    let root = Client::connect([member.endpoint()], Some(as_root)).await;
    root.unwrap().auth_client()
}

/// Whether a renewal finds the session alive. One that got no answer on a busy machine is tried again
/// with the next, which is in time.
async fn lives(driver: &EtcdDriver, session: SessionId) -> bool {
    let renewed = driver.keep_alive(session).await;
    renewed.map_or_else(|error| error.kind() != ErrorKind::SessionLost, |()| true)
}

/// A role that may only read is enough for reading, and the store is found not to take writes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_may_only_read_can_connect_and_read() {
    let (_member, options) = with_permission(|prefix| Permission::read(prefix)).await;
    let driver = EtcdDriver::connect(&options).await.unwrap();
    assert!(!driver.load(&repository("web"), None).await.unwrap().exists);
    let found = driver.diagnose().await.unwrap();
    assert!(
        found
            .iter()
            .any(|f| f.level() == Level::Failure(ErrorKind::Unauthorised)),
        "{found:?}"
    );
    let ttl = SessionTtl::new(Duration::from_secs(10), Duration::from_secs(10));
    let error = driver.open_session(ttl, &support::me()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
}

/// To renew a lease takes no permission. A process whose user may not write any more has to stop before
/// the others, after four session TTLs, take its session for one that a stranger keeps alive.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_lost_when_its_user_may_not_write_any_more() {
    let (member, options) = with_permission(|prefix| Permission::read_write(prefix)).await;
    let driver = EtcdDriver::connect(&options).await.unwrap();
    let ttl = SessionTtl::new(Duration::from_secs(3), Duration::from_secs(30));
    let renewal = ttl.session / 3;
    let session = driver.open_session(ttl, &support::me()).await.unwrap();
    for _ in 0..4 {
        assert!(lives(&driver, session).await);
        sleep(renewal).await;
    }
    let mut root = root(&member).await;
    root.user_revoke_role("pac", "pac").await.unwrap();
    let revoked = Instant::now();
    while lives(&driver, session).await {
        assert!(revoked.elapsed() < 5 * ttl.session, "it is still alive");
        sleep(renewal).await;
    }
    let after = revoked.elapsed();
    // Three TTLs after the last sign, which was written up to a TTL and a renewal before.
    assert!(after > ttl.session && after < 4 * ttl.session, "{after:?}");
    let error = driver.open_session(ttl, &support::me()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
    root.user_grant_role("pac", "pac").await.unwrap();
    assert!(!lives(&driver, session).await, "it never comes back");
    let next = driver.open_session(ttl, &support::me()).await.unwrap();
    assert!(lives(&driver, next).await);
}
