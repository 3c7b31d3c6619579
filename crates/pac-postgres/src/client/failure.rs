//! What a failure means, and what to do about it: the one function that maps the client
//! library's errors.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

pub(crate) use pac_core::effect::Effect;
use pac_core::{Error, ErrorKind, file};
use rustls::CertificateError;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::options::PostgresOptions;
use crate::tls::SelfSigned;

/// A failed request, and what it says of the connection and of the server.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: Error,
    symptom: Symptom,
}

/// In the order in which they tell more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Symptom {
    /// None that the driver acts on.
    Other,
    /// A row is locked by another transaction, for longer than the statement waits.
    Locked,
    /// The connection was lost.
    Lost,
    /// The request was not answered in time.
    Unanswered,
    /// The server takes no writes.
    ReadOnly,
    /// The server refuses this role, or the settings do not fit it.
    Refused,
    /// The server has no room for another connection.
    Full,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let symptom = match error.kind() {
            ErrorKind::Config | ErrorKind::Unauthorised => Symptom::Refused,
            _ => Symptom::Other,
        };
        Self { error, symptom }
    }
}

impl Failure {
    fn with(self, symptom: Symptom) -> Self {
        Self { symptom, ..self }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.symptom == Symptom::Full
    }

    pub(crate) fn is_locked(&self) -> bool {
        self.symptom == Symptom::Locked
    }

    pub(crate) fn is_read_only(&self) -> bool {
        self.symptom == Symptom::ReadOnly
    }

    /// Whether the connection is of no use any more. Others that were made when it was are probably
    /// in the same state.
    pub(crate) fn is_of_the_connection(&self) -> bool {
        matches!(self.symptom, Symptom::Lost | Symptom::Unanswered)
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.symptom == Symptom::Lost
    }

    /// Whether another server may well be usable.
    pub(super) fn is_of_the_place(&self) -> bool {
        self.error.kind() == ErrorKind::Unavailable && !self.is_full()
    }

    /// Of the failures at two servers, the one that tells more; it names the other as a cause.
    pub(super) fn more_telling(self, later: Self) -> Self {
        let (first, other) = if later.symptom > self.symptom {
            (later, self)
        } else {
            (self, later)
        };
        let own = std::error::Error::source(&first.error).map(ToString::to_string);
        let causes = own.into_iter().chain([other.error.to_string()]);
        let causes = causes.collect::<Vec<_>>().join("; and ");
        Self {
            error: first.error.caused_by(causes),
            symptom: first.symptom,
        }
    }
}

/// Whether the server does not know the name of a statement, or knows another statement by it: the
/// statement was prepared on another connection, or a function has been replaced since.
pub(super) fn is_about_a_name(error: &tokio_postgres::Error) -> bool {
    let names = [
        &SqlState::INVALID_SQL_STATEMENT_NAME,
        &SqlState::DUPLICATE_PSTATEMENT,
        // The statement of that name has another number of parameters.
        &SqlState::PROTOCOL_VIOLATION,
        // "cached plan must not change result type"
        &SqlState::FEATURE_NOT_SUPPORTED,
    ];
    error.code().is_some_and(|code| names.contains(&code))
}

