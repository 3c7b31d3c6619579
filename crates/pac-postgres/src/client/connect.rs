//! Makes connections: tries the servers one after the other, each for its share of the time, with
//! passwords and certificates as their files are then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::pauses::Pauses;
use pac_core::{Error, ErrorKind, file};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::config::{
    ChannelBinding, SslMode as ClientSslMode, SslNegotiation, TargetSessionAttrs,
};
use tokio_postgres::{Client, Config, Connection, Socket};

use super::failure::{Effect, Failure};
use super::guard::{Guard, Guarded};
use crate::options::{Authentication, PostgresOptions, SslMode};
use crate::tls;

/// The longest that one of several servers may take: to be reached, to greet and to say whether it
/// takes writes.
const SHARE: Duration = Duration::from_secs(3);
/// However short a session's TTL is, a server gets this.
const LEAST_SHARE: Duration = Duration::from_millis(500);
/// For so long after it could not be used, a server is tried after all others.
const AVOIDED: Duration = Duration::from_secs(30);
/// Between two attempts at a server that has no room for another connection: at first, and later. Each
/// attempt costs the server a process and, for a moment, one of the connections that it keeps for
/// superusers.
const FULL: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// TCP keep-alive: a peer that is silent for the first time is probed at intervals of the second,
/// and counts as gone after this many probes without an answer.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(3), 3);

/// What a new connection asks the server for, where transactions are not so by default. Many proxies
/// know no such options, so it is not asked for without need.
const READ_COMMITTED: &str = "-c default_transaction_isolation=read\\ committed";

/// The part of a connection that moves its bytes.
pub(super) type Wire = Connection<Socket, Guarded>;

/// The servers, and which of them could not be used lately.
#[derive(Debug)]
pub(crate) struct Connector {
    pub(super) options: Arc<PostgresOptions>,
    /// For each of the servers.
    failed: Mutex<Vec<Option<Instant>>>,
    share: Mutex<Duration>,
    system: Arc<tls::System>,
    /// Whether the log says that others can read the private key.
    told_of_key: Arc<AtomicBool>,
    /// What the last connection was made with.
    guard: Mutex<Option<Guard>>,
}

impl Connector {
    pub(super) fn new(options: &PostgresOptions) -> Self {
        Self {
            options: Arc::new(options.clone()),
            failed: Mutex::new(vec![None; options.hosts.len()]),
            share: Mutex::new(SHARE),
            system: Arc::default(),
            told_of_key: Arc::default(),
            guard: Mutex::default(),
        }
    }

    /// No server may take longer than this while another one is left to be tried.
    pub(super) fn hurry(&self, longest: Duration) {
        let mut share = self.share();
        *share = longest.max(LEAST_SHARE).min(*share);
    }

    /// Connects to the first server that takes writes. Tries each of them once, and takes no longer
    /// than `patience`.
    pub(super) async fn connect(
        &self,
        operation: &'static str,
        patience: Duration,
    ) -> Result<(Client, Wire), Failure> {
        let until = Instant::now() + patience;
        let order = self.order();
        let longest = *self.share();
        let mut told: Option<Failure> = None;
        for (tried, server) in order.iter().enumerate() {
            let left = until.saturating_duration_since(Instant::now());
            let others = u32::try_from(order.len() - tried - 1).unwrap_or(u32::MAX);
            let share = match others {
                0 => left,
                others => longest.min(left / others.saturating_add(1)),
            };
            match self.connect_to(*server, operation, share).await {
                Ok(connected) => {
                    self.note(*server, None);
                    return Ok(connected);
                }
                Err(failure) => {
                    if failure.is_of_the_place() {
                        self.note(*server, Some(Instant::now()));
                    }
                    told = Some(match told {
                        Some(earlier) => earlier.more_telling(failure),
                        None => failure,
                    });
                }
            }
        }
        Err(told.unwrap_or_else(|| self.options.connect_timed_out(operation, patience)))
    }

    /// The same, and waits for a server that has no room for another connection.
    pub(super) async fn connect_when_there_is_room(
        &self,
        operation: &'static str,
    ) -> Result<(Client, Wire), Error> {
        let patience = self.options.full_server_timeout;
        let until = Instant::now().checked_add(patience);
        let mut pauses = Pauses::new(FULL.0, FULL.1);
        let mut told = false;
        loop {
            let failure = match self
                .connect(operation, self.options.connection_timeout)
                .await
            {
                Ok(connected) => return Ok(connected),
                Err(failure) => failure,
            };
            let pause = pauses.grow();
            let late = until.is_some_and(|until| Instant::now() + pause >= until);
            // A server that many wait for may be slow, too.
            let is_busy = failure.is_full() || told && failure.is_of_the_place();
            if !is_busy {
                return Err(failure.error);
            }
            if late {
                let error = self.options.too_many_clients(operation);
                return Err(error.caused_by(failure.error));
            }
            if !std::mem::replace(&mut told, true) {
                tracing::warn!(
                    error = %failure.error,
                    "waiting until PostgreSQL has room for a connection of this process"
                );
            }
            sleep(pause).await;
        }
    }

