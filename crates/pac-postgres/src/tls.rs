//! TLS, with the SSL modes as libpq defines them.

use std::path::Path;
use std::sync::Arc;

use pac_core::{Error, ErrorKind};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};

use crate::options::{PostgresOptions, SslMode};

/// The TLS settings of a connection; reads the files anew.
pub(crate) fn config(options: &PostgresOptions) -> Result<ClientConfig, Error> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Verifier {
        chain: match (&options.ca_file, options.ssl_mode) {
            (_, SslMode::Disable) | (None, SslMode::Require) => None,
            (Some(path), _) => Some(verifier(of_the_file(path)?, &provider)?),
            (None, SslMode::VerifyCa | SslMode::VerifyFull) => {
                Some(verifier(of_the_system()?, &provider)?)
            }
        },
        any_name: options.ssl_mode != SslMode::VerifyFull,
        provider: Arc::clone(&provider),
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong("cannot set up TLS").caused_by(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    match &options.client_certificate {
        Some((chain, key)) if options.ssl_mode != SslMode::Disable => {
            let (chain, key) = (certificates(chain)?, private_key(key)?);
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                wrong("the client certificate and its key do not belong together").caused_by(error)
            })
        }
        _ => Ok(builder.with_no_client_auth()),
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
            wrong(format!("the CA file {} cannot be used", path.display())).caused_by(error)
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
    let certificates = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    let certificates: Vec<_> = certificates.map_err(|error| {
        wrong(format!("cannot read certificates from {}", path.display())).caused_by(error)
    })?;
    if certificates.is_empty() {
        return Err(wrong(format!("{} holds no certificate", path.display())));
    }
    Ok(certificates)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        wrong(format!("cannot read a private key from {}", path.display())).caused_by(error)
    })
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, "connect", message)
}
