//! How access is controlled: users, roles, certificates.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::env;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use pac_conformance::{durable, ephemeral, queued, repository, started};
use pac_core::manager::Turn;
use pac_core::password::Password;
use pac_core::state::RunOutcome;
use pac_core::{Error, ErrorKind, Limit};
use pac_etcd::{EtcdDriver, EtcdOptions};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use support::own::Member;
use tokio::time::{sleep, timeout};

pub(crate) const PASSWORD: &str = "open-sesame";

/// The error with which connecting is refused, which shows no secret.
async fn refusal(options: &EtcdOptions) -> Error {
    let error = EtcdDriver::connect(options).await.unwrap_err();
    let shown = format!("{error} {error:?}");
    assert!(!shown.contains(PASSWORD), "{shown}");
    error
}

/// An etcd with users, of which the documented script has made `pac`.
async fn with_users(prefix: &str) -> Member {
    let member = Member::single(&[]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/deploy/etcd-role.sh");
    let etcd = PathBuf::from(support::member::variable("PAC_TEST_ETCD_NEWEST_BIN"));
    let path = format!(
        "{}:{}",
        etcd.parent().unwrap().display(),
        env::var("PATH").unwrap()
    );
    // Twice, because the script can be run again.
    for _ in 0..2 {
        let mut made = Command::new("sh")
            .arg(&script)
            .args(["pac", prefix])
            .env("PATH", &path)
            .env("ETCDCTL_ENDPOINTS", member.endpoint())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(made.stdin.take().unwrap(), "{PASSWORD}").unwrap();
        assert!(made.wait().unwrap().success());
    }
    let mut auth = support::raw(&member.endpoint()).await.auth_client();
    auth.user_add("root", "root", None).await.unwrap();
    auth.role_add("root").await.unwrap();
    auth.user_grant_role("root", "root").await.unwrap();
    auth.auth_enable().await.unwrap();
    member
}

pub(crate) fn as_pac(options: &EtcdOptions, password: &str) -> EtcdOptions {
    let mut options = options.clone();
    options.username = Some("pac".to_owned());
    options.with_password(password)
}

pub(crate) fn changed(options: &EtcdOptions, change: impl FnOnce(&mut EtcdOptions)) -> EtcdOptions {
    let mut options = options.clone();
    change(&mut options);
    options
}

mod newest_etcd {
    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn the_documented_role_is_enough_for_everything() {
        let mut options = support::options(["-"]);
        let mut member = with_users(&options.prefix).await;
        options.endpoints = vec![member.endpoint()];
        let options = as_pac(&options, PASSWORD);
        let (manager, other) = (
            support::manager(&options).await,
            support::manager(&options).await,
        );
        let web = repository("web");
        let all = async |name: &str| {
            let (a, b) = (format!("a-{name}"), format!("b-{name}"));
            manager.set_limit(&web, Limit::new(1), None).await.unwrap();
            let a = started(&manager, &web, ephemeral(&a)).await;
            let b = queued(&other, &web, durable(&b)).await;
            manager.release(a, RunOutcome::Completed).await.unwrap();
            let turn = timeout(Duration::from_secs(10), b).await.unwrap();
            let Turn::Started(b) = turn.unwrap() else {
                panic!("it is its turn");
            };
            other.release(b, RunOutcome::Completed).await.unwrap();
            assert_eq!(other.list(None, 10).await.unwrap().len(), 1);
        };
        all("first").await;
        let sessions = (manager.session(), other.session());

        // Any change of users makes all tokens outdated.
        let options_of_root = etcd_client::ConnectOptions::new().with_user("root", "root");
        let root = etcd_client::Client::connect([member.endpoint()], Some(options_of_root));
        let mut auth = root.await.unwrap().auth_client();
        auth.user_add("somebody", "else", None).await.unwrap();
        all("after-a-change-of-users").await;

        // A restart makes all tokens unknown.
        member.kill();
        member.start();
        member.wait_until_healthy();
        all("after-a-restart").await;
        sleep(Duration::from_secs(7)).await;
        assert_eq!(sessions, (manager.session(), other.session()), "kept alive");

        manager.remove_repository(&web).await.unwrap();
        manager.close().await.unwrap();
        other.close().await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn who_is_not_let_in_learns_why() {
        let mut options = support::options(["-"]);
        let member = with_users(&options.prefix).await;
        options.endpoints = vec![member.endpoint()];
        for (wrong, cure) in [
            (options.clone(), "check user and password"),
            (as_pac(&options, "wrong"), "check user and password"),
            (
                changed(&as_pac(&options, PASSWORD), |o| {
                    o.prefix = "/other/".to_owned();
                }),
                "keys that start with the prefix",
            ),
        ] {
            let error = refusal(&wrong).await;
            assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
            assert!(error.to_string().contains(cure), "{error}");
        }
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
        let mut from_file = options.clone();
        from_file.username = Some("pac".to_owned());
        from_file.password = Password::in_file(file.path());
        EtcdDriver::connect(&from_file).await.unwrap();
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_password_that_changes_is_read_from_its_file_again() {
        let mut options = support::options(["-"]);
        let member = with_users(&options.prefix).await;
        options.endpoints = vec![member.endpoint()];
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), format!("{PASSWORD}\n")).unwrap();
        options.username = Some("pac".to_owned());
        options.password = Password::in_file(file.path());
        let manager = support::manager(&options).await;
        let (web, session) = (repository("web"), manager.session());
        drop(started(&manager, &web, durable("before")).await);

        let of_root = etcd_client::ConnectOptions::new().with_user("root", "root");
        let root = etcd_client::Client::connect([member.endpoint()], Some(of_root)).await;
        let mut auth = root.unwrap().auth_client();
        auth.user_change_password("pac", "another one")
            .await
            .unwrap();
        let error = manager.admit(&web, durable("early")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");

        fs::write(file.path(), "another one\n").unwrap();
        drop(started(&manager, &web, durable("after")).await);
        sleep(Duration::from_secs(7)).await;
        assert_eq!(session, manager.session(), "kept alive");
        // The watch works again: it tells of another manager's release at once.
        let other = support::manager(&options).await;
        manager.set_limit(&web, Limit::new(3), None).await.unwrap();
        let third = started(&other, &web, durable("third")).await;
        let fourth = queued(&manager, &web, durable("fourth")).await;
        other.release(third, RunOutcome::Completed).await.unwrap();
        let turn = timeout(Duration::from_secs(10), fourth).await.unwrap();
        assert!(matches!(turn.unwrap(), Turn::Started(_)));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_for_a_server_without_users_is_refused() {
    let member = Member::single(&[]);
    let options = as_pac(&support::options([member.endpoint()]), PASSWORD);
    let error = refusal(&options).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
    assert!(
        error.to_string().contains("is enabled at the server"),
        "{error}"
    );
}

/// A certificate authority, and files with what it has signed.
struct Authority {
    directory: tempfile::TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let issuer = CertifiedIssuer::self_signed(params, key).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca.pem"), issuer.pem()).unwrap();
        Self { directory, issuer }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes `<name>.pem` and `<name>.key` for a host of that name.
    fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (
            self.file(&format!("{name}.pem")),
            self.file(&format!("{name}.key")),
        );
        fs::write(&files.0, certificate.pem()).unwrap();
        fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// A member of that name, which takes only clients with certificates of the authority.
    fn member(&self, name: &str) -> Member {
        let (cert, key) = self.sign(name);
        let path = |path: PathBuf| path.to_str().unwrap().to_owned();
        Member::with_tls(&[
            "--cert-file".to_owned(),
            path(cert),
            "--key-file".to_owned(),
            path(key),
            "--client-cert-auth".to_owned(),
            "--trusted-ca-file".to_owned(),
            path(self.file("ca.pem")),
        ])
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_checked_on_both_sides() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let member = authority.member("etcd.example");
    let (cert, key) = authority.sign("controller");
    let mut right = support::options([member.endpoint()]);
    right.ca_file = Some(authority.file("ca.pem"));
    right.cert_file = Some(cert);
    right.key_file = Some(key);
    right.server_name = Some("etcd.example".to_owned());
    let manager = support::manager(&right).await;
    drop(started(&manager, &repository("web"), durable("a")).await);

    let (foreign_cert, foreign_key) = stranger.sign("controller");
    for (cure, wrong) in [
        (
            "no trusted authority has signed",
            changed(&right, |o| {
                o.ca_file = Some(stranger.file("ca.pem"));
            }),
        ),
        (
            "a certificate for another name",
            changed(&right, |o| {
                o.server_name = Some("other.example".to_owned());
            }),
        ),
        // The address is not in the certificate.
        (
            "a certificate for another name",
            changed(&right, |o| {
                o.server_name = None;
            }),
        ),
        (
            "set etcd-cert-file",
            changed(&right, |o| {
                o.cert_file = None;
                o.key_file = None;
            }),
        ),
        (
            "set etcd-cert-file",
            changed(&right, |o| {
                o.cert_file = Some(foreign_cert);
                o.key_file = Some(foreign_key);
            }),
        ),
        // Plain text.
        (
            "speaks TLS, and was asked without: set etcd-ca-file",
            changed(&right, |o| {
                o.ca_file = None;
                o.cert_file = None;
                o.key_file = None;
                o.server_name = None;
            }),
        ),
        // The authorities of the system.
        (
            "no trusted authority has signed",
            changed(&right, |o| {
                o.endpoints = vec![format!("https://{}", member.endpoint())];
                o.ca_file = None;
            }),
        ),
    ] {
        let error = refusal(&wrong).await;
        // A server whose reason did not arrive may have been stopped at that moment.
        let is_clear = !error.to_string().contains("before it answered");
        let kind = if is_clear {
            ErrorKind::Config
        } else {
            ErrorKind::Unavailable
        };
        assert_eq!(error.kind(), kind, "{cure}: {error:?}");
        let shown = error.to_string();
        assert!(
            shown.contains(cure) && shown.contains(&member.endpoint()),
            "{cure}: {shown}"
        );
    }
    let garbage = authority.file("garbage.pem");
    fs::write(&garbage, "no certificate").unwrap();
    for (cure, wrong) in [
        (
            "set etcd-ca-file",
            changed(&right, |o| {
                o.ca_file = Some(garbage.clone());
            }),
        ),
        (
            "hold no usable",
            changed(&right, |o| {
                o.key_file = Some(garbage);
            }),
        ),
    ] {
        let error = refusal(&wrong).await;
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(error.to_string().contains(cure), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_speaks_no_tls_is_named() {
    let (authority, member) = (Authority::new(), Member::single(&[]));
    let mut options = support::options([member.endpoint()]);
    options.ca_file = Some(authority.file("ca.pem"));
    let error = refusal(&options).await;
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    let shown = error.to_string();
    let cure = format!("etcd at {} does not speak TLS", member.endpoint());
    assert!(shown.contains(&cure), "{shown}");
    // The cause comes once.
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(!shown.contains(&cause), "{shown}: {cause}");
}

/// The name of the variable by which this test runs itself in another environment.
const AS_CHILD: &str = "PAC_TEST_ETCD_WITH_TLS";

/// Without a CA file, the authorities of the system are trusted: here those of a file that the
/// environment of another process names, which is this test again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn https_trusts_the_authorities_of_the_system() {
    if let Ok(endpoint) = env::var(AS_CHILD) {
        let options = support::options([format!("https://{endpoint}")]);
        let manager = support::manager(&options).await;
        drop(started(&manager, &repository("web"), durable("a")).await);
        return;
    }
    let authority = Authority::new();
    let (cert, key) = authority.sign("127.0.0.1");
    let path = |path: PathBuf| path.to_str().unwrap().to_owned();
    let member = Member::with_tls(&[
        "--cert-file".to_owned(),
        path(cert),
        "--key-file".to_owned(),
        path(key),
    ]);
    let options = support::options([format!("https://{}", member.endpoint())]);
    let error = refusal(&options).await;
    assert!(
        error.to_string().contains("no trusted authority"),
        "{error}"
    );
    let mut child = Command::new(env::current_exe().unwrap());
    let name = "access::https_trusts_the_authorities_of_the_system";
    child.args(["--exact", name]);
    child.env(AS_CHILD, member.endpoint());
    child.env("SSL_CERT_FILE", authority.file("ca.pem"));
    let ended = tokio::task::spawn_blocking(move || child.output());
    let ended = ended.await.unwrap().unwrap();
    let said = String::from_utf8_lossy(&ended.stdout);
    assert!(
        ended.status.success() && said.contains("1 passed"),
        "{said}"
    );
}
