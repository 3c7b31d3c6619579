//! What has to become of the certificates in the Secret. Pure, but for new keys.
//!
//! A renewed certificate has an authority of its own, which the API server has to know before the
//! certificate is used. So it is prepared beside the one in use, its authority is added to those in
//! the configuration, and only after a while it takes the place of the old one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::crypto::CryptoProvider;
use serde_json::{Map, Value};

use super::certificate::{self, Pair};

/// The keys of the Secret.
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
const AUTHORITIES: &str = "ca.crt";
const NEXT_CERTIFICATE: &str = "next.crt";
const NEXT_KEY: &str = "next.key";

/// By what certificates are judged and made.
#[derive(Debug, Clone)]
pub(super) struct Terms {
    pub(super) server: String,
    pub(super) lifetime: Duration,
    pub(super) settle: Duration,
    pub(super) provider: Arc<CryptoProvider>,
}

/// What the Secret holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Kept {
    /// The certificate in use.
    pub(super) current: Option<Pair>,
    /// The one that is prepared.
    pub(super) next: Option<Pair>,
    /// The authorities of both.
    pub(super) authorities: String,
}

/// The authorities in a Secret, as PEM; empty where there are none.
pub(crate) fn authorities_in(secret: &Value) -> String {
    Kept::read(secret).authorities
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// All is well.
    Nothing,
    /// There is nothing that could be used: a new certificate and its authority alone.
    Begin,
    /// The certificate in use ends soon: a new one beside it.
    Prepare,
    /// The prepared certificate takes the place of the one in use.
    Use,
}

impl Kept {
    /// Reads a Secret. What cannot be read counts as absent.
    pub(super) fn read(secret: &Value) -> Self {
        let text = |key: &str| {
            let encoded = secret.get("data")?.get(key)?.as_str()?;
            String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
        };
        let pair = |certificates: &str, key: &str| {
            Some(Pair {
                certificates: text(certificates)?,
                key: text(key)?,
            })
        };
        Self {
            current: pair(CERTIFICATE, KEY),
            next: pair(NEXT_CERTIFICATE, NEXT_KEY),
            authorities: text(AUTHORITIES).unwrap_or_default(),
        }
    }

    /// What is to be done now. `known_for`: for how long the API server has known the authorities;
    /// `None` where it does not, as far as is known.
    pub(super) fn step(&self, terms: &Terms, known_for: Option<Duration>, now: SystemTime) -> Step {
        let holds = |pair: &Option<Pair>, at: Option<SystemTime>| {
            pair.as_ref().zip(at).is_some_and(|(pair, at)| {
                self.holds(pair, terms, at) && certificate::usable(pair, &terms.provider).is_ok()
            })
        };
        let next_holds = holds(&self.next, Some(now));
        if !holds(&self.current, Some(now)) {
            return match next_holds {
                true => Step::Use,
                false => Step::Begin,
            };
        }
        if next_holds {
            return match known_for.is_some_and(|known_for| known_for >= terms.settle) {
                true => Step::Use,
                false => Step::Nothing,
            };
        }
        match holds(&self.current, now.checked_add(terms.lifetime / 3)) {
            true => Step::Nothing,
            false => Step::Prepare,
        }
    }

    /// Whether a certificate in it can be used.
    pub(super) fn is_usable(&self, terms: &Terms, now: SystemTime) -> bool {
        self.step(terms, None, now) != Step::Begin
    }

    /// The same, where nothing in the Secret can be used, with the certificate that is `shown` to new
    /// connections and that the API server still trusts by its `bundle`: while another one is
    /// prepared, every replica goes on showing it. `None` where the Secret needs no such help, or
    /// there is none.
    pub(super) fn mended(
        &self,
        shown: Option<Pair>,
        bundle: &str,
        terms: &Terms,
        now: SystemTime,
    ) -> Option<Self> {
        if self.is_usable(terms, now) {
            return None;
        }
        let mended = Self {
            current: shown,
            next: None,
            authorities: bundle.to_owned(),
        };
        mended.is_usable(terms, now).then(|| Self {
            authorities: mended.in_use(terms, now),
            ..mended
        })
    }

