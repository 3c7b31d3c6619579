//! Connecting: every way to fail has its own words, and TLS means what libpq says it means.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::support;

use std::path::PathBuf;
use std::time::Duration;

use pac_core::driver::Driver;
use pac_core::{Error, ErrorKind};
use pac_postgres::{Authentication, Password, PostgresDriver, PostgresOptions, SslMode};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use support::own::{OwnServer, free_port};
use support::{SYSTEM, TTL, options, port, raw, unique};

const SECRET: &str = "correct-horse-battery";

/// The error with which connecting is refused, which shows no secret.
async fn refusal(options: &PostgresOptions) -> Error {
    let error = match PostgresDriver::connect(options.clone()).await {
        Ok(_) => panic!("connected with {options:?}"),
        Err(error) => error,
    };
    let mut shown = format!("{options:?} {error} {error:?}");
    let mut cause = std::error::Error::source(&error);
    while let Some(inner) = cause {
        shown.push_str(&format!("{inner} {inner:?}"));
        cause = inner.source();
    }
    assert!(
        !shown.contains(SECRET) && !shown.contains("wrong-guess"),
        "{shown}"
    );
    error
}

async fn refused(options: &PostgresOptions, kind: ErrorKind, words: &str) {
    let error = refusal(options).await;
    assert_eq!(error.kind(), kind, "{error} {error:?}");
    assert!(error.to_string().contains(words), "{error} {error:?}");
}

#[tokio::test]
async fn each_way_to_fail_has_its_own_words() {
    let good = options(port(SYSTEM));
    let with = |change: &dyn Fn(&mut PostgresOptions)| {
        let mut options = good.clone();
        change(&mut options);
        options
    };
    let nobody_there = free_port();
    let cases: [(PostgresOptions, ErrorKind, &str); 5] = [
        (
            with(&|o| o.hosts[0].1 = nobody_there),
            ErrorKind::Unavailable,
            "nothing listens",
        ),
        (
            with(&|o| o.hosts[0].0 = "no-such-host.invalid".to_owned()),
            ErrorKind::Unavailable,
            "correct the name of the host",
        ),
        (
            with(&|o| o.database = "no_such_database".to_owned()),
            ErrorKind::Config,
            "create it, or correct the name",
        ),
        (
            with(&|o| o.ssl_mode = SslMode::Require),
            ErrorKind::Config,
            "enable ssl",
        ),
        (
            with(&|o| o.password = Password::in_file("/no/such/file")),
            ErrorKind::Config,
            "/no/such/file",
        ),
    ];
    for (options, kind, words) in cases {
        refused(&options, kind, words).await;
    }
}

#[tokio::test]
async fn passwords_are_checked_with_scram_and_read_anew_from_their_file() {
    let hba = "host all postgres 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n";
    let server = OwnServer::start(SYSTEM, "", hba);
    let client = raw(server.port).await;
    let sql = format!(
        "CREATE ROLE pac_user LOGIN PASSWORD '{SECRET}'; CREATE DATABASE pac_concurrency OWNER pac_user"
    );
    for sql in sql.split("; ") {
        client.batch_execute(sql).await.unwrap();
    }
    let mut options = options(server.port);
    options.username = "pac_user".to_owned();
    options.database = "pac_concurrency".to_owned();
    refused(&options, ErrorKind::Unauthorised, "set the password").await;
    options.password = Password::new("wrong-guess");
    refused(&options, ErrorKind::Unauthorised, "refuses the password").await;
    let file = tempfile::NamedTempFile::new().unwrap();
    options.password = Password::in_file(file.path());
    std::fs::write(file.path(), "wrong-guess\n").unwrap();
    refused(&options, ErrorKind::Unauthorised, "refuses the password").await;
    std::fs::write(file.path(), format!("{SECRET}\n")).unwrap();
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    assert!(!format!("{driver:?}").contains(SECRET));
    options.username = "nobody_knows_me".to_owned();
    let error = refusal(&options).await;
    assert_eq!(error.kind(), ErrorKind::Unauthorised, "{error}");
}

