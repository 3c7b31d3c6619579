//! The settings of the driver.

mod access;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use pac_core::driver::Retention;
use pac_core::password::{Password, Secret};
use pac_core::{Error, ErrorKind, file};

use access::of_the_system;
pub(crate) use access::{Access, Tls, Trust};

/// Settings of an [`EtcdDriver`](crate::EtcdDriver).
///
/// `Debug` shows no password.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdOptions {
    /// The addresses of the cluster's members: `host:port`, or with `http://` or `https://` before
    /// it. Without a scheme it is `https` if there is a [`ca_file`](Self::ca_file), or if another
    /// endpoint has that scheme, else `http`.
    /// Default: `127.0.0.1:2379`.
    pub endpoints: Vec<String>,
    /// How long to try to reach one member. Default: 5 s.
    pub dial_timeout: Duration,
    /// How long one request may take, attempts at other members included. Default: 3 s.
    pub request_timeout: Duration,
    /// The user to authenticate as, with a password. Default: none.
    pub username: Option<String>,
    /// The password of the user. One in a file is read for every new connection and every new
    /// token, so that it can change. Default: none.
    pub password: Password,
    /// The certificate authority of the members, in PEM. Default: none; then `https` trusts the
    /// authorities of this system, which are those of `SSL_CERT_FILE` and `SSL_CERT_DIR` if set.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, in PEM, with [`key_file`](Self::key_file). Default: none.
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate, in PEM. Default: none.
    pub key_file: Option<PathBuf>,
    /// The name that the members' certificates are checked for. Default: the endpoint's host.
    pub server_name: Option<String>,
    /// What all keys start with: 1 to 255 visible ASCII characters. A slash is added if there is
    /// none at the end. Default: `/pac/v1/`.
    pub prefix: String,
    /// The server's `--max-txn-ops`; at least 16. Default: 128, as the server's.
    pub max_txn_ops: usize,
    /// The server's `--max-request-bytes`; at least 64 KiB. Default: 1.5 MiB, as the server's.
    pub max_request_bytes: usize,
    /// Has the driver compact the store: it forgets what was overwritten or deleted longer ago than
    /// this, of all users of the store. One process of all does so, about this often. At least
    /// 1 min. Default: `None`, since the store may have other users; then etcd has to compact by
    /// itself (`--auto-compaction-retention`).
    pub compaction: Option<Duration>,
    /// How long finished runs can be read: for at least 1 s. Default: 24 hours, and at most the
    /// latest 1,000 of each repository.
    pub retention: Retention,
}

impl Default for EtcdOptions {
    fn default() -> Self {
        Self {
            endpoints: vec!["127.0.0.1:2379".to_owned()],
            dial_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(3),
            username: None,
            password: Password::default(),
            ca_file: None,
            cert_file: None,
            key_file: None,
            server_name: None,
            prefix: "/pac/v1/".to_owned(),
            max_txn_ops: 128,
            max_request_bytes: 3 * 512 * 1024,
            compaction: None,
            retention: Retention::new(Duration::from_secs(24 * 60 * 60), 1_000),
        }
    }
}

impl EtcdOptions {
    /// The default settings with these endpoints.
    #[must_use]
    pub fn new(endpoints: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            endpoints: endpoints.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }

    /// Sets the password of the user.
    #[must_use]
    pub fn with_password(self, password: impl Into<String>) -> Self {
        Self {
            password: Password::new(password),
            ..self
        }
    }

    /// Checks the settings, and that the files that they name can be read, on a thread of its own.
    /// Asks no server.
    ///
    /// # Errors
    /// `Config` when options contradict each other, a file cannot be used or was not read within
    /// the dial timeout, or the system has no authorities and they are needed.
    pub(crate) async fn checked(&self) -> Result<Access, Error> {
        let options = self.clone();
        if !options.reads_files() {
            return options.read();
        }
        let read = file::apart(self.dial_timeout.max(LEAST_WAIT), move || {
            let access = options.read()?;
            if options.ca_file.is_none() && options.is_secure() {
                of_the_system(&access.system)?;
            }
            Ok(access)
        });
        read.await.unwrap_or_else(|reason| Err(not_read(&reason)))
    }

