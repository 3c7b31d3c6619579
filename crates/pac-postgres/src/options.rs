//! The settings of the driver.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pac_core::driver::Retention;
use pac_core::password::Password;
use pac_core::{Error, ErrorKind, SessionIdentity};

/// The most bytes that PostgreSQL keeps of what a connection is called.
const LONGEST_NAME: usize = 63;

/// Settings of a [`PostgresDriver`](crate::PostgresDriver). Start from the default.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresOptions {
    /// The servers, tried in this order for one that takes writes: name or address, and port.
    /// With a primary and its standbys here, a fail-over is survived. Default: localhost, 5432.
    pub hosts: Vec<(String, u16)>,
    /// The database. Default: `pac_concurrency`.
    pub database: String,
    /// The role. Default: `pac_user`.
    pub username: String,
    /// The password of the role. Default: none.
    pub password: Password,
    /// Whether connections are encrypted, and what is checked. Default: `require`.
    pub ssl_mode: SslMode,
    /// How a server has to authenticate this process before it gets the password. `None`: as
    /// [`Authentication`] says of each SSL mode. Default: `None`.
    pub authentication: Option<Authentication>,
    /// PEM file of the authorities that may have signed the server's certificate. Default: with
    /// `verify-full` those that the system trusts, else none.
    pub ca_file: Option<PathBuf>,
    /// PEM files of a certificate, with its chain, and its private key, if the server asks for one.
    /// Like all files here they are read for each new connection. Default: none.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// The schema that holds the tables, created if need be: 1 to 63 lower-case letters, digits
    /// or `_`, not starting with a digit or `pg_`. Default: `pac`.
    pub schema: String,
    /// What a driver that connects may do about a schema that is missing or old. Default: create it,
    /// and leave an old one alone.
    pub migrate: Migrate,
    /// What its connections are called at the server, in `pg_stat_activity` and its log: at most 63
    /// bytes, without control characters. `None`: who this process is, see
    /// [`SessionIdentity::of_this_process`]. Default: `None`.
    pub application_name: Option<String>,
    /// Most connections in the pool for requests; one more serves hints and the keep-alive of
    /// sessions. At least 1. Default: 10.
    pub max_connections: usize,
    /// How long it may take to get a connection, new or from the pool. Where there are several
    /// hosts, one that does not answer is given up after 3 s at most. Default: 30 s.
    pub connection_timeout: Duration,
    /// How long a driver that connects waits for a server that has no room for another connection,
    /// before it fails with [`TooManyClients`](ErrorKind::TooManyClients).
    /// One that is connected needs no more than the connection that it has. Default: 30 s.
    pub full_server_timeout: Duration,
    /// How long one statement may take. Default: 10 s.
    pub statement_timeout: Duration,
    /// How long the slots of durable runs outlive their controller, where the manager's
    /// settings do not say. Default: 1 h.
    pub lease_ttl: Duration,
    /// How long finished runs can be read. Runs that are older, or beyond the number, are deleted
    /// within seconds as long as a manager runs. Default: 24 h, and the latest 1,000 of a
    /// repository.
    pub retention: Retention,
    /// Whether each connection has to ask for READ COMMITTED, because the default is another one.
    pub(crate) sets_isolation: bool,
}

impl Default for PostgresOptions {
    fn default() -> Self {
        Self {
            hosts: vec![("localhost".to_owned(), 5432)],
            database: "pac_concurrency".to_owned(),
            username: "pac_user".to_owned(),
            password: Password::default(),
            ssl_mode: SslMode::Require,
            authentication: None,
            ca_file: None,
            client_certificate: None,
            schema: "pac".to_owned(),
            migrate: Migrate::default(),
            application_name: None,
            max_connections: 10,
            connection_timeout: Duration::from_secs(30),
            full_server_timeout: Duration::from_secs(30),
            statement_timeout: Duration::from_secs(10),
            lease_ttl: Duration::from_secs(60 * 60),
            retention: Retention::new(Duration::from_secs(24 * 60 * 60), 1_000),
            sets_isolation: false,
        }
    }
}

impl PostgresOptions {
    /// Says that there is no schema; the start of a sentence.
    pub(crate) fn no_schema(&self) -> String {
        format!(
            "the database {:?} has no schema {:?} of this software",
            self.database, self.schema
        )
    }

