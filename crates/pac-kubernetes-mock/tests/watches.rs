//! Watches over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;

use std::time::Duration;

use common::{Client, MERGE, RUNS, run};
use pac_kubernetes_mock::{ApiOptions, ApiServer};
use serde_json::{Value, json};

async fn server(options: ApiOptions) -> (ApiServer, Client) {
    let server = ApiServer::start_with(options).await;
    server.handle().create_namespace("ci").unwrap();
    let client = Client::new(server.url());
    (server, client)
}

fn named(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

#[tokio::test]
async fn a_watch_tells_everything_since_its_revision_and_what_follows() {
    let (server, client) = server(ApiOptions::default()).await;
    let from = server.handle().revision();
    client.post(RUNS, run("a", None)).await;
    let mut watch = client
        .watch(&format!("{RUNS}?watch=true&resourceVersion={from}"))
        .await;
    assert_eq!(watch.next_named().await, named("ADDED", "a"));
    client
        .patch(
            &format!("{RUNS}/a"),
            MERGE,
            json!({"spec": {"status": "Cancelled"}}),
        )
        .await;
    assert_eq!(watch.next_named().await, named("MODIFIED", "a"));
    client.delete(&format!("{RUNS}/a"), None).await;
    let deleted = watch.next().await.unwrap();
    assert_eq!(deleted["type"], "DELETED");
    let revision = server.handle().revision().to_string();
    assert_eq!(deleted["object"]["metadata"]["resourceVersion"], revision);
}

#[tokio::test]
async fn an_object_that_leaves_the_selection_is_deleted_from_it() {
    let (_server, client) = server(ApiOptions::default()).await;
    let mut object = run("a", None);
    object["metadata"]["labels"] = json!({"state": "queued"});
    client.post(RUNS, object).await;
    let selector = "labelSelector=state%20notin%20(completed,failed)";
    let mut watch = client.watch(&format!("{RUNS}?watch=1&{selector}")).await;
    assert_eq!(watch.next_named().await, named("ADDED", "a"));
    let state = |state: &str| json!({"metadata": {"labels": {"state": state}}});
    client
        .patch(&format!("{RUNS}/a"), MERGE, state("completed"))
        .await;
    assert_eq!(watch.next_named().await, named("DELETED", "a"));
    client
        .patch(&format!("{RUNS}/a"), MERGE, state("queued"))
        .await;
    assert_eq!(watch.next_named().await, named("ADDED", "a"));
}

#[tokio::test]
async fn bookmarks_come_when_asked_for_and_a_watch_ends_in_time() {
    let mut options = ApiOptions::default();
    options.bookmark_interval = Duration::from_millis(20);
    let (server, client) = server(options).await;
    let query = "watch=true&allowWatchBookmarks=true&timeoutSeconds=1";
    let mut watch = client.watch(&format!("{RUNS}?{query}")).await;
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    let revision = server.handle().revision().to_string();
    assert_eq!(bookmark["object"]["metadata"]["resourceVersion"], revision);
    while let Some(event) = watch.next().await {
        assert_eq!(event["type"], "BOOKMARK");
    }
}

#[tokio::test]
async fn a_revision_that_the_history_has_lost_is_an_error_event() {
    let mut options = ApiOptions::default();
    options.history = 2;
    let (server, client) = server(options).await;
    let from = server.handle().revision();
    for name in ["a", "b", "c"] {
        client.post(RUNS, run(name, None)).await;
    }
    let mut watch = client
        .watch(&format!("{RUNS}?watch=true&resourceVersion={from}"))
        .await;
    assert_eq!(watch.code, 200);
    let error = watch.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"]),
        (&json!("ERROR"), &json!(410))
    );
    assert_eq!(error["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None::<Value>);
}

#[tokio::test]
async fn other_resources_and_namespaces_are_not_told() {
    let (server, client) = server(ApiOptions::default()).await;
    server.handle().create_namespace("other").unwrap();
    let mut watch = client.watch(&format!("{RUNS}?watch=true")).await;
    let mut elsewhere = run("a", None);
    elsewhere["metadata"]["namespace"] = json!("other");
    server.handle().create("pipelineruns", elsewhere).unwrap();
    let settings = json!({"metadata": {"name": "a", "namespace": "ci"}});
    server.handle().create("configmaps", settings).unwrap();
    client.post(RUNS, run("b", None)).await;
    assert_eq!(watch.next_named().await, named("ADDED", "b"));
}