#[tokio::test]
async fn a_full_server_and_an_exhausted_pool_say_so() {
    let settings = "max_connections = 8\nsuperuser_reserved_connections = 0\n";
    let server = OwnServer::start(SYSTEM, settings, "");
    let mut options = options(server.port);
    options.max_connections = 1;
    options.connection_timeout = Duration::from_millis(500);
    options.full_server_timeout = Duration::from_millis(500);
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    let client = raw(server.port).await;
    // The lock on the table keeps the only connection of the pool waiting.
    let block = format!("BEGIN; LOCK TABLE {}.repositories", options.schema);
    client.batch_execute(&block).await.unwrap();
    let session = driver.open_session(TTL, &support::me()).await.unwrap();
    let key = support::key("web");
    let (slow, error) = tokio::join!(
        tokio::time::timeout(Duration::from_secs(2), driver.load(&key, None)),
        async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            driver.load(&key, None).await.unwrap_err()
        }
    );
    assert!(slow.is_err());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("all 1 connections"), "{error}");
    // The keep-alive does not use the pool.
    driver.keep_alive(session).await.unwrap();
    client.batch_execute("ROLLBACK").await.unwrap();
    let mut all = Vec::new();
    for _ in 0..8 {
        let config = format!(
            "host=127.0.0.1 port={} user=postgres dbname=postgres",
            server.port
        );
        if let Ok((client, connection)) =
            tokio_postgres::connect(&config, tokio_postgres::NoTls).await
        {
            tokio::spawn(connection);
            all.push(client);
        }
    }
    refused(&options, ErrorKind::TooManyClients, "no connection left").await;
}

#[tokio::test]
async fn a_standby_is_passed_over_for_the_server_that_takes_writes() {
    let standby = OwnServer::start(SYSTEM, "default_transaction_read_only = on\n", "");
    let mut options = options(standby.port);
    refused(&options, ErrorKind::Unavailable, "is read-only").await;
    options.hosts.push(("127.0.0.1".to_owned(), port(SYSTEM)));
    PostgresDriver::connect(options).await.unwrap();
}