impl PostgresOptions {
    /// What the client library's error means.
    pub(crate) fn failure(
        &self,
        operation: &'static str,
        effect: Effect,
        error: &tokio_postgres::Error,
    ) -> Failure {
        let causes = || std::iter::successors(error.source(), |cause| (*cause).source());
        let (kind, message) = if let Some(answer) = error.as_db_error() {
            self.answer(effect, answer)
        } else if let Some(unproven) = self.unproven(error) {
            unproven
        } else if let Some(problem) = causes().find_map(certificate_problem) {
            (ErrorKind::Config, self.certificate(problem))
        } else if let Some(cause) = causes().find_map(|cause| cause.downcast_ref::<io::Error>()) {
            self.connection(effect, cause)
        } else if error.is_closed() {
            let (kind, message) = effect.unanswered();
            (kind, message.to_owned())
        } else {
            // These errors of the library differ in their texts alone.
            match error.to_string().as_str() {
                "error performing TLS handshake" => (
                    ErrorKind::Config,
                    format!(
                        "{} does not speak TLS, and the SSL mode {} asks for it: enable ssl in \
                         postgresql.conf, or set the SSL mode disable",
                        self.place(),
                        self.ssl_mode
                    ),
                ),
                "authentication error" | "invalid configuration" => (
                    ErrorKind::Unauthorised,
                    format!(
                        "{} asks the role {:?} for a password, and none is set, or in a way that \
                         is not supported: set the password, and use scram-sha-256",
                        self.place(),
                        self.username
                    ),
                ),
                _ if effect == Effect::Connect => {
                    let reason = "its answer cannot be understood";
                    (ErrorKind::Config, self.no_postgres(reason))
                }
                _ if effect == Effect::Write => (
                    ErrorKind::Indeterminate,
                    "the answer could not be understood; read before acting".to_owned(),
                ),
                _ => (
                    ErrorKind::Internal,
                    "the server's answer could not be understood".to_owned(),
                ),
            }
        };
        let mut detail = error.to_string();
        for cause in causes() {
            detail.push_str(": ");
            detail.push_str(&cause.to_string());
        }
        let failure = Failure::from(Error::new(kind, operation, message).caused_by(detail));
        let is_read_only = causes()
            .filter_map(|cause| cause.downcast_ref::<io::Error>())
            .any(refuses_writes);
        match error.code() {
            Some(&SqlState::TOO_MANY_CONNECTIONS) => failure.with(Symptom::Full),
            Some(&SqlState::READ_ONLY_SQL_TRANSACTION) => failure.with(Symptom::ReadOnly),
            Some(&SqlState::LOCK_NOT_AVAILABLE) => failure.with(Symptom::Locked),
            _ if is_read_only => failure.with(Symptom::ReadOnly),
            _ if effect != Effect::Connect && is_lost(error) => failure.with(Symptom::Lost),
            _ => failure,
        }
    }

