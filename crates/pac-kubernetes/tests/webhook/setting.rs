//! A cluster with the webhook installed, and servers of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pac_kubernetes::install::{Admission, ClusterAccess, Install, InstallMode, apply};
use pac_kubernetes::webhook::{CertificateOptions, WebhookOptions, WebhookServer};
use pac_kubernetes_mock::{ApiServer, Deployments, Handle};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::client::authorities;

/// How long a test waits for what has to come.
pub(crate) const LONG: Duration = Duration::from_secs(30);

pub(crate) const RUNS: &str = "pipelineruns";

pub(crate) struct World {
    pub(crate) server: ApiServer,
    pub(crate) access: ClusterAccess,
    pub(crate) install: Install,
}

impl World {
    /// With the webhook of a mode installed, and no server of it.
    pub(crate) async fn new(mode: InstallMode) -> Self {
        let server = ApiServer::start().await;
        server.handle().create_namespace("ci").unwrap();
        let access = ClusterAccess::at(server.url()).unwrap();
        let install = Install::default()
            .with_admission(Admission::Webhook)
            .with_mode(mode)
            .with_cancel_at_once(true);
        let deployments = Deployments::start(&server);
        apply(&access, &install, &mut |_, _| {}).await.unwrap();
        deployments.stop().await;
        let world = Self {
            server,
            access,
            install,
        };
        // There is no server of it yet.
        world.set_ready(0);
        world
    }

    /// So many replicas of the webhook are ready.
    pub(crate) fn set_ready(&self, replicas: u32) {
        let ready = json!({"status": {"readyReplicas": replicas}});
        let (namespace, name) = (self.install.namespace.as_str(), Install::WEBHOOK);
        let objects = self.objects();
        objects
            .merge_status("deployments", namespace, name, ready)
            .unwrap();
    }

    pub(crate) fn objects(&self) -> Handle {
        self.server.handle()
    }

    /// A server of the webhook, which the API server asks from now on.
    pub(crate) async fn start(&self, options: &WebhookOptions) -> WebhookServer {
        let webhook = WebhookServer::start(&self.access, options).await.unwrap();
        self.point_to(Some(webhook.address()));
        webhook
    }

    pub(crate) fn point_to(&self, address: Option<SocketAddr>) {
        let namespace = self.install.namespace.as_str();
        self.server
            .serve_service(namespace, Install::WEBHOOK, address);
    }

    pub(crate) fn configuration(&self) -> Value {
        let (plural, name) = (
            "mutatingwebhookconfigurations",
            Install::WEBHOOK_CONFIGURATION,
        );
        self.objects().get(plural, "", name).unwrap()
    }

    pub(crate) fn secret(&self) -> Value {
        let namespace = self.install.namespace.as_str();
        self.objects()
            .get("secrets", namespace, Install::WEBHOOK_SECRET)
            .unwrap()
    }

    /// Waits until the API server trusts some authority.
    pub(crate) async fn trusted(&self) -> String {
        until("a caBundle", || {
            !authorities(&self.configuration()).is_empty()
        })
        .await;
        authorities(&self.configuration())
    }

    pub(crate) fn repository(&self, name: &str, annotations: &Value) {
        let repository = json!({
            "metadata": {"namespace": "ci", "name": name, "annotations": annotations}, "spec": {},
        });
        self.objects().create("repositories", repository).unwrap();
    }
}

/// A server at a port of the loopback address that looks often.
pub(crate) fn options() -> WebhookOptions {
    WebhookOptions::default()
        .with_address((Ipv4Addr::LOCALHOST, 0).into())
        .with_look_interval(Duration::from_millis(100))
}

/// The same with certificates that end soon.
pub(crate) fn short_lived(lifetime: Duration) -> WebhookOptions {
    options().with_certificate(CertificateOptions::Own {
        lifetime,
        settle: Duration::from_secs(1),
    })
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < LONG, "this does not come: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}