    async fn connect_to(
        &self,
        server: usize,
        operation: &'static str,
        share: Duration,
    ) -> Result<(Client, Wire), Failure> {
        // Of this server alone, so that errors name it.
        let mut options = PostgresOptions::clone(&self.options);
        options.hosts = options.hosts.get(server).cloned().into_iter().collect();
        let connecting = async {
            let (config, guard) = self.read(&options, share).await?;
            *self.guard() = Some(guard.clone());
            let connected = config.connect(guard).await;
            connected.map_err(|error| options.failure(operation, Effect::Connect, &error))
        };
        match timeout(share, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(options.connect_timed_out(operation, share)),
        }
    }

    /// What a connection is made with, as the files are now. They may be on a disk that is slow, so
    /// a thread of its own reads them.
    async fn read(
        &self,
        options: &PostgresOptions,
        share: Duration,
    ) -> Result<(Config, Guard), Error> {
        let (options, system) = (options.clone(), Arc::clone(&self.system));
        let told = Arc::clone(&self.told_of_key);
        let read = file::apart(share, move || {
            let config = config(&options, share)?;
            let tls = tls::config(&options, &system)?;
            if let Some(exposed) = tls::exposed_key(&options)
                && !told.swap(true, Ordering::Relaxed)
            {
                tracing::warn!("{exposed}");
            }
            Ok((config, Guard::new(tls, options.demanded())))
        });
        read.await.unwrap_or_else(|reason| {
            let message = format!("the files of passwords and certificates {reason}");
            Err(Error::new(ErrorKind::Unavailable, "connect", message))
        })
    }

    /// What a request to cancel a statement is sent with; `None` while there was no connection.
    pub(super) fn last_guard(&self) -> Option<Guard> {
        self.guard().clone()
    }

    /// The servers in the order of the settings, but for those that could not be used lately, which
    /// come last.
    fn order(&self) -> Vec<usize> {
        let failed = self.failed();
        let avoided = |at: &Option<Instant>| at.is_some_and(|at| at.elapsed() < AVOIDED);
        let (last, first): (Vec<_>, Vec<_>) =
            (0..failed.len()).partition(|server| failed.get(*server).is_some_and(avoided));
        first.into_iter().chain(last).collect()
    }

    fn note(&self, server: usize, failed: Option<Instant>) {
        if let Some(known) = self.failed().get_mut(server) {
            *known = failed;
        }
    }

    fn guard(&self) -> MutexGuard<'_, Option<Guard>> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn share(&self) -> MutexGuard<'_, Duration> {
        self.share.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn failed(&self) -> MutexGuard<'_, Vec<Option<Instant>>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn config(options: &PostgresOptions, share: Duration) -> Result<Config, Error> {
    let mut config = Config::new();
    for (host, port) in &options.hosts {
        config.host(host).port(*port);
    }
    config
        .dbname(&options.database)
        .user(&options.username)
        .application_name(options.connection_name())
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        // A name may have two addresses, of which the first one is silent.
        .connect_timeout(share / 2)
        .tcp_user_timeout(options.statement_timeout)
        .keepalives_idle(KEEPALIVE.0)
        .keepalives_interval(KEEPALIVE.1)
        .keepalives_retries(KEEPALIVE.2)
        .channel_binding(match options.demanded() {
            Authentication::ChannelBinding => ChannelBinding::Require,
            Authentication::Scram | Authentication::Any => ChannelBinding::Prefer,
        });
    // Only in a Unix socket the library's stream is used as it is: the library makes no other one
    // there. Everywhere else the guard makes the stream, and without TLS does so at once.
    let in_file = options.hosts.iter().any(|(host, _)| host.starts_with('/'));
    match options.ssl_mode {
        SslMode::Disable if in_file => config.ssl_mode(ClientSslMode::Disable),
        SslMode::Disable => config
            .ssl_mode(ClientSslMode::Require)
            .ssl_negotiation(SslNegotiation::Direct),
        SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => {
            config.ssl_mode(ClientSslMode::Require)
        }
    };
    if options.sets_isolation {
        config.options(READ_COMMITTED);
    }
    if let Some(password) = options.password.read()? {
        config.password(password.expose());
    }
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_that_could_not_be_used_are_tried_last() {
        let options = PostgresOptions {
            hosts: ["a", "b", "c"].map(|host| (host.to_owned(), 1)).to_vec(),
            ..PostgresOptions::default()
        };
        let connector = Connector::new(&options);
        assert_eq!(connector.order(), [0, 1, 2]);
        connector.note(0, Some(Instant::now()));
        assert_eq!(connector.order(), [1, 2, 0]);
        connector.note(1, Some(Instant::now()));
        connector.note(2, Some(Instant::now()));
        assert_eq!(connector.order(), [0, 1, 2]);
        connector.note(0, None);
        connector.note(2, None);
        assert_eq!(connector.order(), [0, 2, 1]);
    }
}