struct Pki {
    directory: tempfile::TempDir,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Pki {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let pki = Self {
            ca: authority(),
            directory,
        };
        pki.write("ca.pem", &pki.ca.pem());
        pki.write("other-ca.pem", &authority().pem());
        pki
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A certificate and its key.
    fn issue(&self, name: &str, years: (i32, i32)) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.not_before = rcgen::date_time_ymd(years.0, 1, 1);
        params.not_after = rcgen::date_time_ymd(years.1, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let certificate = params.signed_by(&key, &self.ca).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn server(&self, name: &str, years: (i32, i32), hba: &str) -> OwnServer {
        let mut server = OwnServer::prepare(SYSTEM);
        let (certificate, key) = self.issue(name, years);
        server.write("server.crt", &certificate);
        server.write("server.key", &key);
        server.write("ca.crt", &self.ca.pem());
        server.write("pg_hba.conf", hba);
        server.start_again_with(&["-c", "ssl=on", "-c", "ssl_ca_file=ca.crt"]);
        server
    }
}

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(rcgen::DnType::CommonName, unique("authority"));
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

const NOW: (i32, i32) = (2020, 2090);
const TLS_ONLY: &str = "hostssl all all 127.0.0.1/32 trust\n";

#[tokio::test]
async fn every_ssl_mode_accepts_and_refuses_what_libpq_does() {
    let pki = Pki::new();
    let localhost = pki.server("localhost", NOW, TLS_ONLY);
    let elsewhere = pki.server("db.example.org", NOW, TLS_ONLY);
    let expired = pki.server("localhost", (2000, 2001), TLS_ONLY);
    let (ca, other) = (Some("ca.pem"), Some("other-ca.pem"));
    let unsigned = Some("not signed by an authority");
    let unnamed = Some("does not name that host");
    let outdated = Some("has expired");
    let cases = [
        (&localhost, SslMode::Disable, None, Some("over TLS only")),
        (&localhost, SslMode::Require, None, None),
        (&elsewhere, SslMode::Require, None, None),
        (&expired, SslMode::Require, None, None),
        // With a CA file, `require` is `verify-ca`.
        (&localhost, SslMode::Require, ca, None),
        (&localhost, SslMode::Require, other, unsigned),
        (&localhost, SslMode::VerifyCa, ca, None),
        (&elsewhere, SslMode::VerifyCa, ca, None),
        (&localhost, SslMode::VerifyCa, other, unsigned),
        (&expired, SslMode::VerifyCa, ca, outdated),
        (&localhost, SslMode::VerifyFull, ca, None),
        (&elsewhere, SslMode::VerifyFull, ca, unnamed),
        (&localhost, SslMode::VerifyFull, other, unsigned),
        (&localhost, SslMode::VerifyFull, None, unsigned),
        (&expired, SslMode::VerifyFull, ca, outdated),
    ];
    for (server, mode, authority, words) in cases {
        let mut options = options(server.port);
        options.hosts[0].0 = "localhost".to_owned();
        options.ssl_mode = mode;
        // The servers trust everybody.
        options.authentication = Some(Authentication::Scram);
        options.ca_file = authority.map(|name| pki.path(name));
        match words {
            None => {
                PostgresDriver::connect(options).await.unwrap();
            }
            Some(words) => {
                let error = refusal(&options).await;
                assert!(
                    error.to_string().contains(words),
                    "{mode} {authority:?}: {error} {error:?}"
                );
                assert!(!error.is_retryable(), "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_it_is_asked_for() {
    let pki = Pki::new();
    let hba = "hostssl all all 127.0.0.1/32 cert\n";
    let server = pki.server("localhost", NOW, hba);
    let mut options = options(server.port);
    options.hosts[0].0 = "localhost".to_owned();
    options.ssl_mode = SslMode::VerifyFull;
    options.ca_file = Some(pki.path("ca.pem"));
    let error = refusal(&options).await;
    assert!(!error.is_retryable(), "{error} {error:?}");
    let (certificate, key) = pki.issue("postgres", NOW);
    let certificate = pki.write("client.pem", &certificate);
    let key = pki.write("client.key", &key);
    options.client_certificate = Some((certificate.clone(), key));
    PostgresDriver::connect(options.clone()).await.unwrap();
    let (_, foreign) = pki.issue("postgres", NOW);
    options.client_certificate = Some((certificate, pki.write("foreign.key", &foreign)));
    refused(&options, ErrorKind::Config, "do not belong together").await;
    options.client_certificate = Some((pki.path("none.pem"), pki.path("none.key")));
    refused(&options, ErrorKind::Config, "none.pem").await;
    options.client_certificate = None;
    options.ca_file = Some(pki.write("empty.pem", ""));
    refused(&options, ErrorKind::Config, "holds no certificate").await;
}

/// What the environment of a process says of the authorities that its system trusts, it says to the
/// whole process: so this test runs itself in another one.
#[tokio::test]
async fn without_a_file_the_systems_authorities_are_trusted() {
    const PORT: &str = "PAC_TEST_TLS_PORT";
    if let Ok(port) = std::env::var(PORT) {
        let mut options = options(port.parse().unwrap());
        options.hosts[0].0 = "localhost".to_owned();
        options.ssl_mode = SslMode::VerifyFull;
        PostgresDriver::connect(options).await.unwrap();
        return;
    }
    let pki = Pki::new();
    let server = pki.server("localhost", NOW, TLS_ONLY);
    let trusting = |authority: &str| {
        let name = "connections::without_a_file_the_systems_authorities_are_trusted";
        let mut process = std::process::Command::new(std::env::current_exe().unwrap());
        process.args(["--exact", name]);
        process.env(PORT, server.port.to_string());
        process.env("SSL_CERT_FILE", pki.path(authority));
        process.env_remove("SSL_CERT_DIR");
        process.output().unwrap()
    };
    let trusted = trusting("ca.pem");
    assert!(trusted.status.success(), "{trusted:?}");
    let other = trusting("other-ca.pem");
    assert!(!other.status.success(), "{other:?}");
}

/// A real server does what is asked of it where its certificate is not checked; one that asks for
/// nothing does not, and the error names the setting for that.
#[tokio::test]
async fn the_default_ssl_mode_asks_for_channel_binding() {
    let pki = Pki::new();
    let hba = "host all postgres 127.0.0.1/32 trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
    let server = pki.server("localhost", NOW, hba);
    let client = raw(server.port).await;
    let create = format!("CREATE ROLE bound SUPERUSER LOGIN PASSWORD '{SECRET}'");
    client.batch_execute(&create).await.unwrap();
    let mut options = options(server.port);
    options.ssl_mode = SslMode::Require;
    options.username = "bound".to_owned();
    options.password = Password::new(SECRET);
    let driver = PostgresDriver::connect(options.clone()).await.unwrap();
    let client_of = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
                     WHERE ssl AND usename = 'bound'";
    assert!(support::value::<i64>(&client, client_of).await > 0);
    drop(driver);
    options.password = Password::new("wrong-guess");
    refused(&options, ErrorKind::Unauthorised, "refuses the password").await;
    // Trusted without a password.
    options.username = "postgres".to_owned();
    let words = "set postgresql-authentication: scram";
    refused(&options, ErrorKind::Unauthorised, words).await;
    options.authentication = Some(Authentication::Scram);
    PostgresDriver::connect(options).await.unwrap();
}

#[tokio::test]
async fn a_real_server_that_asks_for_less_than_scram_is_refused_and_named() {
    let hba = "host all postgres 127.0.0.1/32 trust\nhost all clear 127.0.0.1/32 password\n\
               host all digest 127.0.0.1/32 md5\n";
    let server = OwnServer::start(SYSTEM, "password_encryption = md5\n", hba);
    let client = raw(server.port).await;
    for (role, words) in [("clear", "in clear text"), ("digest", "as MD5")] {
        let create = format!("CREATE ROLE {role} SUPERUSER LOGIN PASSWORD '{SECRET}'");
        client.batch_execute(&create).await.unwrap();
        let mut options = options(server.port);
        options.username = role.to_owned();
        options.password = Password::new(SECRET);
        refused(&options, ErrorKind::Unauthorised, words).await;
        refused(
            &options,
            ErrorKind::Unauthorised,
            "store it as scram-sha-256",
        )
        .await;
        options.authentication = Some(Authentication::Any);
        PostgresDriver::connect(options).await.unwrap();
    }
}

#[tokio::test]
async fn a_certificate_that_signed_itself_is_called_so() {
    let pki = Pki::new();
    let key = KeyPair::generate().unwrap();
    for authority in [false, true] {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        if authority {
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }
        let certificate = params.self_signed(&key).unwrap().pem();
        let mut server = OwnServer::prepare(SYSTEM);
        server.write("server.crt", &certificate);
        server.write("server.key", &key.serialize_pem());
        server.write("pg_hba.conf", TLS_ONLY);
        server.start_again_with(&["-c", "ssl=on"]);
        let mut options = options(server.port);
        options.hosts[0].0 = "localhost".to_owned();
        options.ssl_mode = SslMode::VerifyFull;
        options.ca_file = Some(pki.path("ca.pem"));
        refused(&options, ErrorKind::Config, "is self-signed").await;
        // Named as the CA file it is taken, unless it says that it is no server's.
        options.ca_file = Some(pki.write("own.pem", &certificate));
        if authority {
            refused(&options, ErrorKind::Config, "basicConstraints=CA:FALSE").await;
        } else {
            PostgresDriver::connect(options).await.unwrap();
        }
    }
}

/// A name that no writer opens would stop whatever reads it.
#[tokio::test]
async fn files_have_to_be_regular_ones() {
    let directory = tempfile::tempdir().unwrap();
    let fifo = directory.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status();
    assert!(made.unwrap().success());
    let good = options(port(SYSTEM));
    for path in [
        fifo,
        PathBuf::from("/dev/zero"),
        directory.path().to_owned(),
    ] {
        let mut options = good.clone();
        options.password = Password::in_file(&path);
        let told = path.display().to_string();
        refused(&options, ErrorKind::Config, &told).await;
        options.password = Password::default();
        options.ssl_mode = SslMode::VerifyFull;
        options.ca_file = Some(path.clone());
        refused(&options, ErrorKind::Config, &told).await;
        options.ca_file = None;
        options.ssl_mode = SslMode::Require;
        options.client_certificate = Some((path.clone(), path));
        refused(&options, ErrorKind::Config, &told).await;
    }
}

#[tokio::test]
async fn a_private_key_that_everybody_can_read_is_told() {
    use std::os::unix::fs::PermissionsExt;
    let pki = Pki::new();
    let server = pki.server("localhost", NOW, "hostssl all all 127.0.0.1/32 cert\n");
    let (certificate, key) = pki.issue("postgres", NOW);
    let key = pki.write("client.key", &key);
    let mut options = options(server.port);
    options.ssl_mode = SslMode::Require;
    options.authentication = Some(Authentication::Scram);
    options.client_certificate = Some((pki.write("client.pem", &certificate), key.clone()));
    for (mode, told) in [(0o644, true), (0o640, false)] {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let driver = PostgresDriver::connect(options.clone()).await.unwrap();
        let found = driver.diagnose().await.unwrap();
        let about = |text: &str| text.contains("client.key") && text.contains("private key");
        assert_eq!(
            found.iter().any(|finding| about(finding.text())),
            told,
            "{found:?}"
        );
    }
}