    /// What the Secret holds after a step.
    ///
    /// # Errors
    /// When no key or no certificate can be made.
    pub(super) fn after(
        &self,
        step: &Step,
        terms: &Terms,
        now: SystemTime,
    ) -> Result<Self, rcgen::Error> {
        let make = || certificate::make(&terms.server, now, terms.lifetime);
        Ok(match step {
            Step::Nothing => self.clone(),
            Step::Begin => {
                let (pair, authority) = make()?;
                Self {
                    current: Some(pair),
                    next: None,
                    authorities: authority,
                }
            }
            Step::Prepare => {
                let (pair, authority) = make()?;
                let mut authorities = self.in_use(terms, now);
                authorities.push_str(&authority);
                Self {
                    current: self.current.clone(),
                    next: Some(pair),
                    authorities,
                }
            }
            Step::Use => Self {
                current: self.next.clone(),
                next: None,
                // The old one stays until the next renewal: another replica may still show it.
                authorities: self.authorities.clone(),
            },
        })
    }

    /// The data of the Secret, with `null` for what is not in it.
    pub(super) fn data(&self) -> Value {
        let encoded = |text: Option<&String>| match text {
            Some(text) => Value::from(STANDARD.encode(text)),
            None => Value::Null,
        };
        let certificates = |pair: &Option<Pair>| {
            let certificates = pair.as_ref().map(|pair| &pair.certificates);
            encoded(certificates)
        };
        let key = |pair: &Option<Pair>| encoded(pair.as_ref().map(|pair| &pair.key));
        let data = BTreeMap::from([
            (CERTIFICATE, certificates(&self.current)),
            (KEY, key(&self.current)),
            (NEXT_CERTIFICATE, certificates(&self.next)),
            (NEXT_KEY, key(&self.next)),
            (AUTHORITIES, encoded(Some(&self.authorities))),
        ]);
        let data = data.into_iter().map(|(key, value)| (key.to_owned(), value));
        data.collect::<Map<_, _>>().into()
    }

    fn holds(&self, pair: &Pair, terms: &Terms, at: SystemTime) -> bool {
        certificate::holds(pair, &self.authorities, &terms.server, at, &terms.provider)
    }

    /// The authorities that vouch for the certificate in use.
    fn in_use(&self, terms: &Terms, now: SystemTime) -> String {
        let Some(current) = &self.current else {
            return String::new();
        };
        let mut all = certificate::authorities(&self.authorities);
        all.retain(|one| certificate::holds(current, one, &terms.server, now, &terms.provider));
        all.concat()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 60 * 60);

    fn terms() -> Terms {
        Terms {
            server: "webhook.ci.svc".to_owned(),
            lifetime: 30 * DAY,
            settle: Duration::from_secs(60),
            provider: Arc::new(rustls::crypto::ring::default_provider()),
        }
    }

    /// Does what is to be done, and says what that was; where the API server has known the
    /// authorities for long, or does not know them.
    fn go(kept: &mut Kept, is_known: bool, now: SystemTime) -> Step {
        let step = kept.step(&terms(), is_known.then_some(DAY), now);
        *kept = kept.after(&step, &terms(), now).unwrap();
        step
    }

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_and_used_once_its_authority_is_known() {
        let start = SystemTime::now();
        let mut kept = Kept::default();
        assert_eq!(go(&mut kept, false, start), Step::Begin);
        assert_eq!(go(&mut kept, true, start), Step::Nothing);
        assert_eq!(go(&mut kept, true, start + 19 * DAY), Step::Nothing);
        let first = kept.clone();

        let due = start + 21 * DAY;
        assert_eq!(go(&mut kept, true, due), Step::Prepare);
        assert_eq!(kept.current, first.current);
        assert!(kept.authorities.starts_with(&first.authorities));
        // However long ago it was made: the API server has to know for a while.
        let settled = due + DAY;
        for known_for in [None, Some(Duration::ZERO), Some(Duration::from_secs(59))] {
            assert_eq!(kept.step(&terms(), known_for, settled), Step::Nothing);
        }
        let prepared = kept.clone();
        assert_eq!(go(&mut kept, true, settled), Step::Use);
        assert_eq!((&kept.current, &kept.next), (&prepared.next, &None));
        assert_eq!(kept.authorities, prepared.authorities);
        assert_eq!(go(&mut kept, true, settled), Step::Nothing);

        // The authority of the first one goes with the next renewal: two are enough.
        assert_eq!(go(&mut kept, true, due + 21 * DAY), Step::Prepare);
        assert_eq!(certificate::authorities(&kept.authorities).len(), 2);
        assert!(!kept.authorities.contains(first.authorities.trim()));
    }

