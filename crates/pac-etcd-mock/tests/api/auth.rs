//! Users, roles and tokens.

use std::time::Duration;

use crate::support::{refused, started};
use etcd_client::{
    Client, ConnectOptions, GetOptions, LockOptions, Permission, PermissionType, PutOptions, Txn,
    TxnOp, WatchOptions,
};
use pac_etcd_mock::{Fault, MockEtcd, Operation};

const DENIED: &str = "PermissionDenied: etcdserver: permission denied";

/// A server that checks its users: `root`, and `ci`, which may write what begins with `ci/`.
async fn guarded() -> (MockEtcd, Client, Client) {
    let (etcd, mut client) = started().await;
    client.user_add("root", "secret", None).await.unwrap();
    client.user_grant_role("root", "root").await.unwrap();
    client.role_add("ci").await.unwrap();
    let own = Permission::new(PermissionType::Readwrite, "ci/").with_prefix();
    client.role_grant_permission("ci", own).await.unwrap();
    let shared = Permission::new(PermissionType::Read, "shared");
    client.role_grant_permission("ci", shared).await.unwrap();
    client.user_add("ci", "hidden", None).await.unwrap();
    client.user_grant_role("ci", "ci").await.unwrap();
    client.auth_enable().await.unwrap();
    let root = log_in(&etcd, "root", "secret").await.unwrap();
    let ci = log_in(&etcd, "ci", "hidden").await.unwrap();
    (etcd, root, ci)
}

async fn log_in(etcd: &MockEtcd, user: &str, password: &str) -> Result<Client, etcd_client::Error> {
    let options = ConnectOptions::new().with_user(user, password);
    Client::from_channel(etcd.channel(), Some(options)).await
}

#[tokio::test]
async fn a_user_does_what_its_roles_permit_and_nothing_else() {
    let (etcd, mut root, mut ci) = guarded().await;
    root.put("shared", "1", None).await.unwrap();
    ci.put("ci/a", "1", None).await.unwrap();
    assert_eq!(ci.get("shared", None).await.unwrap().count(), 1);
    assert_eq!(refused(ci.put("shared", "2", None).await), DENIED);
    assert_eq!(refused(ci.delete("shared", None).await), DENIED);
    let prefix = || Some(GetOptions::new().with_prefix());
    assert_eq!(ci.get("ci/", prefix()).await.unwrap().count(), 1);
    assert_eq!(refused(ci.get("ci", prefix()).await), DENIED);
    let nested = Txn::new().and_then([TxnOp::put("shared", "3", None)]);
    let txn = Txn::new().and_then([TxnOp::txn(nested)]);
    assert_eq!(refused(ci.txn(txn).await), DENIED);
    // A lease with a key of another user is not taken for one's own.
    let lease = root.lease_grant(10, None).await.unwrap().id();
    let with = || Some(PutOptions::new().with_lease(lease));
    root.put("other", "1", with()).await.unwrap();
    assert_eq!(refused(ci.put("ci/b", "1", with()).await), DENIED);
    assert_eq!(refused(ci.lease_revoke(lease).await), DENIED);
    let mut nobody = etcd.client().await.unwrap();
    assert_eq!(
        refused(nobody.get("ci/a", None).await),
        "InvalidArgument: etcdserver: user name is empty"
    );
}

#[tokio::test]
async fn a_watch_of_keys_that_may_not_be_read_is_cancelled_at_once() {
    let (_etcd, _root, ci) = guarded().await;
    let (_, created) = crate::support::watch(&ci, "ci/a", None).await;
    assert!(!created.canceled());
    let all = WatchOptions::new().with_prefix();
    let (_, created) = crate::support::watch(&ci, "", Some(all)).await;
    assert!(created.canceled());
    assert_eq!(
        created.cancel_reason(),
        "rpc error: code = PermissionDenied desc = etcdserver: permission denied"
    );
}

