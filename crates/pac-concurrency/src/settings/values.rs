//! The typed values of the settings, independent of the compiled-in drivers.

use std::fmt;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::time::Duration;

use pac_core::SessionIdentity;

use super::{DriverKind, Password};

/// The settings of every driver, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Values {
    /// `concurrency-enabled`; if not set, whether a driver is named.
    pub enabled: bool,
    /// The store to use. Memory if none is named, which is valid only when not enabled.
    pub driver: DriverKind,
    /// `concurrency-session-ttl`.
    pub session_ttl: Duration,
    /// `concurrency-migrate-state`.
    pub migrate_state: bool,
    /// `concurrency-identity`; if not set, the process says what it is.
    pub identity: Option<SessionIdentity>,
    /// The keys that begin with `postgresql-`.
    pub postgresql: PostgresqlValues,
    /// The keys that begin with `etcd-`.
    pub etcd: EtcdValues,
    /// `memory-lease-ttl`.
    pub memory_lease_ttl: Duration,
}

impl Values {
    /// The lease TTL of the driver to use.
    #[must_use]
    pub fn lease_ttl(&self) -> Duration {
        match self.driver {
            DriverKind::Memory => self.memory_lease_ttl,
            DriverKind::Etcd => self.etcd.lease_ttl,
            DriverKind::Postgresql => self.postgresql.lease_ttl,
        }
    }

    /// Whether the state is in the process that opens the driver, where no other process sees it:
    /// the driver is memory, or etcd on a mock.
    #[must_use]
    pub fn is_in_process(&self) -> bool {
        match self.driver {
            DriverKind::Memory => true,
            DriverKind::Etcd => self.etcd.mode == EtcdMode::Mock,
            DriverKind::Postgresql => false,
        }
    }
}

/// The connection to a PostgreSQL database. Has no hosts when another driver is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PostgresqlValues {
    /// The servers, or directories of sockets, to try in this order.
    pub hosts: Vec<Host>,
    /// The port of every host that does not name its own.
    pub port: u16,
    /// The database.
    pub database: String,
    /// The user.
    pub username: String,
    /// The password, if one is needed.
    pub password: Option<Password>,
    /// The properties of the server that TLS must verify.
    pub ssl_mode: SslMode,
    /// How the server has to authenticate this process before it gets the password; if not set, the
    /// SSL mode decides.
    pub authentication: Option<Authentication>,
    /// The certificate authority to trust, in PEM.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, in PEM; with its key.
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The schema that holds the tables.
    pub schema: String,
    /// What controllers and `pac exec` may do about a schema that is missing or old.
    pub migrate: Migrate,
    /// What connections are called at the server, if not by the identity.
    pub application_name: Option<String>,
    /// The most connections for requests.
    pub max_connections: NonZeroU32,
    /// How long to wait for a connection.
    pub connection_timeout: Duration,
    /// How long slots of durable runs outlive their controller.
    pub lease_ttl: Duration,
}

/// What may be done to a schema without being asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Migrate {
    /// Nothing.
    Never,
    /// Create it.
    New,
    /// Create it, or bring it up to date.
    Always,
}

/// A server of PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Its name or address, or the directory of its socket.
    pub name: String,
    /// Its port, if it has one of its own.
    pub port: Option<u16>,
}

/// The properties of the server that TLS must verify, as in libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SslMode {
    /// No TLS.
    Disable,
    /// TLS without verifying the server; if a certificate authority is set, as
    /// [`VerifyCa`](Self::VerifyCa).
    Require,
    /// The server needs a certificate of the authority.
    VerifyCa,
    /// The server needs a certificate of the authority for its host name.
    VerifyFull,
}

/// What a server has to go through before it is given anything that the password can be had from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Authentication {
    /// SCRAM, bound to the TLS connection.
    ChannelBinding,
    /// SCRAM, a client certificate, or nothing at all.
    Scram,
    /// Whatever the server asks for, the password in clear text too.
    Any,
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

/// The connection to an etcd cluster. Has no endpoints when another driver is selected.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EtcdValues {
    /// The store behind the etcd driver.
    pub mode: EtcdMode,
    /// Whether `etcd-mode` is set, or the mode was chosen by what else is.
    pub is_mode_named: bool,
    /// The members: `host:port`, optionally with `http://` or `https://`.
    pub endpoints: Vec<String>,
    /// The user; needs a password.
    pub username: Option<String>,
    /// The password of the user.
    pub password: Option<Password>,
    /// The certificate authority to trust, in PEM. If set, TLS is used. If not, the endpoints with
    /// `https://` are trusted by the authorities of this system.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, in PEM; with its key.
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate, in PEM.
    pub key_file: Option<PathBuf>,
    /// The name that the members' certificates are checked for, instead of the endpoint's.
    pub server_name: Option<String>,
    /// The prefix of all keys; begins and ends with a slash.
    pub prefix: String,
    /// The longest time to try to reach one member.
    pub dial_timeout: Duration,
    /// How long slots of durable runs outlive their controller.
    pub lease_ttl: Duration,
    /// For how long the store keeps what was overwritten or deleted; `None` when something else
    /// compacts it.
    pub compaction: Option<Duration>,
}

impl EtcdValues {
    /// Whether connections use TLS.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        let mut endpoints = self.endpoints.iter();
        self.ca_file.is_some() || endpoints.any(|endpoint| endpoint.starts_with("https://"))
    }
}

/// The store behind the etcd driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EtcdMode {
    /// A cluster.
    Etcd,
    /// A mock etcd in this process, which keeps nothing: for tests. Only with the feature `mock`.
    Mock,
}

impl fmt::Display for EtcdMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Etcd => "etcd",
            Self::Mock => "mock",
        })
    }
}
