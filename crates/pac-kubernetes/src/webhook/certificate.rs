//! A certificate with its key, and the authority that it is signed by: made, and judged. Pure, but
//! for the random numbers of keys.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;

/// How long before its making a certificate is valid: the clock of the API server may be behind.
const BACKDATED: Duration = Duration::from_secs(5 * 60);

/// The last second of the year 9999: later ones have no form in a certificate.
const LAST_SECOND: u64 = 253_402_300_799;

/// A chain of certificates and the key of the first, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) certificates: String,
    pub(super) key: String,
}

/// Shows no key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pair").finish_non_exhaustive()
    }
}

/// A new certificate for a server, and its authority as PEM. The key of the authority is dropped:
/// it never signs another one.
pub(super) fn make(
    server: &str,
    now: SystemTime,
    lifetime: Duration,
) -> Result<(Pair, String), rcgen::Error> {
    let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let params = |names: Vec<String>, subject: String| {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, subject);
        let the_epoch = rcgen::date_time_ymd(1970, 1, 1);
        params.not_before = the_epoch + whole_seconds(now.saturating_sub(BACKDATED));
        params.not_after = the_epoch + whole_seconds(now.saturating_add(lifetime));
        Ok::<_, rcgen::Error>(params)
    };
    let subject = format!("pac-concurrency webhook {}", now.as_secs());
    let mut authority = params(Vec::new(), subject)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;

    let mut leaf = params(
        vec![server.to_owned()],
        "pac-concurrency webhook".to_owned(),
    )?;
    leaf.is_ca = IsCa::ExplicitNoCa;
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let leaf = leaf.signed_by(&key, &authority)?;
    let pair = Pair {
        certificates: leaf.pem(),
        key: key.serialize_pem(),
    };
    Ok((pair, authority.pem()))
}

/// What a server shows and signs with.
///
/// # Errors
/// What is wrong with the texts; never what is in them.
pub(super) fn usable(pair: &Pair, provider: &CryptoProvider) -> Result<CertifiedKey, String> {
    let chain = parse(&pair.certificates)?;
    if chain.is_empty() {
        return Err("there is no certificate in it".to_owned());
    }
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes())
        .map_err(|_| "the key is no private key as PEM".to_owned())?;
    CertifiedKey::from_der(chain, key, provider).map_err(|error| error.to_string())
}

/// Whether a client that trusts these authorities accepts the certificate for a server at a time.
pub(super) fn holds(
    pair: &Pair,
    authorities: &str,
    server: &str,
    at: SystemTime,
    provider: &Arc<CryptoProvider>,
) -> bool {
    let verified = || {
        let chain = parse(&pair.certificates).ok()?;
        let (leaf, intermediates) = chain.split_first()?;
        let mut roots = RootCertStore::empty();
        for authority in parse(authorities).ok()? {
            roots.add(authority).ok()?;
        }
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
        let server = ServerName::try_from(server).ok()?;
        let at = UnixTime::since_unix_epoch(at.duration_since(UNIX_EPOCH).ok()?);
        let verifier = verifier.build().ok()?;
        verifier
            .verify_server_cert(leaf, intermediates, &server, &[], at)
            .ok()
    };
    verified().is_some()
}

/// The single authorities of a text, each as PEM, without what is no certificate.
pub(super) fn authorities(text: &str) -> Vec<String> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let mut found = Vec::new();
    for part in text.split(BEGIN).skip(1) {
        if let Some((body, _)) = part.split_once(END) {
            found.push(format!("{BEGIN}{body}{END}\n"));
        }
    }
    found
}

fn parse(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| "the certificate is not PEM".to_owned())
}

/// A time since 1970 as certificates can have it.
fn whole_seconds(time: Duration) -> Duration {
    Duration::from_secs(time.as_secs().min(LAST_SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: &str = "webhook.ci.svc";
    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn provider() -> Arc<CryptoProvider> {
        Arc::new(rustls::crypto::ring::default_provider())
    }

    #[test]
    fn a_certificate_holds_for_its_server_and_its_time_alone() {
        let (now, provider) = (SystemTime::now(), provider());
        let (pair, authority) = make(SERVER, now, DAY).unwrap();
        let holds = |server: &str, at| holds(&pair, &authority, server, at, &provider);
        assert!(holds(SERVER, now));
        assert!(holds(SERVER, now - Duration::from_secs(60)));
        assert!(holds(SERVER, now + DAY - Duration::from_secs(60)));
        assert!(!holds(SERVER, now + DAY + Duration::from_secs(60)));
        assert!(!holds(SERVER, now - 2 * BACKDATED));
        assert!(!holds("other.ci.svc", now));
        assert!(!holds("no name", now));
    }

    #[test]
    fn another_authority_does_not_vouch_for_it() {
        let (now, provider) = (SystemTime::now(), provider());
        let (pair, first) = make(SERVER, now, DAY).unwrap();
        let (_, second) = make(SERVER, now, DAY).unwrap();
        let holds = |authorities: &str| holds(&pair, authorities, SERVER, now, &provider);
        assert!(!holds(&second));
        assert!(!holds(""));
        assert!(!holds("nonsense"));
        assert!(holds(&format!("{second}{first}")));
        let all = format!("{first}# a remark\n{second}");
        assert_eq!(authorities(&all), [first, second]);
    }

    #[test]
    fn a_key_of_another_certificate_is_no_use_and_is_not_shown() {
        let (now, provider) = (SystemTime::now(), provider());
        let (first, _) = make(SERVER, now, DAY).unwrap();
        let (second, _) = make(SERVER, now, DAY).unwrap();
        assert!(usable(&first, &provider).is_ok());
        let mixed = Pair {
            key: second.key,
            ..first.clone()
        };
        assert!(usable(&mixed, &provider).is_err());
        for (certificates, key) in [
            ("", ""),
            ("nonsense", &*first.key),
            (&*first.certificates, "x"),
        ] {
            let pair = Pair {
                certificates: certificates.to_owned(),
                key: key.to_owned(),
            };
            let why = usable(&pair, &provider).unwrap_err();
            assert!(!why.contains("PRIVATE"), "{why}");
        }
        assert_eq!(format!("{first:?}"), "Pair { .. }");
    }

    #[test]
    fn a_lifetime_that_no_calendar_has_ends_with_the_last_year() {
        let (now, provider) = (SystemTime::now(), provider());
        let (pair, authority) = make(SERVER, now, Duration::MAX).unwrap();
        assert!(holds(&pair, &authority, SERVER, now, &provider));
    }
}