    /// The same on this thread, without the authorities of the system.
    pub(crate) fn read(&self) -> Result<Access, Error> {
        self.credentials()?;
        let tls = self.tls()?.is_some();
        let endpoints = self.endpoints.iter();
        let endpoints: Vec<String> = endpoints
            .map(|endpoint| full_address(endpoint, tls))
            .collect::<Result<_, _>>()?;
        if endpoints.is_empty() {
            return Err(wrong("no endpoint: name at least one member as host:port"));
        }
        if self.max_txn_ops < MIN_TXN_OPS {
            return Err(wrong(format!(
                "max_txn_ops is {}; it must be at least {MIN_TXN_OPS}",
                self.max_txn_ops
            )));
        }
        if self.max_request_bytes < MIN_REQUEST_BYTES {
            return Err(wrong(format!(
                "max_request_bytes is {}; it must be at least {MIN_REQUEST_BYTES}",
                self.max_request_bytes
            )));
        }
        if self.dial_timeout.is_zero() || self.request_timeout.is_zero() {
            return Err(wrong("timeouts must be longer than zero"));
        }
        if self.compaction.is_some_and(|age| age < MIN_COMPACTION) {
            return Err(wrong(format!(
                "the compaction keeps less than {MIN_COMPACTION:?}; controllers need that to hear \
                 what they missed while they could not reach etcd"
            )));
        }
        if self.retention.age < Duration::from_secs(1) {
            return Err(wrong("finished runs are kept for at least 1 s"));
        }
        Ok(Access {
            endpoints,
            options: self.clone(),
            system: Arc::default(),
            #[cfg(feature = "channel")]
            channel: None,
        })
    }

    /// The user and the password; reads the password file anew. `None` without a user.
    pub(crate) fn credentials(&self) -> Result<Option<(String, Secret)>, Error> {
        let password = self.password.read()?;
        match (&self.username, password) {
            (None, None) => Ok(None),
            (Some(user), Some(password)) => Ok(Some((user.clone(), password))),
            (Some(_), None) => Err(wrong("a user without a password: give both, or none")),
            (None, Some(_)) => Err(wrong("a password without a user: give both, or none")),
        }
    }

    /// The TLS settings; reads the files anew. `None` where no endpoint is asked by TLS.
    pub(crate) fn tls(&self) -> Result<Option<Tls>, Error> {
        let identity = match (&self.cert_file, &self.key_file) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((
                read_text("certificate", cert)?,
                Secret::new(read_text("key", key)?),
            )),
            _ => {
                return Err(wrong(
                    "a certificate file without a key file, or the reverse: give both, or none",
                ));
            }
        };
        let trust = match &self.ca_file {
            Some(ca_file) => Trust::Authority(read_text("CA", ca_file)?),
            None if self.is_secure() => Trust::System,
            None if identity.is_some() || self.server_name.is_some() => {
                return Err(wrong(
                    "a client certificate or server name without TLS: name the file with the \
                     certificate authority of the members, or write the endpoints with https://",
                ));
            }
            None => return Ok(None),
        };
        Ok(Some(Tls {
            trust,
            identity,
            server_name: self.server_name.clone(),
        }))
    }

    /// Whether a connection has to read files: then it does so on another thread.
    fn reads_files(&self) -> bool {
        let named = [&self.ca_file, &self.cert_file, &self.key_file];
        self.is_secure()
            || self.password.file().is_some()
            || named.iter().any(|named| named.is_some())
    }

    /// Whether an endpoint is written with `https`.
    fn is_secure(&self) -> bool {
        let mut endpoints = self.endpoints.iter();
        endpoints.any(|endpoint| endpoint.starts_with("https://"))
    }
}

/// Files are waited for at least as long, so that settings without time are refused for that.
const LEAST_WAIT: Duration = Duration::from_millis(100);

/// The shortest [`EtcdOptions::compaction`]: several times as long as a watch is resumed for.
const MIN_COMPACTION: Duration = Duration::from_secs(60);

/// A commit to one repository needs a few operations beside its entries.
const MIN_TXN_OPS: usize = 16;

/// Below this not even one entry with the longest names would fit.
const MIN_REQUEST_BYTES: usize = 64 * 1024;

/// The largest certificate or key file that is read, in bytes. Bundles of certificate authorities
/// are smaller.
const MAX_PEM_BYTES: u64 = 4 * 1024 * 1024;

