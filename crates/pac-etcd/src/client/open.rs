//! Opens the connection to one member, and asks how it is.

use std::time::Duration;

use etcd_client as etcd;
use tokio::time::timeout;

use super::failure::{Cause, Failure};
use super::tls::Problem;
use super::{Client, failed};
use crate::options::{Access, Trust};

/// etcd closes a connection that sends pings more often than every 5 s.
const PING_INTERVAL: Duration = Duration::from_secs(6);
const PING_TIMEOUT: Duration = Duration::from_secs(3);

/// How often a secure connection is tried again that was ended at once.
const MORE_ATTEMPTS: usize = 4;

/// How long to look whether a member that takes no plain text speaks TLS.
const LOOK: Duration = Duration::from_secs(1);

/// A member that has not answered a request for this long is asked how it is, and left for another
/// if it does not answer that within the same time: a healthy one does so without its disk and
/// without the other members.
pub(crate) const SILENCE: Duration = Duration::from_millis(750);

/// What a member says of itself. It says so without a majority of the cluster, and while its
/// database is full.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    /// Of its software.
    pub(crate) version: String,
    /// Of its store.
    pub(crate) revision: i64,
    /// Of its database on the disk, in bytes, with what is free in it.
    pub(crate) size: u64,
    /// Of what is in use of it, in bytes.
    pub(crate) in_use: u64,
    /// The server's `--quota-backend-bytes`; `None` before etcd 3.6, which does not tell it.
    pub(crate) quota: Option<u64>,
    /// The alarms of the cluster, in etcd's words: `memberID:1 alarm:NOSPACE`.
    pub(crate) alarms: Vec<String>,
}

impl Client {
    /// Connects to a member, with credentials asks it for a token, and has it say something: a
    /// write that goes to a member that is silent is one whose outcome is not known.
    pub(crate) async fn open(endpoint: &str, access: &Access) -> Result<Self, Failure> {
        let is_unclear =
            |failure: &Failure| failure.is_unheard() && !matches!(failure.cause, Cause::Tls(_));
        let failure = match Self::try_open(endpoint, access).await {
            Err(failure) if is_unclear(&failure) => failure.before_the_request(),
            opened => return opened,
        };
        // Where nothing listens, there is nothing to be found out.
        if failure.was_refused() {
            return Err(failure);
        }
        let failure = explained(endpoint, access, failure).await;
        let is_secure = endpoint.starts_with("https://");
        if !is_secure || !is_unclear(&failure) || !failure.is_a_broken_connection() {
            return Err(failure);
        }
        // The reason that a server gives for ending a secure connection is lost now and then,
        // because the request is sent to a connection that is closed already.
        for _ in 0..MORE_ATTEMPTS {
            match Self::try_open(endpoint, access).await {
                Err(again) if is_unclear(&again) => {}
                opened => return opened,
            }
        }
        Err(failure.because(Cause::Tls(Problem::Ended)))
    }

    async fn try_open(endpoint: &str, access: &Access) -> Result<Self, Failure> {
        let client = Self::connect(endpoint, access).await?;
        match client.standing().await {
            Err(failure) if failure.is_unheard() || matches!(failure.cause, Cause::Tls(_)) => {
                Err(failure)
            }
            // It answers, whatever it says to that.
            Ok(_) | Err(_) => Ok(client),
        }
    }

