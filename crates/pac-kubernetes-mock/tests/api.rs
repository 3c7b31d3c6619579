//! The verbs over HTTP, where no recording says how they answer.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;

use common::{APPLY, Client, JSON, MERGE, RUNS, STRATEGIC, run};
use pac_kubernetes_mock::{ApiServer, Operation, Requests, Verb};
use serde_json::{Value, json};

async fn server() -> (ApiServer, Client) {
    let server = ApiServer::start().await;
    server.handle().create_namespace("ci").unwrap();
    let client = Client::new(server.url());
    (server, client)
}

#[tokio::test]
async fn an_object_is_made_read_replaced_and_deleted() {
    let (_server, client) = server().await;
    let made = client.post(RUNS, run("a", None)).await;
    assert_eq!((made.code, made.at("/kind")), (201, "PipelineRun"));
    assert!(made.at("/metadata/creationTimestamp").ends_with('Z'));
    let path = format!("{RUNS}/a");
    let mut object = client.get(&path).await.body;
    assert_eq!(object, made.body);

    object["spec"]["status"] = json!("Cancelled");
    let replaced = client.put(&path, object.clone()).await;
    assert_eq!(
        (replaced.code, &replaced.body["metadata"]["generation"]),
        (200, &json!(2))
    );
    let stale = client.put(&path, object.clone()).await;
    assert_eq!((stale.code, stale.at("/reason")), (409, "Conflict"));
    object["metadata"]["resourceVersion"] = Value::Null;
    let unconditional = client.put(&path, object).await;
    assert_eq!(
        (unconditional.code, unconditional.at("/reason")),
        (422, "Invalid")
    );

    let deleted = client.delete(&path, None).await;
    assert_eq!((deleted.code, deleted.at("/status")), (200, "Success"));
    assert_eq!(client.get(&path).await.at("/reason"), "NotFound");
    assert_eq!(client.delete(&path, None).await.code, 404);
}

#[tokio::test]
async fn what_cannot_be_made_is_refused() {
    let (_server, client) = server().await;
    client.post(RUNS, run("a", None)).await;
    let exists = client.post(RUNS, run("a", None)).await;
    assert_eq!((exists.code, exists.at("/reason")), (409, "AlreadyExists"));
    assert_eq!(
        exists.at("/message"),
        "pipelineruns.tekton.dev \"a\" already exists"
    );
    let mut elsewhere = run("b", None);
    elsewhere["metadata"]["namespace"] = json!("absent");
    let path = RUNS.replace("/ci/", "/absent/");
    let absent = client.post(&path, elsewhere).await;
    assert_eq!(absent.at("/message"), "namespaces \"absent\" not found");
    assert_eq!(client.post(RUNS, run("Upper", None)).await.code, 422);
    let mut nameless = run("a", None);
    nameless["metadata"]["name"] = Value::Null;
    assert_eq!(client.post(RUNS, nameless).await.code, 422);
    let mut number = run("c", None);
    number["metadata"]["labels"] = json!({"a": 1});
    assert_eq!(client.post(RUNS, number).await.code, 400);
    let unknown = client.get("/apis/example.dev/v1/things").await;
    assert_eq!(
        (unknown.code, unknown.text.as_str()),
        (404, "404 page not found\n")
    );
}

#[tokio::test]
async fn finalizers_keep_an_object_until_the_last_is_gone() {
    let (_server, client) = server().await;
    let mut object = run("a", None);
    object["metadata"]["finalizers"] = json!(["example.dev/x"]);
    client.post(RUNS, object).await;
    let path = format!("{RUNS}/a");
    let marked = client.delete(&path, None).await;
    assert!(!marked.at("/metadata/deletionTimestamp").is_empty());
    let again = client.delete(&path, None).await;
    assert_eq!(again.body, marked.body);
    let last = json!({"metadata": {"finalizers": null}});
    assert_eq!(client.patch(&path, MERGE, last).await.code, 200);
    assert_eq!(client.get(&path).await.code, 404);
}

#[tokio::test]
async fn a_list_comes_selected_and_in_pages_of_one_moment() {
    let (server, client) = server().await;
    for name in ["a", "b", "c", "d"] {
        let mut object = run(name, None);
        object["metadata"]["labels"] = json!({"odd": (name == "a" || name == "c").to_string()});
        client.post(RUNS, object).await;
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    };
    let odd = client
        .get(&format!("{RUNS}?labelSelector=odd%20in%20(true)"))
        .await;
    assert_eq!(names(&odd.body), ["a", "c"]);
    let one = client
        .get("/apis/tekton.dev/v1/pipelineruns?fieldSelector=metadata.name%3Db")
        .await;
    assert_eq!(names(&one.body), ["b"]);

    let first = client.get(&format!("{RUNS}?limit=3")).await;
    assert_eq!(names(&first.body), ["a", "b", "c"]);
    assert_eq!(first.body["metadata"]["remainingItemCount"], 1);
    client.post(RUNS, run("e", None)).await;
    let next = format!("{RUNS}?limit=3&continue={}", first.at("/metadata/continue"));
    let second = client.get(&next).await;
    assert_eq!(names(&second.body), ["d"]);
    assert_eq!(
        second.at("/metadata/resourceVersion"),
        first.at("/metadata/resourceVersion")
    );
    server.compact();
    let expired = client.get(&next).await;
    assert_eq!((expired.code, expired.at("/reason")), (410, "Expired"));
    let future = client.get(&format!("{RUNS}?resourceVersion=999999")).await;
    assert_eq!((future.code, future.at("/reason")), (504, "Timeout"));
}

