//! How to reach the cluster: the options, checked, and what their files hold.

use std::sync::{Arc, OnceLock};

use pac_core::driver::Finding;
use pac_core::password::Secret;
use pac_core::{Error, file};
use rustls::RootCertStore;
use rustls::pki_types::TrustAnchor;

use super::{EtcdOptions, not_read, wrong};

/// The authorities of the system, after they were first needed.
pub(super) type System = OnceLock<Vec<TrustAnchor<'static>>>;

/// How to reach the cluster: the options, checked. Their files are read anew for every
/// connection.
#[derive(Debug)]
pub(crate) struct Access {
    /// Each with its scheme.
    pub(crate) endpoints: Vec<String>,
    pub(crate) options: EtcdOptions,
    /// The authorities of the system, after they were first needed.
    pub(super) system: Arc<System>,
    /// What connects to the one member, in the place of its endpoint.
    #[cfg(feature = "channel")]
    pub(crate) channel: Option<etcd_client::Channel>,
}

/// What the files that the options name hold now.
pub(crate) struct Secrets {
    /// The user and the password.
    pub(crate) credentials: Option<(String, Secret)>,
    pub(crate) tls: Option<Tls>,
    /// Those of the system, where they are trusted.
    pub(crate) authorities: Option<Authorities>,
}

/// The authorities that a system trusts.
pub(crate) struct Authorities(pub(crate) Vec<TrustAnchor<'static>>);

/// The contents of the files, in PEM.
pub(crate) struct Tls {
    pub(crate) trust: Trust,
    pub(crate) identity: Option<(String, Secret)>,
    pub(crate) server_name: Option<String>,
}

/// Which authorities may have signed the certificates of members.
pub(crate) enum Trust {
    /// This one, in PEM.
    Authority(String),
    /// Those that this system trusts.
    System,
}

impl Access {
    /// What an operator should know of these settings, whatever the members answer. Looks at the disk
    /// for as long as the dial timeout, on a thread of its own.
    pub(crate) async fn findings(&self) -> Vec<Finding> {
        let mut findings = Vec::new();
        let plain = |endpoint: &&String| endpoint.starts_with("http://");
        if self.options.username.is_some()
            && let Some(endpoint) = self.endpoints.iter().find(plain)
        {
            findings.push(Finding::warning(
                format!(
                    "the password of etcd goes to {endpoint} in plain text: anybody on the way \
                     there can read it, and answer in the place of etcd"
                ),
                "have the members listen with TLS, write the endpoints with https://, and set \
                 etcd-ca-file to the authority that signed their certificates",
            ));
        }
        if let Some(key) = self.options.key_file.clone() {
            let look = file::apart(self.options.dial_timeout, move || file::exposed_key(&key));
            // A thread that fails, or does not end, has found nothing.
            findings.extend(look.await.ok().flatten());
        }
        findings
    }

    /// The options that do not change, with the files that they name as they are now. Reads the
    /// files, and once also the authorities of the system, on a thread of its own.
    ///
    /// # Errors
    /// `Config` when a file cannot be used, or was not read within the dial timeout.
    pub(crate) async fn secrets(&self) -> Result<Secrets, Error> {
        let options = self.options.clone();
        let system = Arc::clone(&self.system);
        if !options.reads_files() {
            return read(&options, &system);
        }
        let read = file::apart(options.dial_timeout, move || read(&options, &system));
        read.await.unwrap_or_else(|reason| Err(not_read(&reason)))
    }
}

fn read(options: &EtcdOptions, system: &System) -> Result<Secrets, Error> {
    let credentials = options.credentials()?;
    let tls = options.tls()?;
    let authorities = match &tls {
        Some(tls) if matches!(tls.trust, Trust::System) => Some(of_the_system(system)?),
        _ => None,
    };
    Ok(Secrets {
        credentials,
        tls,
        authorities,
    })
}

/// The authorities that this system trusts. They are read once: there are hundreds.
pub(super) fn of_the_system(known: &System) -> Result<Authorities, Error> {
    let authorities = match known.get() {
        Some(known) => known,
        None => {
            let found = rustls_native_certs::load_native_certs();
            let mut store = RootCertStore::empty();
            store.add_parsable_certificates(found.certs);
            if store.is_empty() {
                let causes: Vec<_> = found.errors.iter().map(ToString::to_string).collect();
                return Err(wrong(
                    "an endpoint is written with https, no etcd-ca-file is given, and this system \
                     trusts no authority: set etcd-ca-file to the file with the authority that \
                     signed the members' certificates, or install ca-certificates",
                )
                .caused_by(causes.join("; ")));
            }
            known.get_or_init(|| store.roots)
        }
    };
    Ok(Authorities(authorities.clone()))
}

#[cfg(test)]
mod tests {
    use pac_core::ErrorKind;
    use pac_core::password::Password;

    use super::*;

    #[tokio::test]
    async fn files_that_are_no_files_hang_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status();
        assert!(made.unwrap().success());
        let mut with_key = EtcdOptions::new(["https://etcd:2379"]);
        with_key.cert_file = Some(pipe.clone());
        with_key.key_file = Some(pipe.clone());
        let mut with_ca = EtcdOptions::new(["etcd:2379"]);
        with_ca.ca_file = Some("/dev/zero".into());
        let with_password = EtcdOptions {
            username: Some("pac".to_owned()),
            password: Password::in_file(&pipe),
            ..EtcdOptions::default()
        };
        for options in [with_key, with_ca, with_password] {
            let refused = options.checked().await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Config);
            let shown = refused.to_string();
            assert!(shown.contains("must be a regular file"), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_password_in_plain_text_and_an_open_key_are_found() {
        use std::os::unix::fs::PermissionsExt;

        let found = async |options: &EtcdOptions| {
            let findings = options.read().unwrap().findings().await;
            let shown: Vec<_> = findings.iter().map(ToString::to_string).collect();
            shown.concat()
        };
        assert_eq!(found(&EtcdOptions::default()).await, "");
        let mut options = EtcdOptions::default().with_password("open sesame");
        options.username = Some("pac".to_owned());
        let shown = found(&options).await;
        assert!(shown.contains("127.0.0.1:2379 in plain text"), "{shown}");
        assert!(
            shown.contains("https://") && !shown.contains("sesame"),
            "{shown}"
        );
        options.endpoints = vec!["https://etcd:2379".to_owned()];
        assert_eq!(found(&options).await, "");
        let directory = tempfile::tempdir().unwrap();
        let key = directory.path().join("tls.key");
        for (mode, is_open) in [(0o400, false), (0o644, true)] {
            std::fs::write(&key, "PEM").unwrap();
            std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
            options.cert_file = Some(key.clone());
            options.key_file = Some(key.clone());
            let shown = found(&options).await;
            assert_eq!(shown.contains("tls.key"), is_open, "{mode:o}: {shown}");
            std::fs::remove_file(&key).unwrap();
        }
    }
}
