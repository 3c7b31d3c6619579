//! The client library that the project uses, against this server.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use futures_util::{StreamExt, TryStreamExt};
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{GroupVersionKind, PartialObjectMeta};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use pac_kubernetes_mock::{ApiServer, Fault, Requests, Verb};
use serde_json::json;

#[tokio::test]
async fn the_client_library_finds_what_it_expects() {
    let server = ApiServer::start().await;
    server.handle().create_namespace("ci").unwrap();
    let client = client(&server);
    assert_eq!(client.apiserver_version().await.unwrap().minor, "36");
    let kind = GroupVersionKind::gvk("tekton.dev", "v1", "PipelineRun");
    let (found, abilities) = kube::discovery::pinned_kind(&client, &kind).await.unwrap();
    assert_eq!(found.plural, "pipelineruns");
    assert!(
        abilities
            .subresources
            .iter()
            .any(|(part, _)| part.plural == "status")
    );
    let api = runs(&client);
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &run(name))
            .await
            .unwrap();
    }
    let metadata = api
        .list_metadata(&ListParams::default().limit(2))
        .await
        .unwrap();
    assert_eq!(metadata.items.len(), 2);
    let _: &Vec<PartialObjectMeta<DynamicObject>> = &metadata.items;

    let mut events = watcher(api.clone(), watcher::Config::default().any_semantic())
        .default_backoff()
        .applied_objects()
        .boxed();
    for expected in ["a", "b", "c"] {
        let found = events.try_next().await.unwrap().unwrap();
        assert_eq!(found.metadata.name.as_deref(), Some(expected));
    }
    let patch = json!([{"op": "remove", "path": "/spec/status"}]);
    let patch = Patch::Json::<()>(serde_json::from_value(patch).unwrap());
    api.patch("b", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let changed = events.try_next().await.unwrap().unwrap();
    assert_eq!(changed.metadata.generation, Some(2));

    // The watcher lists again after 410.
    server.compact();
    api.create(&PostParams::default(), &run("d")).await.unwrap();
    let gone = Requests::any().verb(Verb::Watch);
    let gone = server
        .faults()
        .inject(gone, 1, Fault::Gone(pac_kubernetes_mock::Gone::Event));
    while events
        .try_next()
        .await
        .unwrap()
        .unwrap()
        .metadata
        .name
        .as_deref()
        != Some("d")
    {}
    assert!(server.cut_watches() > 0);
    api.create(&PostParams::default(), &run("e")).await.unwrap();
    loop {
        // The cut and the 410 are errors in the stream, from which the watcher recovers.
        let Some(event) = events.next().await else {
            panic!("the watcher ended")
        };
        if event.is_ok_and(|run| run.metadata.name.as_deref() == Some("e")) {
            break;
        }
    }
    assert_eq!(gone.hits(), 1);
}

#[tokio::test]
async fn a_streaming_list_ends_with_its_bookmark() {
    let server = ApiServer::start().await;
    server.handle().create_namespace("ci").unwrap();
    let api = runs(&client(&server));
    api.create(&PostParams::default(), &run("a")).await.unwrap();
    let events = watcher(api, watcher::Config::default().streaming_lists());
    let mut events = events.boxed();
    let mut seen = Vec::new();
    while let Ok(Some(event)) = events.try_next().await {
        match event {
            watcher::Event::InitApply(run) => seen.extend(run.metadata.name),
            watcher::Event::InitDone => break,
            _ => {}
        }
    }
    assert_eq!(seen, ["a"]);
}

#[tokio::test]
async fn errors_of_the_client_library_carry_the_reason() {
    let server = ApiServer::start().await;
    let api = runs(&client(&server));
    let error = api.get("absent").await.unwrap_err();
    let kube::Error::Api(status) = error else {
        panic!("{error}")
    };
    assert_eq!((status.code, status.reason.as_str()), (404, "NotFound"));
}

fn client(server: &ApiServer) -> Client {
    let mut config = Config::new(server.url().parse().unwrap());
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

fn runs(client: &Client) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("tekton.dev", "v1", "PipelineRun");
    Api::namespaced_with(client.clone(), "ci", &ApiResource::from_gvk(&kind))
}

fn run(name: &str) -> DynamicObject {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("tekton.dev", "v1", "PipelineRun"));
    DynamicObject::new(name, &kind).data(json!({"spec": {"status": "PipelineRunPending"}}))
}