#[tokio::test]
async fn manifests_are_applied_and_applied_again() {
    let (_server, client) = server().await;
    let path = "/api/v1/namespaces/ci/configmaps/settings?fieldManager=pac&force=true";
    let manifest = |data: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "settings", "namespace": "ci"},
            "data": data,
        })
    };
    let made = client
        .patch(path, APPLY, manifest(json!({"a": "1", "b": "2"})))
        .await;
    assert_eq!(made.code, 201);
    let same = client
        .patch(path, APPLY, manifest(json!({"a": "1", "b": "2"})))
        .await;
    assert_eq!((same.code, &same.body), (200, &made.body));
    let other = json!({"data": {"c": "3"}});
    client
        .patch(
            "/api/v1/namespaces/ci/configmaps/settings",
            STRATEGIC,
            other,
        )
        .await;
    let less = client.patch(path, APPLY, manifest(json!({"a": "1"}))).await;
    assert_eq!(less.body["data"], json!({"a": "1", "c": "3"}));
    let unmanaged = path.replace("?fieldManager=pac&force=true", "");
    assert_eq!(
        client
            .patch(&unmanaged, APPLY, manifest(json!({})))
            .await
            .code,
        400
    );
}

#[tokio::test]
async fn a_definition_adds_its_resource() {
    let (_server, client) = server().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = json!({
        "metadata": {"name": "queues.example.dev"},
        "spec": {
            "group": "example.dev",
            "scope": "Namespaced",
            "names": {"plural": "queues", "kind": "Queue"},
            "versions": [{"name": "v1", "served": true, "subresources": {"status": {}}}],
        },
    });
    let queues = "/apis/example.dev/v1/namespaces/ci/queues";
    assert_eq!(client.get(queues).await.code, 404);
    let made = client.post(definitions, definition).await;
    assert_eq!(made.body["status"]["conditions"][1]["type"], "Established");
    let queue = json!({"metadata": {"name": "a"}, "spec": {"limit": 1}, "status": {"x": 1}});
    let queue = client.post(queues, queue).await;
    assert_eq!((queue.code, &queue.body["status"]), (201, &Value::Null));
    let known = client.get("/apis/example.dev/v1").await;
    assert_eq!(known.body["resources"][1]["name"], "queues/status");
    client
        .delete(&format!("{definitions}/queues.example.dev"), None)
        .await;
    assert_eq!(client.get(queues).await.code, 404);
}

#[tokio::test]
async fn mutators_change_and_refuse() {
    let (server, client) = server().await;
    server.install_mutator(
        "hold",
        std::sync::Arc::new(|review, object| {
            if review.operation == Operation::Create && review.resource.kind == "PipelineRun" {
                object["spec"]["status"] = json!("PipelineRunPending");
            }
            Ok(())
        }),
    );
    let held = client.post(RUNS, run("a", None)).await;
    assert_eq!(held.at("/spec/status"), "PipelineRunPending");
    server.remove_mutator("hold");
    assert_eq!(
        client.post(RUNS, run("b", None)).await.at("/spec/status"),
        ""
    );
}

#[tokio::test]
async fn a_json_patch_needs_its_parents() {
    let (_server, client) = server().await;
    client.post(RUNS, run("a", None)).await;
    let path = format!("{RUNS}/a");
    let add = |path: &str, value: Value| json!([{"op": "add", "path": path, "value": value}]);
    let inner = add("/metadata/annotations/example.dev~1x", json!("1"));
    assert_eq!(client.patch(&path, JSON, inner.clone()).await.code, 422);
    client
        .patch(&path, JSON, add("/metadata/annotations", json!({"a": "b"})))
        .await;
    let done = client.patch(&path, JSON, inner).await;
    assert_eq!(done.body["metadata"]["annotations"]["example.dev/x"], "1");
}

#[tokio::test]
async fn clients_find_the_server_and_its_resources() {
    let (server, client) = server().await;
    assert_eq!(client.get("/readyz").await.text, "ok");
    assert_eq!(client.get("/version").await.at("/gitVersion"), "v1.36.2");
    let groups = client.get("/apis").await.text;
    assert!(groups.contains("tekton.dev/v1"));
    assert_eq!(client.get("/apis/tekton.dev").await.at("/kind"), "APIGroup");
    assert_eq!(client.get("/api/v1").await.at("/groupVersion"), "v1");
    assert_eq!(client.get("/api").await.body["versions"], json!(["v1"]));
    // None of these is about objects.
    assert_eq!(server.count(&Requests::any()), 0);
    client.get(RUNS).await;
    let lists = Requests::any()
        .verb(Verb::List)
        .resource("pipelineruns")
        .namespace("ci");
    assert_eq!(server.count(&lists), 1);
    assert_eq!(server.count(&Requests::writes()), 0);
}
