//! What the tests share.

use etcd_client::{Client, Error, Event, EventType, WatchOptions, WatchResponse, WatchStream};
use pac_etcd_mock::MockEtcd;

/// A server in memory, and its client.
pub(crate) async fn started() -> (MockEtcd, Client) {
    let etcd = MockEtcd::builder().start().await.unwrap();
    let client = etcd.client().await.unwrap();
    (etcd, client)
}

/// The code and the text of a refusal.
pub(crate) fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result.unwrap_err() {
        Error::GRpcStatus(status) => format!("{:?}: {}", status.code(), status.message()),
        other => panic!("{other}"),
    }
}

/// A watch, and the answer to its creation.
pub(crate) async fn watch(
    client: &Client,
    key: &str,
    options: Option<WatchOptions>,
) -> (WatchStream, WatchResponse) {
    let mut stream = client.watch_client().watch(key, options).await.unwrap();
    let created = next(&mut stream).await;
    assert!(created.created());
    (stream, created)
}

/// The next response of a stream.
pub(crate) async fn next(stream: &mut WatchStream) -> WatchResponse {
    stream.message().await.unwrap().unwrap()
}

/// The next events of a stream: `put KEY VALUE @ REVISION` or `delete KEY @ REVISION`.
pub(crate) async fn events(stream: &mut WatchStream) -> Vec<String> {
    let response = next(stream).await;
    response.events().iter().map(told).collect()
}

fn told(event: &Event) -> String {
    let kv = event.kv().unwrap();
    let (key, revision) = (kv.key_str().unwrap(), kv.mod_revision());
    match event.event_type() {
        EventType::Put => format!("put {key} {} @ {revision}", kv.value_str().unwrap()),
        EventType::Delete => format!("delete {key} @ {revision}"),
    }
}
