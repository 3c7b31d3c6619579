//! What goes wrong when a test wants it to.

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
use pac_kubernetes_mock::{ApiServer, Fault, Gone, HoldPoint, Requests, Verb};
use serde_json::{Value, json};

async fn server() -> (ApiServer, Client) {
    let server = ApiServer::start().await;
    server.handle().create_namespace("ci").unwrap();
    let client = Client::new(server.url());
    (server, client)
}

fn stored(server: &ApiServer, name: &str) -> bool {
    server.handle().get("pipelineruns", "ci", name).is_ok()
}

#[tokio::test]
async fn a_lost_answer_hides_that_the_request_was_done() {
    let (server, client) = server().await;
    let creations = || Requests::any().verb(Verb::Create).resource("pipelineruns");
    for (name, fault, code, message) in [
        (
            "a",
            Fault::done_then_500(),
            500,
            "etcdserver: request timed out",
        ),
        (
            "b",
            Fault::done_then_504(),
            504,
            "Timeout: request did not complete within requested timeout - context deadline exceeded",
        ),
        (
            "c",
            Fault::done_then_504_allotted(),
            504,
            "Timeout: request did not complete within the allotted timeout",
        ),
    ] {
        let fault = server.faults().inject(creations(), 1, fault);
        let answer = client.post(RUNS, run(name, None)).await;
        assert_eq!((answer.code, answer.at("/message")), (code, message));
        assert_eq!(fault.hits(), 1);
        assert!(stored(&server, name));
    }
    server
        .faults()
        .inject(creations(), 1, Fault::done_then_dropped());
    let dropped = client
        .send("POST", RUNS, "application/json", Some(run("d", None)))
        .await;
    assert!(dropped.is_err(), "{dropped:?}");
    assert!(stored(&server, "d"));
    assert_eq!(client.post(RUNS, run("e", None)).await.code, 201);
}

#[tokio::test]
async fn a_refused_request_is_not_done() {
    let (server, client) = server().await;
    let writes = server
        .faults()
        .inject(Requests::writes(), 1, Fault::too_many_requests(7));
    server
        .faults()
        .inject(Requests::any(), 1, Fault::unavailable(3));
    let busy = client.post(RUNS, run("a", None)).await;
    assert_eq!(busy.code, 429);
    assert!(busy.head.contains("retry-after: 7"), "{}", busy.head);
    let unavailable = client.get(RUNS).await;
    assert_eq!(
        (unavailable.code, unavailable.at("/reason")),
        (503, "ServiceUnavailable")
    );
    assert!(
        unavailable.head.contains("retry-after: 3"),
        "{}",
        unavailable.head
    );
    assert_eq!(writes.hits(), 1);
    assert!(!stored(&server, "a"));
}

#[tokio::test]
async fn watches_are_cut_or_told_that_their_revision_is_gone() {
    let (server, client) = server().await;
    let path = format!(
        "{RUNS}?watch=true&resourceVersion={}",
        server.handle().revision()
    );
    let mut watch = client.watch(&path).await;
    assert_eq!(server.cut_watches(), 1);
    assert_eq!(watch.next().await, None);

    let watches = || Requests::any().verb(Verb::Watch);
    server
        .faults()
        .inject(watches(), 1, Fault::Gone(Gone::Event));
    server
        .faults()
        .inject(watches(), 1, Fault::Gone(Gone::Response));
    let mut event = client.watch(&path).await;
    assert_eq!(event.code, 200);
    assert_eq!(event.next().await.unwrap()["object"]["reason"], "Expired");
    let mut response = client.watch(&path).await;
    assert_eq!(response.code, 410);
    assert_eq!(response.next().await.unwrap()["reason"], "Expired");
    let mut watch = client.watch(&path).await;
    client.post(RUNS, run("a", None)).await;
    assert_eq!(watch.next_named().await.1, "a");
}

#[tokio::test]
async fn held_requests_wait_until_they_are_released() {
    let (server, client) = server().await;
    client.post(RUNS, run("a", None)).await;
    let generation = || {
        let run = server.handle().get("pipelineruns", "ci", "a").unwrap();
        run["metadata"]["generation"].clone()
    };
    let patches = || Requests::any().verb(Verb::Patch).name("a");
    for (point, status, before) in [
        (HoldPoint::Before, json!("Cancelled"), json!(1)),
        (HoldPoint::After, Value::Null, json!(3)),
    ] {
        let hold = server.faults().hold_at(point, patches());
        let sender = client.clone();
        let patch = json!({"spec": {"status": status}});
        let sent =
            tokio::spawn(async move { sender.patch(&format!("{RUNS}/a"), MERGE, patch).await });
        hold.until_reached(1).await;
        assert_eq!(generation(), before);
        assert!(!sent.is_finished());
        hold.release();
        assert_eq!(sent.await.unwrap().code, 200);
        assert_eq!(hold.reached(), 1);
    }
    assert_eq!(generation(), 3);
}

#[tokio::test]
async fn a_server_that_is_away_comes_back_with_its_objects() {
    let (server, client) = server().await;
    client.post(RUNS, run("a", None)).await;
    let mut watch = client.watch(&format!("{RUNS}?watch=true")).await;
    assert_eq!(watch.next_named().await.1, "a");
    server.leave();
    assert_eq!(watch.next().await, None);
    assert!(client.send("GET", RUNS, "", None).await.is_err());
    assert_eq!(
        server
            .handle()
            .get("pipelineruns", "ci", "a")
            .unwrap_err()
            .code,
        503
    );
    server.come_back();
    assert_eq!(client.get(&format!("{RUNS}/a")).await.code, 200);
}

#[tokio::test]
async fn dropping_the_server_ends_its_watches_and_held_requests() {
    let (server, client) = server().await;
    let mut watch = client.watch(&format!("{RUNS}?watch=true")).await;
    let hold = server
        .faults()
        .hold_at(HoldPoint::Before, Requests::any().verb(Verb::Get));
    let sender = client.clone();
    let sent =
        tokio::spawn(async move { sender.send("GET", &format!("{RUNS}/a"), "", None).await });
    hold.until_reached(1).await;
    drop(server);
    assert_eq!(watch.next().await, None);
    assert!(sent.await.unwrap().is_err());
    tokio::time::sleep(Duration::from_millis(10)).await;
    assert!(client.send("GET", RUNS, "", None).await.is_err());
}