    #[test]
    fn what_has_ended_is_replaced_at_once() {
        let start = SystemTime::now();
        let mut kept = Kept::default();
        go(&mut kept, true, start);
        let mut late = kept.clone();
        assert_eq!(go(&mut late, false, start + 31 * DAY), Step::Begin);
        assert_eq!(certificate::authorities(&late.authorities).len(), 1);
        // One that was prepared is at hand.
        go(&mut kept, true, start + 29 * DAY);
        assert_eq!(go(&mut kept, false, start + 31 * DAY), Step::Use);
    }

    #[test]
    fn what_cannot_be_used_is_made_anew() {
        let now = SystemTime::now();
        let mut kept = Kept::default();
        go(&mut kept, true, now);
        let mut other = Kept::default();
        go(&mut other, true, now);
        let mut strange = kept.clone();
        strange.authorities = other.authorities.clone();
        assert_eq!(strange.step(&terms(), None, now), Step::Begin);
        let mut mixed = kept.clone();
        if let (Some(mixed), Some(other)) = (&mut mixed.current, &other.current) {
            mixed.key = other.key.clone();
        }
        assert_eq!(mixed.step(&terms(), None, now), Step::Begin);
        let mut elsewhere = terms();
        elsewhere.server = "webhook.other.svc".to_owned();
        assert_eq!(kept.step(&elsewhere, None, now), Step::Begin);
    }

    /// The key in use is the replicas', and what the API server trusts is its own.
    #[test]
    fn a_secret_that_was_cleared_is_mended_by_what_is_shown_and_still_trusted() {
        let now = SystemTime::now();
        let (mut kept, mut other) = (Kept::default(), Kept::default());
        go(&mut kept, true, now);
        go(&mut other, true, now);
        let bundle = format!("{}{}", other.authorities, kept.authorities);
        let mended = |kept: &Kept, shown: &Kept, bundle: &str| {
            kept.mended(shown.current.clone(), bundle, &terms(), now)
        };
        let cleared = Kept::default();
        assert_eq!(mended(&cleared, &kept, &bundle), Some(kept.clone()));
        // One that the API server does not trust is of no use, nor is one where there is none.
        assert_eq!(mended(&cleared, &kept, &other.authorities), None);
        assert_eq!(mended(&cleared, &Kept::default(), &bundle), None);
        assert_eq!(mended(&kept, &other, &bundle), None, "it needs no help");
    }

    #[test]
    fn a_secret_is_read_as_it_was_written_and_nonsense_in_it_counts_as_absent() {
        let now = SystemTime::now();
        let mut kept = Kept::default();
        go(&mut kept, true, now);
        go(&mut kept, true, now + 29 * DAY);
        assert!(kept.next.is_some());
        assert_eq!(Kept::read(&json!({"data": kept.data()})), kept);
        for secret in [
            json!({}),
            json!({"data": null}),
            json!({"data": {"tls.crt": "%", "tls.key": 1, "ca.crt": "/w=="}}),
        ] {
            assert_eq!(Kept::read(&secret), Kept::default(), "{secret}");
        }
    }
}
