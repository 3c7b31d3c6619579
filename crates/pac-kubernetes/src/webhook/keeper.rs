//! Keeps the certificate: reads it, renews it, and tells the API server of its authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::PatchOperation;
use rustls::crypto::CryptoProvider;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::directory::Directory;
use super::error::WebhookError;
use super::options::{CertificateOptions, WebhookOptions};
use super::plan::{Kept, Step, Terms};
use super::tls::Served;
use crate::install::{
    Change, ClusterAccess, Install, InstallError, Place, SECRET, WEBHOOK_CONFIGURATION,
};
use crate::patch::{add, test};

/// How long one look may take, with all of its requests.
const LOOK_TIMEOUT: Duration = Duration::from_secs(15);

/// How soon is looked again after a failure, and after a change; longer after each more failure.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// What keeps the certificate of a server.
#[derive(Debug)]
pub(super) struct Keeper {
    served: Arc<Served>,
    source: Source,
    interval: Duration,
}

#[derive(Debug)]
enum Source {
    Secret(Secret),
    Directory(Directory),
}

/// The Secret that all replicas share, and the configuration that they tell of its authority.
#[derive(Debug)]
struct Secret {
    access: ClusterAccess,
    namespace: String,
    terms: Terms,
}

/// What a look has come to.
#[derive(Debug, PartialEq, Eq)]
enum Looked {
    /// All is well for a while.
    Well,
    /// Something was changed; the next thing follows.
    Changed,
}

impl Keeper {
    pub(super) fn new(
        access: &ClusterAccess,
        options: &WebhookOptions,
        served: Arc<Served>,
        provider: Arc<CryptoProvider>,
    ) -> Self {
        let source = match &options.certificate {
            CertificateOptions::Directory(path) => Source::Directory(Directory(path.clone())),
            CertificateOptions::Own { lifetime, settle } => Source::Secret(Secret {
                access: access.clone(),
                namespace: options.namespace.clone(),
                terms: Terms {
                    server: options.server_name(),
                    lifetime: *lifetime,
                    settle: *settle,
                    provider,
                },
            }),
        };
        Self {
            served,
            source,
            interval: options.look_interval,
        }
    }

    /// Looks from time to time, for ever. What fails is logged and tried again; the certificate
    /// that is shown stays meanwhile.
    pub(super) async fn run(self) {
        let mut again = LOOK_AGAIN;
        loop {
            let looked = timeout(LOOK_TIMEOUT, self.look(SystemTime::now())).await;
            let looked = looked.unwrap_or_else(|_| {
                let message = format!("no answer within {LOOK_TIMEOUT:?}");
                Err(WebhookError::certificate("API server", message))
            });
            let pause = match looked {
                Ok(Looked::Well) => self.interval,
                Ok(Looked::Changed) => LOOK_AGAIN.min(self.interval),
                Err(error) => {
                    tracing::warn!(%error, "the certificate is not as it has to be; trying again");
                    let pause = again.min(self.interval);
                    again = again.saturating_mul(2);
                    sleep(pause).await;
                    continue;
                }
            };
            again = LOOK_AGAIN;
            sleep(pause).await;
        }
    }

    async fn look(&self, now: SystemTime) -> Result<Looked, WebhookError> {
        match &self.source {
            Source::Directory(directory) => {
                let pair = directory.read().await?;
                let put = self.served.put(&pair);
                self.told(put.map_err(|why| {
                    WebhookError::certificate(directory.0.display(), format!("{why}; replace it"))
                })?);
                Ok(Looked::Well)
            }
            Source::Secret(secret) => self.look_at(secret, now).await,
        }
    }

    async fn look_at(&self, secret: &Secret, now: SystemTime) -> Result<Looked, WebhookError> {
        let found = secret.read().await?;
        let kept = Kept::read(&found);
        let told = secret.tell(&kept.authorities).await;
        let is_known = matches!(told, Ok(Told::Already));
        let step = kept.step(&secret.terms, is_known, now);
        let after = kept.after(&step, &secret.terms, now).map_err(|error| {
            WebhookError::certificate("certificate", format!("cannot be made: {error}"))
        })?;
        if step != Step::Nothing {
            // What is there is shown also where nothing can be written; what it is replaced by is shown
            // below.
            let current = kept.current.as_ref().filter(|_| step != Step::Begin);
            if let Some(Ok(is_new)) = current.map(|pair| self.served.put(pair)) {
                self.told(is_new);
            }
            secret.write(&found, &after).await?;
            tracing::info!(?step, "the certificate in the Secret was changed");
        }
        if let Some(pair) = &after.current {
            let put = self.served.put(pair);
            self.told(put.map_err(|why| WebhookError::certificate(secret.place(), why))?);
        }
        let told = told?;
        Ok(match (step, told) {
            (Step::Nothing, Told::Already | Told::NotThere) => Looked::Well,
            _ => Looked::Changed,
        })
    }