/// The endpoint with its scheme, which is put before it if it is missing.
fn full_address(endpoint: &str, tls: bool) -> Result<String, Error> {
    let refuse = |rule: &str| Err(wrong(format!("endpoint {endpoint:?}: {rule}")));
    let (scheme, address) = match endpoint.split_once("://") {
        Some((scheme, address)) => (scheme, address),
        None if tls => ("https", endpoint),
        None => ("http", endpoint),
    };
    let plain = |c: char| c.is_ascii_graphic() && !"/?#@".contains(c);
    if address.is_empty() || !address.chars().all(plain) {
        return refuse("write it as host:port, without a user or path");
    }
    match (scheme, tls) {
        ("http", false) | ("https", true) => Ok(format!("{scheme}://{address}")),
        ("http", true) => {
            refuse("http does not go with a CA file or with https endpoints; write https")
        }
        _ => refuse("the scheme must be http or https"),
    }
}

fn read_text(what: &str, path: &Path) -> Result<String, Error> {
    file::read(path, MAX_PEM_BYTES).map_err(|reason| unusable(what, path, &reason))
}

/// See [`file::apart`].
fn not_read(reason: &str) -> Error {
    wrong(format!(
        "the files of the password and of the certificates of etcd {reason}"
    ))
}

/// `reason` must not repeat anything that the file holds.
fn unusable(what: &str, path: &Path, reason: &str) -> Error {
    wrong(format!("the {what} file {} {reason}", file::shown(path)))
}

fn wrong(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Config, "connect", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(options: &EtcdOptions) -> String {
        let error = options.read().map(drop).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn no_secret_is_ever_shown() {
        let options = EtcdOptions {
            username: Some("pac".to_owned()),
            ..EtcdOptions::default()
        };
        let options = options.with_password("open sesame");
        let access = options.read().unwrap();
        let shown = format!("{options:?} {options:#?} {access:?}");
        assert!(!shown.contains("sesame"), "{shown}");
        assert!(shown.contains("pac"), "{shown}");
        assert_eq!(options, options.clone());
        assert_ne!(options, options.clone().with_password("other"));
    }

    #[test]
    fn endpoints_are_completed_or_refused_with_the_rule() {
        let full = |endpoint: &str, tls| full_address(endpoint, tls);
        assert_eq!(full("etcd:2379", false).unwrap(), "http://etcd:2379");
        assert_eq!(full("etcd:2379", true).unwrap(), "https://etcd:2379");
        assert_eq!(
            full("https://[::1]:2379", true).unwrap(),
            "https://[::1]:2379"
        );
        for (endpoint, tls, cure) in [
            ("http://etcd:2379", true, "write https"),
            ("ftp://etcd", false, "must be http or https"),
            ("http://user@etcd", false, "without a user"),
            ("http://etcd/path", false, "host:port"),
            ("", false, "host:port"),
            ("a b", false, "host:port"),
        ] {
            let error = full(endpoint, tls).unwrap_err().to_string();
            assert!(error.contains(cure), "{endpoint:?}: {error}");
        }
        assert!(refusal(&EtcdOptions::new([""; 0])).contains("no endpoint"));
    }

    #[test]
    fn https_without_a_file_trusts_the_authorities_of_the_system() {
        let options = EtcdOptions::new(["https://etcd-0:2379", "etcd-1:2379"]);
        let access = options.read().unwrap();
        assert_eq!(
            access.endpoints,
            ["https://etcd-0:2379", "https://etcd-1:2379"]
        );
        let tls = options.tls().unwrap().unwrap();
        assert!(matches!(tls.trust, Trust::System));
        let mixed = EtcdOptions::new(["https://etcd-0:2379", "http://etcd-1:2379"]);
        assert!(refusal(&mixed).contains("write https"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        let with = |change: &dyn Fn(&mut EtcdOptions)| {
            let mut options = EtcdOptions::default();
            change(&mut options);
            refusal(&options)
        };
        assert!(with(&|o| o.username = Some("pac".into())).contains("without a password"));
        assert!(with(&|o| *o = o.clone().with_password("x")).contains("without a user"));
        assert!(with(&|o| o.cert_file = Some("c".into())).contains("give both"));
        assert!(with(&|o| o.server_name = Some("c".into())).contains("without TLS"));
        assert!(with(&|o| o.max_txn_ops = 2).contains("at least 16"));
        assert!(with(&|o| o.max_request_bytes = 2).contains("max_request_bytes"));
        assert!(with(&|o| o.compaction = Some(Duration::from_secs(59))).contains("60s"));
        assert!(with(&|o| o.retention.age = Duration::ZERO).contains("at least 1 s"));
        let error = with(&|o| o.ca_file = Some("/there/is/none".into()));
        assert!(error.contains("/there/is/none cannot be read"), "{error}");
    }
}