    /// What an error message of the server means. An `ERROR` ends the transaction, so nothing has
    /// changed; a more severe one may have come after a commit.
    fn answer(&self, effect: Effect, answer: &DbError) -> (ErrorKind, String) {
        let place = self.place();
        let (user, database, schema) = (&self.username, &self.database, &self.schema);
        let fatal = answer.parsed_severity() != Some(Severity::Error);
        if effect == Effect::Write && fatal {
            let message = "the server ended the connection before it answered; read before acting";
            return (ErrorKind::Indeterminate, message.to_owned());
        }
        let code = answer.code();
        let unencrypted = ["no encryption", "SSL off"];
        if *code == SqlState::INVALID_PASSWORD {
            let cure = format!("{place} refuses the password of the role {user:?}: correct it");
            return (ErrorKind::Unauthorised, cure);
        }
        if *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
            let cure = if unencrypted
                .iter()
                .any(|part| answer.message().contains(part))
            {
                format!(
                    "{place} takes the role {user:?} over TLS only: set an SSL mode other than \
                     disable, or allow it in pg_hba.conf"
                )
            } else {
                format!(
                    "{place} does not let the role {user:?} into the database {database:?}: \
                     create the role, allow it in pg_hba.conf, or give the client certificate \
                     that is asked for"
                )
            };
            return (ErrorKind::Unauthorised, cure);
        }
        if *code == SqlState::INVALID_CATALOG_NAME {
            let cure =
                format!("{place} has no database {database:?}: create it, or correct the name");
            return (ErrorKind::Config, cure);
        }
        if *code == SqlState::INSUFFICIENT_PRIVILEGE {
            let cure = format!(
                "the role {user:?} may not do this in the schema {schema:?} of {database:?}: let \
                 its owner run `pac schema apply`, and grant what docs/deploy/postgresql.sql lists"
            );
            return (ErrorKind::Unauthorised, cure);
        }
        let missing = [
            SqlState::INVALID_SCHEMA_NAME,
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_FUNCTION,
            SqlState::UNDEFINED_COLUMN,
        ];
        if missing.contains(code) {
            let cure = format!(
                "the schema {schema:?} of {database:?} is not what it was when this process \
                 connected: look at `pac schema status`, and restart this process"
            );
            return (ErrorKind::Incompatible, cure);
        }
        if *code == SqlState::TOO_MANY_CONNECTIONS {
            return (ErrorKind::Unavailable, self.no_room());
        }
        if *code == SqlState::READ_ONLY_SQL_TRANSACTION {
            return (ErrorKind::Unavailable, self.read_only());
        }
        if *code == SqlState::QUERY_CANCELED {
            let cure = "the server cancelled the statement; it took too long, or somebody asked for \
                        it";
            return (ErrorKind::Unavailable, cure.to_owned());
        }
        let transient = [
            SqlState::T_R_SERIALIZATION_FAILURE,
            SqlState::T_R_DEADLOCK_DETECTED,
            SqlState::LOCK_NOT_AVAILABLE,
            SqlState::CANNOT_CONNECT_NOW,
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
        ];
        // Connections and resources: 08, 53, 58.
        let transient_class = ["08", "53", "57", "58"]
            .iter()
            .any(|class| code.code().starts_with(class));
        if transient.contains(code) || transient_class {
            let cure = format!("{place} could not do it now; nothing has changed");
            return (ErrorKind::Unavailable, cure);
        }
        match code.code() {
            "PAC01" => (
                ErrorKind::Corrupt,
                "the database refuses to start more runs than the limit admits: what is stored \
                 was changed by something else"
                    .to_owned(),
            ),
            "PAC02" => (
                ErrorKind::Incompatible,
                "a record was written by a newer version of this software, or was taken away by \
                 something else: update this one, and look for what changes the records"
                    .to_owned(),
            ),
            "PAC03" => (ErrorKind::Config, self.isolation()),
            _ if *code == SqlState::CHECK_VIOLATION => (
                ErrorKind::Corrupt,
                format!(
                    "the schema {schema:?} takes no such value ({}): what is stored was changed by \
                     something else, or counts no further",
                    answer.constraint().unwrap_or("a rule without a name")
                ),
            ),
            code => (
                ErrorKind::Internal,
                format!("{place} refused a statement of this software with SQLSTATE {code}"),
            ),
        }
    }

    /// What an error of the network means.
    fn connection(&self, effect: Effect, cause: &io::Error) -> (ErrorKind, String) {
        let place = self.place();
        if effect != Effect::Connect {
            let (kind, message) = effect.unanswered();
            return (kind, message.to_owned());
        }
        let message = match cause.kind() {
            io::ErrorKind::ConnectionRefused => {
                format!(
                    "nothing listens at {place}: start PostgreSQL there, or correct host and port"
                )
            }
            _ if refuses_writes(cause) => self.read_only(),
            io::ErrorKind::TimedOut => format!("{place} does not answer: look at the network"),
            _ if cause.to_string().contains("lookup") || cause.to_string().contains("resolve") => {
                format!("{place} is unknown: correct the name of the host, or look at the DNS")
            }
            _ => format!(
                "the connection to {place} failed: look at the network and the server's log"
            ),
        };
        (ErrorKind::Unavailable, message)
    }

    fn certificate(&self, problem: &CertificateError) -> String {
        let place = self.place();
        match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "the certificate of {place} is not signed by an authority of {}: use the CA that \
                 signed it",
                self.authorities()
            ),
            CertificateError::Other(other) if other.0.is::<SelfSigned>() => format!(
                "the certificate of {place} is self-signed, or that of an authority itself, and none of \
                 {} has signed it for a server: sign one with an authority of your own, and name \
                 that as the CA file; or make it anew with basicConstraints=CA:FALSE, and name it \
                 as the CA file",
                self.authorities()
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "the certificate of {place} does not name that host: connect by a name that it \
                     has, or set the SSL mode verify-ca"
                )
            }
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("the certificate of {place} has expired: renew it")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("the certificate of {place} is not valid yet: look at the clocks")
            }
            _ => format!("the certificate of {place} is not valid: replace it"),
        }
    }

    /// The authorities that are trusted.
    fn authorities(&self) -> String {
        match &self.ca_file {
            Some(path) => format!("the CA file {}", file::shown(path)),
            None => "this system (no CA file is set)".to_owned(),
        }
    }

    /// What to do about transactions that are not READ COMMITTED.
    pub(crate) fn isolation(&self) -> String {
        format!(
            "the default isolation of transactions of the role {:?} in {:?} is not read committed, \
             and could not be changed for this process alone: ALTER ROLE or ALTER DATABASE … SET \
             default_transaction_isolation = 'read committed'",
            self.username, self.database
        )
    }

    fn read_only(&self) -> String {
        format!(
            "{} is read-only, as a standby is: name the primary, or all servers of which one is",
            self.place()
        )
    }

    pub(crate) fn pool_is_exhausted(&self, operation: &'static str) -> Error {
        let message = format!(
            "all {} connections of this process were in use for {:?}: raise the most connections, \
             or look for what is slow",
            self.max_connections, self.connection_timeout
        );
        Error::new(ErrorKind::Unavailable, operation, message)
    }

    fn no_room(&self) -> String {
        format!(
            "{} has no connection left: raise its max_connections (or the limit of \
             the role), or lower the most connections of each process ({})",
            self.place(),
            self.max_connections
        )
    }

    /// The server had no room for another connection a moment ago, and was not asked again.
    pub(crate) fn full(&self, operation: &'static str) -> Failure {
        let error = Error::new(ErrorKind::Unavailable, operation, self.no_room());
        Failure::from(error).with(Symptom::Full)
    }

    /// The server had no room for another connection for as long as it was waited for.
    pub(crate) fn too_many_clients(&self, operation: &'static str) -> Error {
        Error::new(ErrorKind::TooManyClients, operation, self.no_room())
    }

    pub(crate) fn connect_timed_out(&self, operation: &'static str, patience: Duration) -> Failure {
        let message = format!(
            "no connection to {} within {patience:?}: look at the network, or raise the \
             connection timeout",
            self.place(),
        );
        Error::new(ErrorKind::Unavailable, operation, message).into()
    }

    pub(crate) fn statement_timed_out(
        &self,
        operation: &'static str,
        effect: Effect,
        patience: Duration,
    ) -> Failure {
        let message = format!(
            "{} did not answer within {patience:?}, which is how long a statement may take",
            self.place(),
        );
        let error = Error::new(effect.unanswered().0, operation, message);
        Failure::from(error).with(Symptom::Unanswered)
    }

    /// Where the servers are: `db1:5432, db2:5432`.
    pub(super) fn place(&self) -> String {
        let hosts = self
            .hosts
            .iter()
            .map(|(host, port)| format!("{host}:{port}"));
        hosts.collect::<Vec<_>>().join(", ")
    }
}

/// Whether the connection ended before the answer came.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    let fatal = error
        .as_db_error()
        .is_some_and(|answer| answer.parsed_severity() != Some(Severity::Error));
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    fatal || error.is_closed() || causes.any(<dyn StdError>::is::<io::Error>)
}

/// Whether the client library found that the server takes no writes, which it asks when it connects.
fn refuses_writes(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::PermissionDenied && error.to_string().contains("writes")
}

fn certificate_problem<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a CertificateError> {
    // The source of an I/O error is the source of the error that it wraps, not that error itself.
    let wrapped = cause
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref);
    let error = match wrapped {
        Some(inner) => inner.downcast_ref::<rustls::Error>(),
        None => cause.downcast_ref::<rustls::Error>(),
    };
    match error {
        Some(rustls::Error::InvalidCertificate(problem)) => Some(problem),
        _ => None,
    }
}
