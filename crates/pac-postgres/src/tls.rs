//! TLS, with the SSL modes as libpq defines them.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use pac_core::driver::Finding;
use pac_core::password::Secret;
use pac_core::{Error, ErrorKind, file};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, OtherError, RootCertStore,
    SignatureScheme,
};

use crate::options::{PostgresOptions, SslMode};

/// Larger than any certificate or key: all authorities of the web together are less than half of
/// it.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// The check by the authorities that this system trusts. They are read once.
#[derive(Debug, Default)]
pub(crate) struct System(OnceLock<Arc<WebPkiServerVerifier>>);

/// The TLS settings of a connection; reads the files anew, so it is not for a thread that serves
/// others. `None` where the SSL mode is `disable`.
pub(crate) fn config(
    options: &PostgresOptions,
    system: &System,
) -> Result<Option<ClientConfig>, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        chain: match (&options.ca_file, options.ssl_mode) {
            (_, SslMode::Disable) => return Ok(None),
            (None, SslMode::Require) => None,
            (Some(path), _) => Some(verifier(of_the_file(path)?, &provider)?),
            (None, SslMode::VerifyCa | SslMode::VerifyFull) => Some(system.verifier(&provider)?),
        },
        any_name: options.ssl_mode != SslMode::VerifyFull,
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("cannot set up TLS").caused_by(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let Some((chain, key)) = &options.client_certificate else {
        return Ok(Some(builder.with_no_client_auth()));
    };
    let (chain, key) = (certificates(chain)?, private_key(key)?);
    let config = builder.with_client_auth_cert(chain, key).map_err(|error| {
        wrong("the client certificate and its key do not belong together").caused_by(error)
    });
    config.map(Some)
}

/// A warning about the private key of the client's certificate, if others can read it. Looks at the
/// disk.
pub(crate) fn exposed_key(options: &PostgresOptions) -> Option<Finding> {
    let (_, key) = options.client_certificate.as_ref()?;
    if options.ssl_mode == SslMode::Disable {
        return None;
    }
    file::exposed_key(key)
}

impl System {
    fn verifier(&self, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, Error> {
        if let Some(known) = self.0.get() {
            return Ok(Arc::clone(known));
        }
        // Two threads may read them at the same time; one of the results is kept.
        let read = verifier(of_the_system()?, provider)?;
        Ok(Arc::clone(self.0.get_or_init(|| read)))
    }
}

/// What is checked of a server's certificate.
#[derive(Debug)]
struct Verifier {
    /// Checks chain, time and name; without it nothing is checked.
    chain: Option<Arc<WebPkiServerVerifier>>,
    /// Accepts a certificate that is wrong in nothing but the name.
    any_name: bool,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        // The name is checked last: a certificate that fails for it has passed all else.
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.any_name => Ok(ServerCertVerified::assertion()),
            Err(error) if self.is_self_signed(end_entity, server_name, now, &error) => {
                let reason = OtherError(Arc::new(SelfSigned));
                Err(CertificateError::Other(reason).into())
            }
            verified => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        let algorithms = &self.provider.signature_verification_algorithms;
        algorithms.supported_schemes()
    }
}

impl Verifier {
    /// Whether a certificate was refused because it is that of an authority, or because nothing but
    /// itself has signed it.
    fn is_self_signed(
        &self,
        certificate: &CertificateDer<'_>,
        name: &ServerName<'_>,
        now: UnixTime,
        refusal: &rustls::Error,
    ) -> bool {
        // The second one where it gives its issuer the name of a known authority.
        let unsigned = [
            CertificateError::UnknownIssuer,
            CertificateError::BadSignature,
        ]
        .map(rustls::Error::InvalidCertificate);
        if !unsigned.contains(refusal) {
            // The library does not name this error of the one below it in its types.
            return refusal.to_string().contains("CaUsedAsEndEntity");
        }
        let mut itself = RootCertStore::empty();
        if itself.add(certificate.clone().into_owned()).is_err() {
            return false;
        }
        let Ok(by_itself) = verifier(itself, &self.provider) else {
            return false;
        };
        let refusal = by_itself.verify_server_cert(certificate, &[], name, &[], now);
        refusal.err().is_none_or(|error| !unsigned.contains(&error))
    }
}

/// Why the certificate of a server is refused: no authority but itself has signed it.
#[derive(Debug, thiserror::Error)]
#[error("the certificate is self-signed, or that of an authority itself")]
pub(crate) struct SelfSigned;

fn verifier(
    authorities: RootCertStore,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<WebPkiServerVerifier>, Error> {
    WebPkiServerVerifier::builder_with_provider(Arc::new(authorities), Arc::clone(provider))
        .build()
        .map_err(|error| wrong("the authorities to trust cannot be used").caused_by(error))
}

/// The authorities in a file, each of which has to be one.
fn of_the_file(path: &Path) -> Result<RootCertStore, Error> {
    let mut authorities = RootCertStore::empty();
    for certificate in certificates(path)? {
        authorities.add(certificate).map_err(|error| {
            wrong(format!("the CA file {} cannot be used", file::shown(path))).caused_by(error)
        })?;
    }
    Ok(authorities)
}

/// The authorities that this system trusts, as for web sites. What it has that cannot be read, or is
/// no authority, is left out.
fn of_the_system() -> Result<RootCertStore, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    if authorities.is_empty() {
        let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
        let message = "no CA file is given, and this system trusts no authority: name the file of the \
                       authority that signed the server's certificate, or install ca-certificates";
        return Err(wrong(message).caused_by(causes.join("; ")));
    }
    Ok(authorities)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = pem(path)?;
    let certificates = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    let certificates: Result<Vec<_>, _> = certificates;
    let certificates = certificates.map_err(|error| {
        wrong(format!(
            "cannot read certificates from {}",
            file::shown(path)
        ))
        .caused_by(error)
    })?;
    if certificates.is_empty() {
        return Err(wrong(format!("{} holds no certificate", file::shown(path))));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = Secret::new(pem(path)?);
    PrivateKeyDer::from_pem_slice(text.expose().as_bytes()).map_err(|error| {
        wrong(format!(
            "cannot read a private key from {}",
            file::shown(path)
        ))
        .caused_by(error)
    })
}

fn pem(path: &Path) -> Result<String, Error> {
    file::read(path, MAX_PEM_BYTES)
        .map_err(|reason| wrong(format!("the file {} {reason}", file::shown(path))))
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, "connect", message)
}