    fn told(&self, is_new: bool) {
        if is_new {
            tracing::info!("new connections are shown a new certificate");
        }
    }
}

/// Whether the API server knows the authorities.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    /// It was told before.
    Already,
    /// It was told just now.
    Now,
    /// There is no configuration: it asks nothing.
    NotThere,
}

impl Secret {
    fn place(&self) -> Place<'_> {
        Place::new(SECRET, self.namespace.as_str(), Install::WEBHOOK_SECRET)
    }

    async fn read(&self) -> Result<Value, WebhookError> {
        let found = self.access.get(self.place()).await.map_err(failed)?;
        found.ok_or_else(|| {
            let cure = "is not there; apply it: pac kubernetes install --admission=webhook --apply";
            WebhookError::certificate(self.place(), cure)
        })
    }

    /// Writes what the Secret has to hold, if it still is as it was read.
    async fn write(&self, read: &Value, kept: &Kept) -> Result<(), WebhookError> {
        let metadata = |field: &str| read.get("metadata").and_then(|all| all.get(field)).cloned();
        let patch = json!({
            "metadata": {
                "uid": metadata("uid"),
                "resourceVersion": metadata("resourceVersion"),
            },
            "data": kept.data(),
        });
        let change = Change::Merge(patch);
        match self.access.change(self.place(), change).await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(WebhookError::certificate(self.place(), "is gone")),
            Err(error) => Err(failed(error)),
        }
    }

    /// Puts the authorities into the configuration, unless they are there.
    async fn tell(&self, authorities: &str) -> Result<Told, WebhookError> {
        let place = Place::new(WEBHOOK_CONFIGURATION, None, Install::WEBHOOK_CONFIGURATION);
        if authorities.is_empty() {
            return Ok(Told::Now);
        }
        let Some(configuration) = self.access.get(place).await.map_err(failed)? else {
            return Ok(Told::NotThere);
        };
        let bundle = STANDARD.encode(authorities);
        let operations = operations(&configuration, &self.namespace, &bundle);
        if operations.is_empty() {
            return Ok(Told::Already);
        }
        let change = Change::Json(json_patch::Patch(operations));
        match self.access.change(place, change).await {
            Ok(Some(_)) => {
                tracing::info!("the API server was told of the authorities of the certificate");
                Ok(Told::Now)
            }
            Ok(None) => Ok(Told::NotThere),
            Err(error) => Err(failed(error)),
        }
    }
}

/// What makes the webhooks of our Service trust these authorities; nothing where they do.
fn operations(configuration: &Value, namespace: &str, bundle: &str) -> Vec<PatchOperation> {
    let webhooks = configuration.get("webhooks").and_then(Value::as_array);
    let mut operations = Vec::new();
    for (at, webhook) in webhooks.into_iter().flatten().enumerate() {
        let text = |pointer: &str| webhook.pointer(pointer).and_then(Value::as_str);
        let is_ours = text("/clientConfig/service/namespace") == Some(namespace)
            && text("/clientConfig/service/name") == Some(Install::WEBHOOK);
        if is_ours && text("/clientConfig/caBundle") != Some(bundle) {
            let (at, name) = (at.to_string(), text("/name").unwrap_or_default());
            operations.push(test(&["webhooks", &at, "name"], name.into()));
            let place = ["webhooks", &at, "clientConfig", "caBundle"];
            operations.push(add(&place, bundle.into()));
        }
    }
    operations
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "it stands where an error is mapped"
)]
fn failed(error: InstallError) -> WebhookError {
    WebhookError::certificate(error.subject(), error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_webhooks_of_our_service_are_told_and_only_of_news() {
        let webhook = |name: &str, service: &str, bundle: &str| {
            json!({"name": name, "clientConfig": {
                "service": {"namespace": "ci", "name": service}, "caBundle": bundle,
            }})
        };
        let configuration = json!({"webhooks": [
            webhook("a", Install::WEBHOOK, "new"),
            webhook("b", "other", "old"),
            webhook("c", Install::WEBHOOK, "old"),
        ]});
        let expected = vec![
            test(&["webhooks", "2", "name"], "c".into()),
            add(&["webhooks", "2", "clientConfig", "caBundle"], "new".into()),
        ];
        assert_eq!(operations(&configuration, "ci", "new"), expected);
        assert_eq!(operations(&configuration, "other", "new"), []);
        assert_eq!(operations(&json!({}), "ci", "new"), []);
    }
}