    async fn connect(endpoint: &str, access: &Access) -> Result<Self, Failure> {
        let mut options = etcd::ConnectOptions::new()
            .with_connect_timeout(access.options.dial_timeout)
            .with_keep_alive(PING_INTERVAL, PING_TIMEOUT)
            .with_keep_alive_while_idle(false)
            .with_require_leader(true);
        let secrets = access.secrets().await;
        let secrets = secrets.map_err(|error| unreadable(&error))?;
        if let Some((user, password)) = secrets.credentials {
            options = options.with_user(user, password.expose());
        }
        if let Some(tls) = secrets.tls {
            let mut with = etcd::TlsOptions::new();
            if let Trust::Authority(ca) = tls.trust {
                with = with.ca_certificate(etcd::Certificate::from_pem(ca));
            }
            if let Some(authorities) = secrets.authorities {
                with = with.trust_anchors(authorities.0);
            }
            if let Some((certificate, key)) = tls.identity {
                with = with.identity(etcd::Identity::from_pem(certificate, key.expose()));
            }
            if let Some(name) = tls.server_name {
                with = with.domain_name(name);
            }
            options = options.with_tls(with);
        }
        #[cfg(feature = "channel")]
        if let Some(channel) = access.channel.clone() {
            let opened = etcd::Client::from_channel(channel, Some(options)).await;
            return opened.map(Self).map_err(failed);
        }
        let opened = etcd::Client::connect([endpoint], Some(options)).await;
        opened.map(Self).map_err(failed)
    }

    /// Gets another token, after the old one was refused, with the password as it is now.
    pub(crate) async fn authenticate(&self, access: &Access) -> Result<(), Failure> {
        let secrets = access.secrets().await;
        let secrets = secrets.map_err(|error| unreadable(&error))?;
        let user = secrets
            .credentials
            .map(|(user, password)| (user, password.expose().to_owned()));
        // All clones of the library's client share one token.
        let renewed = self.0.clone().update_user(user).await;
        renewed.map_err(failed)
    }

    /// Whether the member says anything within [`SILENCE`].
    pub(crate) async fn is_heard(&self) -> bool {
        match timeout(SILENCE, self.standing()).await {
            Ok(Err(failure)) => !failure.is_unheard(),
            Ok(Ok(_)) => true,
            Err(_) => false,
        }
    }

    /// What the member says of itself.
    pub(crate) async fn standing(&self) -> Result<Standing, Failure> {
        let status = self.0.maintenance_client().status().await;
        let status = status.map_err(failed)?;
        let bytes = |bytes: i64| u64::try_from(bytes).unwrap_or(0);
        let alarms = status.errors().iter();
        Ok(Standing {
            version: status.version().to_owned(),
            revision: status.header().map_or(0, etcd::ResponseHeader::revision),
            size: bytes(status.db_size()),
            in_use: bytes(status.raft_used_db_size()),
            quota: Some(bytes(status.db_size_quota())).filter(|quota| *quota > 0),
            alarms: alarms
                .filter(|told| told.contains("alarm:"))
                .map(|told| told.trim().to_owned())
                .collect(),
        })
    }
}

/// The failure to reach a member, with what is behind it where that can be found out: a server that
/// is asked in plain text and speaks TLS ends the connection without a word, and so does etcd in the
/// reverse case.
async fn explained(endpoint: &str, access: &Access, failure: Failure) -> Failure {
    #[cfg(feature = "channel")]
    if access.channel.is_some() {
        return failure;
    }
    let options =
        etcd::ConnectOptions::new().with_connect_timeout(access.options.dial_timeout.min(LOOK));
    let (other, options, problem) = match endpoint.split_once("://") {
        // No authority is trusted, so no server passes.
        Some(("http", address)) => (
            format!("https://{address}"),
            options.with_tls(etcd::TlsOptions::new()),
            Problem::Needed,
        ),
        Some(("https", address)) => (format!("http://{address}"), options, Problem::Plain),
        _ => return failure,
    };
    let look = async {
        let client = etcd::Client::connect([other], Some(options)).await;
        client.map(Client).map_err(failed)?.standing().await
    };
    let speaks_otherwise = match timeout(LOOK, look).await {
        Ok(Err(refused)) if problem == Problem::Needed => refused.speaks_tls(),
        Ok(Err(refused)) => !refused.is_unheard(),
        Ok(Ok(_)) => true,
        Err(_) => false,
    };
    if speaks_otherwise {
        failure.because(Cause::Tls(problem))
    } else {
        failure
    }
}

fn unreadable(error: &pac_core::Error) -> Failure {
    Failure::new(Cause::Unreadable, error.to_string())
}
