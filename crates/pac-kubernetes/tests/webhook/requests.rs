//! Requests that are no reviews, that are too large, and that come while the server ends.

use std::net::SocketAddr;
use std::time::Duration;

use pac_kubernetes::install::InstallMode;
use pac_kubernetes::webhook::WebhookServer;
use pac_kubernetes_mock::{HoldPoint, Requests, Verb};
use pac_pipelines::vocabulary::{LIMIT, REPOSITORY};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};

use crate::client::{ask, connect, post};
use crate::setting::{LONG, World, options, until};

fn review(repository: &str, filling: usize) -> Vec<u8> {
    let run = json!({
        "metadata": {"annotations": {REPOSITORY: repository, "x/y": "z".repeat(filling)}},
        "spec": {},
    });
    let review = json!({
        "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview",
        "request": {
            "uid": "u", "operation": "CREATE", "namespace": "ci", "object": run,
            "resource": {"group": "tekton.dev", "version": "v1", "resource": "pipelineruns"},
        },
    });
    review.to_string().into_bytes()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_review_is_refused_and_the_server_goes_on() {
    let world = World::new(InstallMode::Gate).await;
    let webhook = world.start(&options()).await;
    let (address, trusted) = (webhook.address(), world.trusted().await);
    for (path, body, expected, text) in [
        (
            "/gate",
            &b"nonsense"[..],
            400,
            "rule gate: the body is no AdmissionReview",
        ),
        ("/takeover", &b""[..], 400, "rule takeover"),
        ("/other", &b"{}"[..], 404, "nothing"),
    ] {
        let (status, said) = post(address, &trusted, path, body).await;
        assert_eq!(status, expected, "{path}: {said}");
        assert!(said.contains(text), "{path}: {said}");
    }
    for (path, expected) in [("/gate", 405), ("/healthz", 200), ("/readyz", 200)] {
        let head = format!("GET {path} HTTP/1.1");
        let (status, _) = ask(address, &trusted, &head, b"").await;
        assert_eq!(status, expected, "{path}");
    }
    // Two objects of the largest size fit, and no more.
    let (status, _) = post(address, &trusted, "/gate", &review("a", 6 << 20)).await;
    assert_eq!(status, 200);
    let large = format!("POST /gate HTTP/1.1\r\nContent-Length: {}", 8 << 20);
    let (status, said) = ask(address, &trusted, &large, b"").await;
    assert_eq!(status, 413, "{said}");
    let chunked = "POST /gate HTTP/1.1\r\nTransfer-Encoding: chunked";
    let (status, _) = ask(address, &trusted, chunked, b"4\r\nabcd\r\n0\r\n\r\n").await;
    assert_eq!(status, 400);
    // Bytes that are no TLS, and a connection that says nothing, are nothing to others.
    let _silent = TcpStream::connect(address).await.unwrap();
    let (status, _) = post(address, &trusted, "/gate", &review("a", 0)).await;
    assert_eq!(status, 200);
}

/// The API server waits for 5 s: it gets a reason before that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repository_that_is_not_read_in_time_is_a_refusal_with_its_reason() {
    let world = World::new(InstallMode::Gate).await;
    world.repository("website", &json!({LIMIT: "1"}));
    let options = options().with_lookup_timeout(Duration::from_millis(200));
    let webhook = world.start(&options).await;
    let (address, trusted) = (webhook.address(), world.trusted().await);
    let reads = Requests::any().verb(Verb::Get).resource("repositories");
    let held = world.server.faults().hold_at(HoldPoint::Before, reads);
    let (status, answer) = post(address, &trusted, "/gate", &review("website", 0)).await;
    assert_eq!(status, 200);
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!(answer["response"]["allowed"], false);
    let message = answer["response"]["status"]["message"].as_str().unwrap();
    assert!(message.contains("no answer within 200ms"), "{message}");
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_closes_says_so_and_still_answers_until_it_is_known() {
    let world = World::new(InstallMode::Gate).await;
    let webhook = world.start(&options()).await;
    let (address, trusted) = (webhook.address(), world.trusted().await);
    let closing = tokio::spawn(webhook.close(2 * LONG, LONG));
    let begun = Instant::now();
    loop {
        let (status, _) = ask(address, &trusted, "GET /readyz HTTP/1.1", b"").await;
        if status == 503 {
            break;
        }
        assert!(begun.elapsed() < LONG, "{status}");
        sleep(Duration::from_millis(20)).await;
    }
    let (status, _) = post(address, &trusted, "/gate", &review("a", 0)).await;
    assert_eq!(status, 200);
    closing.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_has_closed_has_answered_what_it_had_taken_in() {
    let world = World::new(InstallMode::Gate).await;
    world.repository("website", &json!({LIMIT: "1"}));
    let webhook = world
        .start(
            &options()
                .with_lookup_timeout(LONG)
                .with_answer_timeout(LONG),
        )
        .await;
    let (address, trusted) = (webhook.address(), world.trusted().await);
    let reads = Requests::any().verb(Verb::Get).resource("repositories");
    let held = world.server.faults().hold_at(HoldPoint::Before, reads);
    let idle = connect(address, &trusted).await.unwrap();
    let asking =
        tokio::spawn(async move { post(address, &trusted, "/gate", &review("website", 0)).await });
    held.until_reached(1).await;
    let closing = tokio::spawn(webhook.close(Duration::ZERO, 2 * LONG));
    until_refused(address).await;
    held.release();
    let (status, answer) = asking.await.unwrap();
    assert!(
        status == 200 && answer.contains("JSONPatch"),
        "{status} {answer}"
    );
    closing.await.unwrap();
    drop(idle);
}

async fn until_refused(address: SocketAddr) {
    let begun = Instant::now();
    while TcpStream::connect(address).await.is_ok() {
        assert!(begun.elapsed() < LONG, "connections are still taken in");
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_named() {
    let world = World::new(InstallMode::Gate).await;
    let first = WebhookServer::start(&world.access, &options())
        .await
        .unwrap();
    let taken = options().with_address(first.address());
    let error = WebhookServer::start(&world.access, &taken)
        .await
        .unwrap_err();
    assert!(error.to_string().contains("name a free address"), "{error}");
    until("a certificate", || first.has_certificate()).await;
}
