//! TLS: which certificate a connection is shown.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::certificate::{self, Pair};

/// The certificate that new connections are shown.
pub(super) struct Served {
    provider: Arc<CryptoProvider>,
    current: Mutex<Option<(Pair, Arc<CertifiedKey>)>>,
}

impl Served {
    /// None, until one is put in.
    pub(super) fn new(provider: Arc<CryptoProvider>) -> Arc<Self> {
        let current = Mutex::default();
        Arc::new(Self { provider, current })
    }

    /// From now on connections are shown this one; whether it is another one than before.
    ///
    /// # Errors
    /// What is wrong with it; the one before stays.
    pub(super) fn put(&self, pair: &Pair) -> Result<bool, String> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_some_and(|(shown, _)| shown == pair) {
            return Ok(false);
        }
        let key = certificate::usable(pair, &self.provider)?;
        *current = Some((pair.clone(), Arc::new(key)));
        Ok(true)
    }

    /// The one that connections are shown.
    pub(super) fn pair(&self) -> Option<Pair> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|(pair, _)| pair.clone())
    }

    /// Whether there is one.
    pub(super) fn is_there(&self) -> bool {
        self.shown().is_some()
    }

    /// How connections are made.
    ///
    /// # Errors
    /// When the provider lacks what TLS needs.
    pub(super) fn config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::<Self>::clone(self));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is taken up again would show no certificate, and so not the new one.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(config)
    }

    fn shown(&self) -> Option<Arc<CertifiedKey>> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().map(|(_, key)| Arc::clone(key))
    }
}

impl ResolvesServerCert for Served {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.shown()
    }
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Served")
            .field("is_there", &self.is_there())
            .finish_non_exhaustive()
    }
}