#[tokio::test]
async fn users_and_roles_are_changed_by_root_alone() {
    let (_etcd, mut root, mut ci) = guarded().await;
    assert_eq!(refused(ci.user_list().await), DENIED);
    assert_eq!(refused(ci.user_get("root").await), DENIED);
    assert_eq!(ci.user_get("ci").await.unwrap().roles(), ["ci"]);
    assert_eq!(ci.role_get("ci").await.unwrap().permissions().len(), 2);
    assert_eq!(root.user_list().await.unwrap().users(), ["ci", "root"]);
    assert_eq!(root.role_list().await.unwrap().roles(), ["ci"]);
    let kept = "InvalidArgument: etcdserver: invalid auth management";
    assert_eq!(refused(root.user_delete("root").await), kept);
    assert_eq!(refused(root.user_revoke_role("root", "root").await), kept);
    root.role_delete("ci").await.unwrap();
    assert!(root.user_get("ci").await.unwrap().roles().is_empty());
    assert_eq!(refused(ci.get("ci/a", None).await), DENIED);
}

#[tokio::test(start_paused = true)]
async fn a_token_ends_when_it_is_not_used_and_with_its_user() {
    let (etcd, mut root, mut ci) = guarded().await;
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_secs(200)).await;
        root.get("a", None).await.unwrap();
    }
    let invalid = "Unauthenticated: etcdserver: invalid auth token";
    assert_eq!(refused(ci.get("ci/a", None).await), invalid);
    let mut ci = log_in(&etcd, "ci", "hidden").await.unwrap();
    root.user_change_password("ci", "new").await.unwrap();
    assert_eq!(refused(ci.get("ci/a", None).await), invalid);
    assert_eq!(
        refused(log_in(&etcd, "ci", "hidden").await.map(drop)),
        "InvalidArgument: etcdserver: authentication failed, invalid user ID or password"
    );
    log_in(&etcd, "ci", "new").await.unwrap();
    root.auth_disable().await.unwrap();
    // As in etcd: a token is looked at, although nothing is checked.
    assert_eq!(refused(root.get("a", None).await), invalid);
    let mut nobody = etcd.client().await.unwrap();
    nobody.get("a", None).await.unwrap();
    assert_eq!(
        refused(log_in(&etcd, "ci", "new").await.map(drop)),
        "FailedPrecondition: etcdserver: authentication is not enabled"
    );
}

#[tokio::test]
async fn auth_needs_a_root_user_and_a_change_of_users_can_overtake_a_request() {
    let (etcd, mut client) = started().await;
    assert_eq!(
        refused(client.auth_enable().await),
        "FailedPrecondition: etcdserver: root user does not exist"
    );
    client.user_add("root", "x", None).await.unwrap();
    assert_eq!(
        refused(client.auth_enable().await),
        "FailedPrecondition: etcdserver: root user does not have root role"
    );
    etcd.faults()
        .inject([Operation::Put], 1, Fault::AuthStoreOld);
    assert_eq!(
        refused(client.put("a", "1", None).await),
        "InvalidArgument: etcdserver: revision of auth store is old"
    );
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_is_waited_for_ends_no_token_that_is_in_use() {
    let (_etcd, mut client, _) = guarded().await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let lease = client.lease_grant(100_000, None).await.unwrap().id();
        held.push(LockOptions::new().with_lease(lease));
    }
    let waits = held.pop();
    let first = client.lock("l", held.pop()).await.unwrap();
    let waiting = tokio::spawn({
        let mut client = client.clone();
        async move { client.lock("l", waits).await }
    });
    for _ in 0..5 {
        // The token lasts for 300 s without use.
        tokio::time::sleep(Duration::from_secs(200)).await;
        client.get("a", None).await.unwrap();
    }
    client.unlock(first.key()).await.unwrap();
    waiting.await.unwrap().unwrap();
    client.get("a", None).await.unwrap();
}
