//! What a failure means, and what to do about it: the one function that maps the client
//! library's errors.

use std::error::Error as StdError;
use std::io;

pub(crate) use pac_core::effect::Effect;
use pac_core::{Error, ErrorKind};
use rustls::CertificateError;
use tokio_postgres::error::{DbError, Severity, SqlState};

use crate::options::PostgresOptions;

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
    ) -> Error {
        let causes = || std::iter::successors(error.source(), |cause| (*cause).source());
        let (kind, message) = if let Some(answer) = error.as_db_error() {
            self.answer(effect, answer)
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
        Error::new(kind, operation, message).caused_by(detail)
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
                 the owner of the database migrate it, and grant what docs/deploy/postgresql.sql \
                 lists"
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
                 connected: restart it, so that it migrates the schema"
            );
            return (ErrorKind::Incompatible, cure);
        }
        if *code == SqlState::TOO_MANY_CONNECTIONS {
            let cure = format!(
                "{place} has no connection left: raise its max_connections, or lower the most \
                 connections of each process ({})",
                self.max_connections
            );
            return (ErrorKind::Unavailable, cure);
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
                "a record was written by a newer version of this software: update this one"
                    .to_owned(),
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
            io::ErrorKind::PermissionDenied if cause.to_string().contains("writes") => {
                self.read_only()
            }
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
            CertificateError::UnknownIssuer => format!(
                "the certificate of {place} is not signed by an authority of the CA file: use the \
                 CA that signed it"
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

    pub(crate) fn connect_timed_out(&self, operation: &'static str) -> Error {
        let message = format!(
            "no connection to {} within {:?}: look at the network, or raise the connection timeout",
            self.place(),
            self.connection_timeout
        );
        Error::new(ErrorKind::Unavailable, operation, message)
    }

    pub(crate) fn statement_timed_out(&self, operation: &'static str, effect: Effect) -> Error {
        let message = format!(
            "{} did not answer within the statement timeout of {:?}",
            self.place(),
            self.statement_timeout
        );
        Error::new(effect.unanswered().0, operation, message)
    }

    /// Where the servers are: `db1:5432, db2:5432`.
    fn place(&self) -> String {
        let hosts = self
            .hosts
            .iter()
            .map(|(host, port)| format!("{host}:{port}"));
        hosts.collect::<Vec<_>>().join(", ")
    }
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
