//! Keeps the certificate: reads it, renews it, and tells the API server of its authority.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use json_patch::PatchOperation;
use rustls::crypto::CryptoProvider;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

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

/// The configuration that makes the API server ask.
const CONFIGURATION: Place<'static> =
    Place::cluster_wide(WEBHOOK_CONFIGURATION, Install::WEBHOOK_CONFIGURATION);

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
    /// The authorities that the API server was found to know, and since when.
    known: Option<(String, Instant)>,
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
                known: None,
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
    pub(super) async fn run(mut self) {
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

    async fn look(&mut self, now: SystemTime) -> Result<Looked, WebhookError> {
        match &mut self.source {
            Source::Directory(directory) => {
                let pair = directory.read().await?;
                let put = self.served.put(&pair);
                is_shown(put.map_err(|why| {
                    WebhookError::certificate(directory.0.display(), format!("{why}; replace it"))
                })?);
                Ok(Looked::Well)
            }
            Source::Secret(secret) => secret.look(&self.served, now).await,
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
    async fn look(&mut self, served: &Served, now: SystemTime) -> Result<Looked, WebhookError> {
        let secret = self;
        let found = secret.read().await?;
        let configuration = secret.configuration().await;
        let kept = Kept::read(&found);
        let bundle = configuration.as_ref().ok().and_then(Option::as_ref);
        let bundle = bundle.map_or_else(String::new, |all| trusted(all, &secret.namespace));
        let mended = kept.mended(served.pair(), &bundle, &secret.terms, now);
        let is_mended = mended.is_some();
        if !is_mended && served.is_there() && !kept.is_usable(&secret.terms, now) {
            // What is shown may be trusted still: it is not given up before that is known.
            configuration.as_ref().map_err(Clone::clone)?;
        }
        let kept = mended.unwrap_or(kept);
        if !served.is_there() && kept.is_usable(&secret.terms, now) {
            show_first(served, &kept);
        }
        let mut told = secret.tell(&configuration, &kept.authorities).await;
        let known_for = secret.known_for(&kept.authorities, &told);
        let step = match is_mended {
            true => Step::Prepare,
            false => kept.step(&secret.terms, known_for, now),
        };
        let after = kept.after(&step, &secret.terms, now).map_err(|error| {
            WebhookError::certificate("certificate", format!("cannot be made: {error}"))
        })?;
        if step != Step::Nothing {
            // What is there is shown also where nothing can be written; what it is replaced by is shown
            // below.
            let current = kept.current.as_ref().filter(|_| step != Step::Begin);
            if let Some(Ok(is_new)) = current.map(|pair| served.put(pair)) {
                is_shown(is_new);
            }
            secret.write(&found, &after).await?;
            tracing::info!(?step, "the certificate in the Secret was changed");
            show_first(served, &after);
            // Before it takes the place of another one.
            told = secret.tell(&configuration, &after.authorities).await;
            secret.known_for(&after.authorities, &told);
        }
        if let Some(pair) = &after.current {
            let put = served.put(pair);
            is_shown(put.map_err(|why| WebhookError::certificate(secret.place(), why))?);
        }
        let told = told?;
        Ok(match (step, told) {
            (Step::Nothing, Told::Already | Told::NotThere) => Looked::Well,
            _ => Looked::Changed,
        })
    }

    /// For how long the API server has known these authorities, as this process has found; `None`
    /// where it does not.
    fn known_for(
        &mut self,
        authorities: &str,
        told: &Result<Told, WebhookError>,
    ) -> Option<Duration> {
        let is_known = matches!(told, Ok(Told::Already | Told::Now));
        self.known = self
            .known
            .take()
            .filter(|(known, _)| is_known && known == authorities)
            .or_else(|| is_known.then(|| (authorities.to_owned(), Instant::now())));
        self.known.as_ref().map(|(_, since)| since.elapsed())
    }

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

    /// The configuration that makes the API server ask; `None` where there is none.
    async fn configuration(&self) -> Result<Option<Value>, WebhookError> {
        self.access.get(CONFIGURATION).await.map_err(failed)
    }

    /// Puts the authorities into the configuration, unless they are there.
    async fn tell(
        &self,
        configuration: &Result<Option<Value>, WebhookError>,
        authorities: &str,
    ) -> Result<Told, WebhookError> {
        if authorities.is_empty() {
            return Ok(Told::Now);
        }
        let configuration = configuration.as_ref().map_err(Clone::clone)?;
        let Some(configuration) = configuration else {
            return Ok(Told::NotThere);
        };
        let bundle = STANDARD.encode(authorities);
        let operations = operations(configuration, &self.namespace, &bundle);
        if operations.is_empty() {
            return Ok(Told::Already);
        }
        let change = Change::Json(json_patch::Patch(operations));
        match self.access.change(CONFIGURATION, change).await {
            Ok(Some(_)) => {
                tracing::info!("the API server was told of the authorities of the certificate");
                Ok(Told::Now)
            }
            Ok(None) => Ok(Told::NotThere),
            Err(error) => Err(failed(error)),
        }
    }
}

/// Shows a certificate where none is shown: once the API server knows its authority, it asks.
fn show_first(served: &Served, kept: &Kept) {
    let first = kept.current.as_ref().filter(|_| !served.is_there());
    if let Some(Ok(is_new)) = first.map(|pair| served.put(pair)) {
        is_shown(is_new);
    }
}

/// Logs that new connections are shown another certificate.
fn is_shown(is_new: bool) {
    if is_new {
        tracing::info!("new connections are shown a new certificate");
    }
}

/// The webhooks of a configuration, each with whether it is of our Service.
fn webhooks<'a>(
    configuration: &'a Value,
    namespace: &'a str,
) -> impl Iterator<Item = (bool, &'a Value)> {
    let webhooks = configuration.get("webhooks").and_then(Value::as_array);
    webhooks.into_iter().flatten().map(move |webhook| {
        let text = |pointer: &str| webhook.pointer(pointer).and_then(Value::as_str);
        let is_ours = text("/clientConfig/service/namespace") == Some(namespace)
            && text("/clientConfig/service/name") == Some(Install::WEBHOOK);
        (is_ours, webhook)
    })
}

/// The authorities that the API server trusts a webhook of our Service by, as PEM.
fn trusted(configuration: &Value, namespace: &str) -> String {
    let mut ours = webhooks(configuration, namespace).filter(|(is_ours, _)| *is_ours);
    let bundle = ours.find_map(|(_, webhook)| webhook.pointer("/clientConfig/caBundle")?.as_str());
    let bundle = bundle.and_then(|bundle| STANDARD.decode(bundle).ok());
    let text = bundle.and_then(|bundle| String::from_utf8(bundle).ok());
    text.unwrap_or_default()
}

/// What makes the webhooks of our Service trust these authorities; nothing where they do.
fn operations(configuration: &Value, namespace: &str, bundle: &str) -> Vec<PatchOperation> {
    let mut operations = Vec::new();
    for (at, (is_ours, webhook)) in webhooks(configuration, namespace).enumerate() {
        let text = |pointer: &str| webhook.pointer(pointer).and_then(Value::as_str);
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
        let mut configuration = configuration;
        let bundle = STANDARD.encode("an authority");
        configuration["webhooks"][0]["clientConfig"]["caBundle"] = json!(bundle);
        assert_eq!(trusted(&configuration, "ci"), "an authority");
        assert_eq!(trusted(&configuration, "other"), "");
        assert_eq!(operations(&json!({}), "ci", "new"), []);
    }
}