    /// What connections are called.
    pub(crate) fn connection_name(&self) -> String {
        let own = || SessionIdentity::of_this_process().within(LONGEST_NAME);
        self.application_name.clone().unwrap_or_else(own)
    }

    /// Whether a server's certificate is checked before anything is sent to it.
    pub(crate) fn verifies(&self) -> bool {
        match self.ssl_mode {
            SslMode::Disable => false,
            SslMode::Require => self.ca_file.is_some(),
            SslMode::VerifyCa | SslMode::VerifyFull => true,
        }
    }

    /// The authentication that a server has to ask for, at least.
    pub(crate) fn demanded(&self) -> Authentication {
        self.authentication.unwrap_or(match self.ssl_mode {
            SslMode::Disable => Authentication::Scram,
            _ if self.verifies() => Authentication::Any,
            _ => Authentication::ChannelBinding,
        })
    }

    /// Whether the settings can be used together.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, "connect", message));
        if self.hosts.is_empty() || self.hosts.iter().any(|(host, _)| host.is_empty()) {
            return wrong(
                "name at least one host of PostgreSQL, and none that is empty".to_owned(),
            );
        }
        if !is_identifier(&self.schema) {
            return wrong(format!(
                "the schema {:?} must be 1 to 63 lower-case letters, digits or '_', and not start \
                 with a digit or pg_",
                self.schema.chars().take(80).collect::<String>()
            ));
        }
        let texts = [&self.database, &self.username];
        if texts
            .iter()
            .any(|text| text.is_empty() || text.contains('\0'))
        {
            return wrong(
                "neither the database nor the username may be empty or hold a NUL".to_owned(),
            );
        }
        let name = self.application_name.as_deref().unwrap_or("-");
        if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            return wrong(
                "the application name must be 1 to 63 bytes without control characters".to_owned(),
            );
        }
        if self.max_connections == 0 {
            return wrong("the most connections must be at least 1; usual is 10".to_owned());
        }
        let times = [
            self.connection_timeout,
            self.statement_timeout,
            self.lease_ttl,
            self.retention.age,
        ];
        if times.iter().any(Duration::is_zero) || self.retention.per_repository == 0 {
            return wrong(
                "timeouts, the lease TTL and the retention must be above zero".to_owned(),
            );
        }
        if self.ssl_mode == SslMode::VerifyCa && self.ca_file.is_none() {
            return wrong(
                "the SSL mode verify-ca needs the file of the authority to verify against: by those \
                 that the system trusts, it would take the certificate of any host; or set \
                 verify-full"
                    .to_owned(),
            );
        }
        let bound = self.authentication == Some(Authentication::ChannelBinding);
        if self.ssl_mode == SslMode::Disable && bound {
            return wrong(
                "the authentication channel-binding needs TLS, and the SSL mode is disable: set \
                 another SSL mode, or the authentication scram"
                    .to_owned(),
            );
        }
        Ok(())
    }
}

/// What a driver that connects may do to the schema. Whatever is set here,
/// [`PostgresSchema::apply`](crate::PostgresSchema::apply) creates it or brings it up to date.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Migrate {
    /// Nothing.
    Never,
    /// Create it. One of an older version is an error: other processes still use it, and software of
    /// that version may not be able to once it is changed.
    #[default]
    New,
    /// Create it, or bring it up to date.
    Always,
}

fn is_identifier(name: &str) -> bool {
    let start = |b: &u8| b.is_ascii_lowercase() || *b == b'_';
    let bytes = name.as_bytes();
    bytes.len() <= 63
        && bytes.first().is_some_and(start)
        && bytes.iter().all(|b| start(b) || b.is_ascii_digit())
        && !name.starts_with("pg_")
}

/// How connections are protected, with the meanings that libpq gives these words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SslMode {
    /// Not encrypted.
    Disable,
    /// Encrypted. The server's certificate is not checked, unless there is a CA file: then this is
    /// the same as `verify-ca`.
    #[default]
    Require,
    /// Encrypted, and the certificate is signed by an authority of the CA file, which has to be given.
    VerifyCa,
    /// As `verify-ca`, and the certificate names the host that was connected to (as a subject
    /// alternative name; a common name alone does not count).
    VerifyFull,
}

impl fmt::Display for SslMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Disable => "disable",
            Self::Require => "require",
            Self::VerifyCa => "verify-ca",
            Self::VerifyFull => "verify-full",
        })
    }
}

