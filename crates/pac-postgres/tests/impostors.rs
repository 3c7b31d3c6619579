//! Servers that are not the one that is meant: what each gets of the password in each SSL mode, and
//! what is said of it. `docs/operations.md` has the table.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod support;

use std::path::PathBuf;
use std::time::Duration;

use pac_core::{Error, ErrorKind};
use pac_postgres::{Authentication, Password, PostgresDriver, PostgresOptions, SslMode};
use support::impostor::{Impostor, Kind};

const SECRET: &str = "correct-horse-battery";

/// An SSL mode, and whether there is a CA file.
type Mode = (SslMode, bool);

const MODES: [Mode; 6] = [
    (SslMode::Disable, false),
    (SslMode::Require, false),
    (SslMode::Require, true),
    (SslMode::VerifyCa, true),
    (SslMode::VerifyFull, true),
    (SslMode::VerifyFull, false),
];

/// What has to be said: the kind of the error, the rule and the cure. `None` where the impostor
/// asks for nothing, and so gets nothing either.
fn expected(
    (mode, authority): Mode,
    kind: Kind,
) -> Option<(ErrorKind, &'static str, &'static str)> {
    let (scram, plain) = (
        "set postgresql-authentication: scram",
        mode == SslMode::Disable,
    );
    let other = "look at what listens there";
    Some(match kind {
        Kind::Silent => (
            ErrorKind::Unavailable,
            "no connection to",
            "look at the network",
        ),
        _ if !plain && (authority || mode == SslMode::VerifyFull) => (
            ErrorKind::Config,
            "is self-signed",
            "name that as the CA file",
        ),
        Kind::ClearText | Kind::Md5 if plain => (
            ErrorKind::Unauthorised,
            "is given to no server without TLS",
            "scram-sha-256",
        ),
        Kind::ClearText | Kind::Md5 => {
            let rule = "with the SSL mode require and no CA file, because its certificate is not";
            (
                ErrorKind::Unauthorised,
                rule,
                "set the SSL mode verify-full",
            )
        }
        Kind::Unbound | Kind::Trusting | Kind::Endless if !plain => (
            ErrorKind::Unauthorised,
            "did not use channel binding",
            scram,
        ),
        Kind::Trusting => return None,
        Kind::Unbound | Kind::Unproven => (
            ErrorKind::Unauthorised,
            "could not prove that it knows the password",
            other,
        ),
        Kind::Huge => (
            ErrorKind::Config,
            "announces a message of 2147483647 bytes",
            other,
        ),
        Kind::Endless => (ErrorKind::Config, "sends more than 262144 bytes", other),
    })
}

/// A file with an authority that has signed nothing.
fn authority(directory: &tempfile::TempDir) -> PathBuf {
    let path = directory.path().join("ca.pem");
    let key = rcgen::KeyPair::generate().unwrap();
    let params = rcgen::CertificateParams::new(vec!["authority".to_owned()]).unwrap();
    std::fs::write(&path, params.self_signed(&key).unwrap().pem()).unwrap();
    path
}

async fn refusal(options: PostgresOptions) -> Error {
    let error = match PostgresDriver::connect(options).await {
        Ok(_) => panic!("connected to an impostor"),
        Err(error) => error,
    };
    assert!(!format!("{error} {error:?}").contains(SECRET), "{error:?}");
    error
}

fn options(impostor: &Impostor, mode: SslMode, ca: Option<PathBuf>) -> PostgresOptions {
    let mut options = support::options(impostor.port);
    options.password = Password::new(SECRET);
    (options.ssl_mode, options.ca_file) = (mode, ca);
    options.connection_timeout = Duration::from_secs(5);
    options
}

#[tokio::test]
async fn no_impostor_gets_the_password_in_any_ssl_mode() {
    let directory = tempfile::tempdir().unwrap();
    let ca = authority(&directory);
    let mut cells = 0;
    for kind in Kind::ALL {
        for mode in MODES {
            let Some((expected, rule, cure)) = expected(mode, kind) else {
                continue;
            };
            let impostor = Impostor::start(kind).await;
            let mut options = options(&impostor, mode.0, mode.1.then(|| ca.clone()));
            if kind == Kind::Silent {
                options.connection_timeout = Duration::from_millis(300);
            }
            let error = refusal(options).await;
            let cell = format!("{} CA file: {} {kind:?}", mode.0, mode.1);
            assert_eq!(error.kind(), expected, "{cell}: {error} {error:?}");
            let text = error.to_string();
            assert!(text.contains(rule) && text.contains(cure), "{cell}: {text}");
            let got = impostor.got();
            let scram = kind == Kind::Unproven || kind == Kind::Unbound;
            // With SCRAM the password is used, and cannot be had from what is sent. All others get
            // nothing at all but the names of role and database.
            let expects_scram =
                expected == ErrorKind::Unauthorised && rule.contains("prove that it");
            assert_eq!(!got.is_empty(), scram && expects_scram, "{cell}: {got:?}");
            let text = String::from_utf8_lossy(&got);
            assert!(
                !text.contains(SECRET) && !text.contains("md5"),
                "{cell}: {text}"
            );
            assert_eq!(
                text.contains("SCRAM-SHA-256"),
                expects_scram,
                "{cell}: {text}"
            );
            cells += 1;
        }
    }
    assert_eq!(cells, Kind::ALL.len() * MODES.len() - 1);
}

/// The impostors do get what they ask for where a setting allows it: so the test above would see it.
#[tokio::test]
async fn whoever_asks_gets_the_password_where_a_setting_says_so() {
    for mode in [SslMode::Disable, SslMode::Require] {
        for (kind, sent) in [(Kind::ClearText, SECRET), (Kind::Md5, "md5")] {
            let impostor = Impostor::start(kind).await;
            let mut options = options(&impostor, mode, None);
            options.authentication = Some(Authentication::Any);
            drop(refusal(options.clone()).await);
            let got = impostor.got();
            assert!(
                String::from_utf8_lossy(&got).contains(sent),
                "{mode} {kind:?}"
            );
            // A setting that demands more than the mode does is named.
            options.authentication = Some(Authentication::Scram);
            let again = Impostor::start(kind).await;
            options.hosts[0].1 = again.port;
            let error = refusal(options).await.to_string();
            assert!(
                error.contains("with postgresql-authentication: scram"),
                "{error}"
            );
            assert!(again.got().is_empty());
        }
    }
}

/// With a proxy in between there is no channel binding, and none is asked for where a setting says so.
#[tokio::test]
async fn without_channel_binding_scram_still_has_to_be_proven() {
    for kind in [Kind::Unbound, Kind::Unproven] {
        let impostor = Impostor::start(kind).await;
        let mut options = options(&impostor, SslMode::Require, None);
        options.authentication = Some(Authentication::Scram);
        let error = refusal(options).await;
        assert_eq!(error.kind(), ErrorKind::Unauthorised);
        assert!(error.to_string().contains("could not prove"), "{error}");
    }
}
