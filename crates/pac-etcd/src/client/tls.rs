//! What is wrong with a secure connection, from the errors of the TLS library.

use std::error::Error as StdError;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// Why there is no secure connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The member does not speak TLS, and was asked to.
    Plain,
    /// The member speaks TLS, and was not asked to.
    Needed,
    /// The member's certificate is not signed by an authority that is trusted.
    Issuer,
    /// The member's certificate is for another name.
    Name,
    /// The member's certificate has expired, or is not valid yet.
    Time,
    /// The member does not take the client's certificate, or asks for one.
    Client,
    /// The member ended the connection as soon as it was made, without a word that arrived.
    Ended,
    /// The files with the authority, the certificate or the key cannot be used.
    Files,
    /// Something else.
    Other,
}

impl Problem {
    /// The problem that an error of a connection tells of; `None` when it is not one of TLS.
    pub(crate) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        let causes = std::iter::successors(Some(error), |cause| (*cause).source());
        causes.into_iter().find_map(tls_error).map(Self::means)
    }

    fn means(error: &rustls::Error) -> Self {
        use CertificateError as Bad;
        match error {
            rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Self::Plain,
            // Another authority of the same name has signed it with another key.
            rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
                Self::Issuer
            }
            rustls::Error::InvalidCertificate(
                Bad::NotValidForName | Bad::NotValidForNameContext { .. },
            ) => Self::Name,
            rustls::Error::InvalidCertificate(
                Bad::Expired
                | Bad::ExpiredContext { .. }
                | Bad::NotValidYet
                | Bad::NotValidYetContext { .. },
            ) => Self::Time,
            rustls::Error::AlertReceived(alert) if is_about_the_client(*alert) => Self::Client,
            _ => Self::Other,
        }
    }

    /// What to say about it, after the name of the member.
    pub(crate) fn cure(self) -> &'static str {
        match self {
            Self::Plain => {
                "does not speak TLS: write its endpoint with http:// and take out the CA file \
                 (etcd-ca-file), or have it listen with TLS"
            }
            Self::Needed => {
                "speaks TLS, and was asked without: set etcd-ca-file to the authority that signed \
                 its certificate, or write the endpoint with https:// to trust the authorities of \
                 this system"
            }
            Self::Issuer => {
                "has a certificate that no trusted authority has signed: set etcd-ca-file to the \
                 authority that did"
            }
            Self::Name => {
                "has a certificate for another name: connect by a name that it has, or set \
                 etcd-server-name to one"
            }
            Self::Time => {
                "has a certificate that has expired or is not valid yet: renew it, or look at the \
                 clocks"
            }
            Self::Client => {
                "does not take the client's certificate: set etcd-cert-file and etcd-key-file to \
                 one that is signed by the authority of the members' --trusted-ca-file"
            }
            Self::Ended => {
                "ended the secure connection before it answered: if it asks for the certificates \
                 of clients (--client-cert-auth), set etcd-cert-file and etcd-key-file; else look \
                 at its log"
            }
            Self::Files => {
                "cannot be asked: the certificate files hold no usable certificate or key in PEM; \
                 correct etcd-ca-file, etcd-cert-file and etcd-key-file"
            }
            Self::Other => {
                "gave no secure connection: check its certificate, and that the endpoint speaks \
                 TLS and is one for clients"
            }
        }
    }
}

/// The alerts by which a server refuses the certificate of a client, or the lack of one. It sends
/// them before it takes any request.
fn is_about_the_client(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
    )
}

fn tls_error<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    // The source of an I/O error is the source of the error that it wraps, not that error itself.
    let wrapped = cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    match wrapped {
        Some(inner) => inner.downcast_ref(),
        None => cause.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_tls_is_found_in_the_error_of_a_connection() {
        for (error, problem) in [
            (
                rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer),
                Problem::Issuer,
            ),
            (
                rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType),
                Problem::Plain,
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::CertificateRequired),
                Problem::Client,
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::InternalError),
                Problem::Other,
            ),
        ] {
            let shown = error.to_string();
            let wrapped = io::Error::new(io::ErrorKind::InvalidData, error);
            assert_eq!(Problem::of(&wrapped), Some(problem), "{shown}");
        }
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        assert_eq!(Problem::of(&refused), None);
    }
}