/// What a server has to go through with this process before it is given anything that the password
/// can be had from. It keeps those out who answer in the place of the server.
///
/// Where nothing is set: [`Any`](Self::Any) where the SSL mode checks the server's certificate,
/// [`ChannelBinding`](Self::ChannelBinding) with TLS where it does not, and [`Scram`](Self::Scram)
/// without TLS. A server in a Unix socket is one that the permissions of its directory let in, so
/// nothing is asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Authentication {
    /// SCRAM-SHA-256-PLUS: both sides prove that they know the password, and that they are the ends
    /// of the same TLS connection. Not possible through most proxies, as pgbouncer, nor where the
    /// server asks for a client certificate or for nothing (`cert`, `trust`).
    ChannelBinding,
    /// Never the password in clear text or as MD5. With SCRAM, both sides prove that they know it.
    Scram,
    /// Whatever the server asks for.
    Any,
}

impl fmt::Display for Authentication {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ChannelBinding => "channel-binding",
            Self::Scram => "scram",
            Self::Any => "any",
        })
    }
}

impl FromStr for SslMode {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let modes = [
            Self::Disable,
            Self::Require,
            Self::VerifyCa,
            Self::VerifyFull,
        ];
        let found = modes.into_iter().find(|mode| mode.to_string() == text);
        found.ok_or_else(|| {
            Error::new(
                ErrorKind::Config,
                "parse",
                format!(
                    "there is no SSL mode {text:?}; choose disable, require, verify-ca or \
                     verify-full"
                ),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(change: impl FnOnce(&mut PostgresOptions)) -> Result<(), Error> {
        let mut options = PostgresOptions::default();
        change(&mut options);
        options.check()
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_rule() {
        with(|_| ()).unwrap();
        for schema in [
            "",
            "9a",
            "pg_x",
            "Pac",
            "a\"b",
            "a;drop",
            "ä",
            &"x".repeat(64),
        ] {
            let error = with(|o| schema.clone_into(&mut o.schema)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains("lower-case"), "{error}");
        }
        with(|o| o.schema = "x".repeat(63)).unwrap();
        for change in [
            |o: &mut PostgresOptions| o.hosts.clear(),
            |o: &mut PostgresOptions| o.database.clear(),
            |o: &mut PostgresOptions| o.max_connections = 0,
            |o: &mut PostgresOptions| o.application_name = Some("x".repeat(64)),
            |o: &mut PostgresOptions| o.application_name = Some("a\0".to_owned()),
            |o: &mut PostgresOptions| o.statement_timeout = Duration::ZERO,
            |o: &mut PostgresOptions| o.ssl_mode = SslMode::VerifyCa,
            |o: &mut PostgresOptions| {
                o.ssl_mode = SslMode::Disable;
                o.authentication = Some(Authentication::ChannelBinding);
            },
        ] {
            assert_eq!(with(change).unwrap_err().kind(), ErrorKind::Config);
        }
    }

    #[test]
    fn a_server_that_is_not_checked_has_to_prove_more() {
        let demanded = |mode, ca: Option<&str>| {
            let mut options = PostgresOptions::default();
            (options.ssl_mode, options.ca_file) = (mode, ca.map(PathBuf::from));
            options.demanded()
        };
        for (mode, ca, expected) in [
            (SslMode::Disable, None, Authentication::Scram),
            (SslMode::Require, None, Authentication::ChannelBinding),
            (SslMode::Require, Some("ca"), Authentication::Any),
            (SslMode::VerifyCa, Some("ca"), Authentication::Any),
            (SslMode::VerifyFull, None, Authentication::Any),
        ] {
            assert_eq!(demanded(mode, ca), expected, "{mode} {ca:?}");
        }
        let set = PostgresOptions {
            authentication: Some(Authentication::Scram),
            ..PostgresOptions::default()
        };
        assert_eq!(set.demanded(), Authentication::Scram);
    }

    #[test]
    fn a_password_is_never_shown() {
        let options = PostgresOptions {
            password: Password::new("hunter2"),
            ..PostgresOptions::default()
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }

    #[test]
    fn ssl_modes_go_by_their_names_in_libpq() {
        for name in ["disable", "require", "verify-ca", "verify-full"] {
            assert_eq!(name.parse::<SslMode>().unwrap().to_string(), name);
        }
        let error = "prefer".parse::<SslMode>().unwrap_err().to_string();
        assert!(error.contains("choose disable"), "{error}");
    }
}
