//! Certificates: made, shared, renewed while connections come, and taken from a directory.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pac_kubernetes::install::{Install, InstallMode};
use pac_kubernetes::webhook::{CertificateOptions, WebhookServer};
use pac_kubernetes_mock::{Fault, HoldPoint, Requests, Verb};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::client::{SERVER, authorities, connect, shown};
use crate::setting::{LONG, World, options, short_lived, until};

/// Each connection trusts what the API server trusts at that moment, and none is ever refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn new_connections_get_renewed_certificates_without_a_restart_and_all_are_trusted() {
    let world = World::new(InstallMode::Takeover).await;
    let webhook = world.start(&short_lived(Duration::from_secs(6))).await;
    world.trusted().await;
    until("a certificate", || webhook.has_certificate()).await;
    let (mut seen, begun) = (BTreeSet::new(), Instant::now());
    while seen.len() < 3 {
        assert!(begun.elapsed() < LONG, "{} certificates", seen.len());
        let trusted = authorities(&world.configuration());
        let shown = shown(webhook.address(), &trusted).await;
        seen.insert(shown.expect("a certificate that is trusted"));
        sleep(Duration::from_millis(50)).await;
    }
    // Of no more than the last two authorities is anything kept.
    let trusted = authorities(&world.configuration());
    assert!(
        trusted.matches("BEGIN CERTIFICATE").count() <= 2,
        "{trusted}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_share_one_certificate_whichever_of_them_made_it() {
    let world = World::new(InstallMode::Gate).await;
    let first = world.start(&options()).await;
    let second = world.start(&options()).await;
    let third = world.start(&options()).await;
    let replicas = [&first, &second, &third];
    let begun = Instant::now();
    loop {
        let trusted = authorities(&world.configuration());
        let mut all = BTreeSet::new();
        for replica in replicas {
            all.insert(shown(replica.address(), &trusted).await.ok());
        }
        if all.len() == 1 && !all.contains(&None) {
            break;
        }
        assert!(begun.elapsed() < LONG, "they do not agree");
        sleep(Duration::from_millis(20)).await;
    }
    // One that comes later takes what is there, and changes nothing.
    let version = world.secret()["metadata"]["resourceVersion"].clone();
    let late = world.start(&options()).await;
    until("a certificate", || late.has_certificate()).await;
    let trusted = authorities(&world.configuration());
    let of_first = shown(first.address(), &trusted).await.unwrap();
    assert_eq!(shown(late.address(), &trusted).await.unwrap(), of_first);
    assert_eq!(world.secret()["metadata"]["resourceVersion"], version);
}

