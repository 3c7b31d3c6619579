//! What can be set of the webhook's server.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::error::{WebhookError, WebhookErrorKind};
use crate::install::Install;

/// Where the certificate comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum CertificateOptions {
    /// The server makes it and renews it, keeps it in the Secret
    /// [`Install::WEBHOOK_SECRET`], and puts its authority into the configuration
    /// [`Install::WEBHOOK_CONFIGURATION`]. All replicas share it.
    Own {
        /// How long a certificate is valid, at most 100 years. It is renewed after two thirds of
        /// that. Default: one year.
        lifetime: Duration,
        /// How long the authority of a renewed certificate is known to the API server before the
        /// certificate is used, less than a third of the lifetime. Default: 5 min.
        settle: Duration,
    },
    /// Others make it and renew it, such as cert-manager: the files `tls.crt` and `tls.key` of
    /// this directory, which are read again when they change. The configuration is theirs too.
    Directory(PathBuf),
}

impl CertificateOptions {
    /// The longest lifetime.
    const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

    /// That a certificate can be renewed before it ends.
    pub(super) fn check(&self) -> Result<(), WebhookError> {
        let Self::Own { lifetime, settle } = self else {
            return Ok(());
        };
        if *lifetime <= Self::LONGEST && *settle < *lifetime / 3 {
            return Ok(());
        }
        let message = format!(
            "a lifetime of {lifetime:?} with {settle:?} to settle: it has to be at most 100 years, and \
             more than three times as long as that"
        );
        Err(WebhookError::new(
            WebhookErrorKind::Config,
            "certificate",
            message,
        ))
    }
}

impl Default for CertificateOptions {
    fn default() -> Self {
        Self::Own {
            lifetime: Duration::from_secs(365 * 24 * 60 * 60),
            settle: Duration::from_secs(5 * 60),
        }
    }
}

/// How the webhook is served.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct WebhookOptions {
    /// Where it listens. Default: port 8443 of every address.
    pub address: SocketAddr,
    /// The namespace of its Service and its Secret. Default: [`Install::NAMESPACE`].
    pub namespace: String,
    /// Where the certificate comes from.
    pub certificate: CertificateOptions,
    /// How often is looked whether the certificate, or its authority in the configuration, has to
    /// change. Default: 5 s.
    pub look_interval: Duration,
    /// How long one answer may take, from the head of its request on. The API server waits for
    /// 5 s. Default: 4 s.
    pub answer_timeout: Duration,
    /// How long reading a Repository may take. Default: 3 s.
    pub lookup_timeout: Duration,
}

impl WebhookOptions {
    /// At another address.
    #[must_use]
    pub fn with_address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// In another namespace.
    #[must_use]
    pub fn with_namespace(mut self, namespace: impl Into<String>) -> Self {
        self.namespace = namespace.into();
        self
    }

    /// With a certificate from elsewhere.
    #[must_use]
    pub fn with_certificate(mut self, certificate: CertificateOptions) -> Self {
        self.certificate = certificate;
        self
    }

    /// With another interval between looks.
    #[must_use]
    pub fn with_look_interval(mut self, interval: Duration) -> Self {
        self.look_interval = interval;
        self
    }

    /// With another deadline of an answer.
    #[must_use]
    pub fn with_answer_timeout(mut self, timeout: Duration) -> Self {
        self.answer_timeout = timeout;
        self
    }

    /// With another deadline for reading a Repository.
    #[must_use]
    pub fn with_lookup_timeout(mut self, timeout: Duration) -> Self {
        self.lookup_timeout = timeout;
        self
    }

    /// The name by which the API server knows the server: that of its Service.
    #[must_use]
    pub fn server_name(&self) -> String {
        format!("{}.{}.svc", Install::WEBHOOK, self.namespace)
    }
}

impl Default for WebhookOptions {
    fn default() -> Self {
        Self {
            address: (Ipv4Addr::UNSPECIFIED, Install::WEBHOOK_PORT).into(),
            namespace: Install::NAMESPACE.to_owned(),
            certificate: CertificateOptions::default(),
            look_interval: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(4),
            lookup_timeout: Duration::from_secs(3),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_that_could_not_be_renewed_in_time_is_refused() {
        let of = |lifetime, settle| {
            let (lifetime, settle) = (Duration::from_secs(lifetime), Duration::from_secs(settle));
            CertificateOptions::Own { lifetime, settle }.check()
        };
        assert_eq!(CertificateOptions::default().check(), Ok(()));
        assert_eq!(of(6, 1), Ok(()));
        for (lifetime, settle) in [(0, 0), (3, 1), (u64::MAX, 1)] {
            let error = of(lifetime, settle).unwrap_err();
            assert_eq!(error.kind(), WebhookErrorKind::Config, "{error}");
        }
        assert_eq!(CertificateOptions::Directory("/x".into()).check(), Ok(()));
    }
}
