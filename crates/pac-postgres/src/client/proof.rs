//! What is said of a server that has not shown who it is.

use std::error::Error as StdError;
use std::io;

use pac_core::ErrorKind;

use super::startup::Refusal;
use crate::options::{PostgresOptions, SslMode};

impl PostgresOptions {
    /// What it means that the server failed to prove itself, if that is what the error says.
    pub(super) fn unproven(&self, error: &tokio_postgres::Error) -> Option<(ErrorKind, String)> {
        let cause = error.source()?;
        let io_cause = cause.downcast_ref::<io::Error>();
        let refusal = io_cause
            .and_then(io::Error::get_ref)
            .and_then(|inner| inner.downcast_ref::<Refusal>());
        if let Some(refusal) = refusal {
            return Some(self.refused(*refusal));
        }
        // These errors of the library differ in their texts alone.
        if error.to_string() != "authentication error" {
            return None;
        }
        if cause.to_string() == "server did not use channel binding" {
            return Some((ErrorKind::Unauthorised, self.unbound()));
        }
        // Any other step of SCRAM that went wrong.
        io_cause.map(|_| (ErrorKind::Unauthorised, self.unknowing()))
    }

    fn refused(&self, refusal: Refusal) -> (ErrorKind, String) {
        let how = match refusal {
            Refusal::ClearText => "in clear text",
            Refusal::Md5 => "as MD5",
            Refusal::Long(_) | Refusal::Endless | Refusal::Foreign => {
                return (ErrorKind::Config, self.no_postgres(&refusal.to_string()));
            }
        };
        let message = format!(
            "{} asks for the password of the role {:?} {how}, which {}: store it as scram-sha-256 \
             (password_encryption) and ask for that in pg_hba.conf, or set the SSL mode verify-full; \
             only if every server that may answer there may have the password, set \
             postgresql-authentication: any",
            self.place(),
            self.username,
            self.rule("is given to no server")
        );
        (ErrorKind::Unauthorised, message)
    }

    /// What answers is not what is meant.
    pub(super) fn no_postgres(&self, reason: &str) -> String {
        format!(
            "{} is no PostgreSQL, or not the one that is meant: {reason}; correct host and port, or \
             look at what listens there",
            self.place()
        )
    }

    fn unbound(&self) -> String {
        format!(
            "{} did not use channel binding, the proof that TLS ends at a server that knows the \
             password, without which {}: set the SSL mode verify-full, with the file of the authority \
             that signed the server's certificate; where a proxy such as pgbouncer is in between, or \
             where the server asks for a client certificate or for nothing at all, set \
             postgresql-authentication: scram",
            self.place(),
            self.rule("no server is trusted")
        )
    }

    fn unknowing(&self) -> String {
        format!(
            "{} could not prove that it knows the password of the role {:?}: something else answers \
             in the place of PostgreSQL, or a proxy that has another password for the role, or the \
             server asks for more than 100,000 iterations (scram_iterations); correct host and \
             port, or look at what listens there",
            self.place(),
            self.username
        )
    }

    /// The setting that something follows from.
    fn rule(&self, follows: &str) -> String {
        match (self.authentication, self.ssl_mode) {
            (Some(set), _) => format!("{follows} with postgresql-authentication: {set}"),
            (None, SslMode::Disable) => format!("{follows} without TLS"),
            (None, mode) => format!(
                "{follows} with the SSL mode {mode} and no CA file, because its certificate is not \
                 checked"
            ),
        }
    }
}