/// Each connection trusts what the API server trusts at that moment: the certificate that is shown
/// stays until another authority is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_secret_that_was_cleared_is_filled_anew_all_connections_are_trusted() {
    let world = World::new(InstallMode::Gate).await;
    let options = short_lived(Duration::from_secs(600));
    let (first, second) = (world.start(&options).await, world.start(&options).await);
    let trusts = async |webhook: &WebhookServer| {
        let trusted = authorities(&world.configuration());
        shown(webhook.address(), &trusted).await
    };
    let begun = Instant::now();
    let before = loop {
        if let (Ok(one), Ok(two)) = (trusts(&first).await, trusts(&second).await)
            && one == two
        {
            break one;
        }
        assert!(begun.elapsed() < LONG, "they do not agree");
        sleep(Duration::from_millis(20)).await;
    };
    let cleared = json!({"data": null});
    let namespace = world.install.namespace.as_str();
    let name = Install::WEBHOOK_SECRET;
    let objects = world.objects();
    objects.merge("secrets", namespace, name, cleared).unwrap();
    // Until both show another one, and for a while after that.
    let (mut others, begun) = (0, Instant::now());
    while others < 20 {
        assert!(begun.elapsed() < LONG, "it is not renewed");
        let (one, two) = (trusts(&first).await, trusts(&second).await);
        let (one, two) = (one.expect("trusted"), two.expect("trusted"));
        others += usize::from(one != before && one == two);
        sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_in_the_place_of_the_certificate_is_replaced() {
    let world = World::new(InstallMode::Takeover).await;
    let webhook = world.start(&options()).await;
    let before = world.trusted().await;
    let nonsense = json!({"data": {"tls.crt": STANDARD.encode("nonsense")}});
    let (namespace, name) = (
        world.install.namespace.clone(),
        world.secret()["metadata"]["name"].clone(),
    );
    world
        .objects()
        .merge("secrets", &namespace, name.as_str().unwrap(), nonsense)
        .unwrap();
    until("another authority", || {
        authorities(&world.configuration()) != before
    })
    .await;
    // An authority that was taken away is put back.
    let taken = json!([{"op": "remove", "path": "/webhooks/0/clientConfig/caBundle"}]);
    let configuration = world.configuration()["metadata"]["name"].clone();
    world
        .objects()
        .patch(
            "mutatingwebhookconfigurations",
            "",
            configuration.as_str().unwrap(),
            taken,
        )
        .unwrap();
    let trusted = world.trusted().await;
    assert!(shown(webhook.address(), &trusted).await.is_ok());
}

/// From the moment on at which the API server has been told, it asks: also before its answer to that
/// has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_certificate_is_shown_before_the_api_server_is_told_of_its_authority() {
    let world = World::new(InstallMode::Gate).await;
    let told = Requests::any()
        .verb(Verb::Patch)
        .resource("mutatingwebhookconfigurations");
    let held = world.server.faults().hold_at(HoldPoint::After, told);
    let webhook = world.start(&options()).await;
    held.until_reached(1).await;
    let trusted = world.trusted().await;
    assert!(shown(webhook.address(), &trusted).await.is_ok());
    held.release();
}

/// Answers of the API server that are lost or refused are asked for again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_on_the_way_to_a_certificate_are_overcome() {
    let world = World::new(InstallMode::Takeover).await;
    let of = |verb, resource| Requests::any().verb(verb).resource(resource);
    let faults = world.server.faults();
    faults.inject(of(Verb::Get, "secrets"), 1, Fault::unavailable(1));
    faults.inject(of(Verb::Patch, "secrets"), 1, Fault::done_then_504());
    let configurations = "mutatingwebhookconfigurations";
    faults.inject(
        of(Verb::Patch, configurations),
        1,
        Fault::done_then_dropped(),
    );
    let webhook = world.start(&options()).await;
    let trusted = world.trusted().await;
    until("a certificate", || webhook.has_certificate()).await;
    assert!(shown(webhook.address(), &trusted).await.is_ok());
}

/// A certificate of another maker, and its authority.
fn made() -> (String, String, String) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![SERVER.to_owned()]).unwrap();
    let leaf = params.signed_by(&key, &authority).unwrap();
    (leaf.pem(), key.serialize_pem(), authority.pem())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_in_a_directory_is_read_again_when_it_changes_and_left_when_it_breaks() {
    let world = World::new(InstallMode::Takeover).await;
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    let from = CertificateOptions::Directory(directory.path().to_owned());
    let options = options().with_certificate(from);
    let webhook = WebhookServer::start(&world.access, &options).await.unwrap();
    let (first, key, trusted) = made();
    assert!(connect(webhook.address(), &trusted).await.is_err());
    write("tls.crt", &first);
    write("tls.key", &key);
    until("a certificate", || webhook.has_certificate()).await;
    let before = shown(webhook.address(), &trusted).await.unwrap();
    // A file that is written in part, or without its key, changes nothing.
    let (second, key, also_trusted) = made();
    write("tls.crt", &second[..second.len() / 2]);
    sleep(Duration::from_millis(300)).await;
    assert_eq!(shown(webhook.address(), &trusted).await.unwrap(), before);
    write("tls.crt", &second);
    write("tls.key", &key);
    let begun = Instant::now();
    while shown(webhook.address(), &also_trusted).await.is_err() {
        assert!(begun.elapsed() < LONG, "the new one is not shown");
        sleep(Duration::from_millis(20)).await;
    }
    // Neither the Secret nor the configuration is touched.
    assert_eq!(world.secret().get("data"), None);
    assert_eq!(authorities(&world.configuration()), "");
}
