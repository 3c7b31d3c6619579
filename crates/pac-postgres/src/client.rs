//! The one place that talks to the client library: connections, the pool, statements.
//!
//! A proxy may give each statement another connection. Until the driver knows that there is none,
//! statements are unnamed and leave nothing behind on a connection.

mod failure;

use std::collections::HashMap;
use std::fmt;
use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{self, Manager, Metrics, Object, Pool, PoolError, RecycleError};
use pac_core::{Error, ErrorKind};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::{SslMode as ClientSslMode, TargetSessionAttrs};
use tokio_postgres::tls::MakeTlsConnect;
pub(crate) use tokio_postgres::types::{FromSql, ToSql, Type};
use tokio_postgres::{AsyncMessage, CancelToken, Config, Connection, Socket, Statement};
pub(crate) use tokio_postgres::{Error as RowError, Row};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::options::{PostgresOptions, SslMode};
use crate::tls;

pub(crate) use failure::Effect;

/// TCP keep-alive: a peer that is silent for the first time is probed at intervals of the second,
/// and counts as gone after this many probes without an answer.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(10), Duration::from_secs(3), 3);

/// A parameter and its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sql<'a> {
    /// Parsed and planned each time.
    Once(&'a str),
    /// Its plan depends on no table. Prepared once on each connection, where statements may have
    /// names.
    Often(&'a str),
}

impl<'a> From<&'a str> for Sql<'a> {
    fn from(text: &'a str) -> Self {
        Self::Once(text)
    }
}

impl<'a> From<&'a String> for Sql<'a> {
    fn from(text: &'a String) -> Self {
        Self::Once(text)
    }
}

/// Connections to one database. Cloning is cheap.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pool: Pool<Connector>,
}

impl Client {
    /// Makes no connection yet.
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, Error> {
        let limit = Some(options.connection_timeout);
        let connector = Connector {
            options: Arc::new(options.clone()),
            named: Arc::default(),
        };
        let pool = Pool::builder(connector)
            .max_size(options.max_connections)
            .wait_timeout(limit)
            .create_timeout(limit)
            .runtime(Runtime::Tokio1)
            .build();
        let pool = pool.map_err(|error| {
            Error::new(ErrorKind::Internal, "connect", "cannot make a pool").caused_by(error)
        })?;
        Ok(Self { pool })
    }

    pub(crate) fn options(&self) -> &PostgresOptions {
        &self.pool.manager().options
    }

    /// Lets statements have names: no proxy gives this process's connections to others. From now on
    /// a connection prepares each [`Often`](Sql::Often) statement once.
    pub(crate) fn name_statements(&self) {
        self.pool.manager().named.store(true, Ordering::Relaxed);
    }

    pub(crate) fn schema(&self) -> &str {
        &self.options().schema
    }

    /// Runs one statement on a connection of the pool.
    pub(crate) async fn query(
        &self,
        operation: &'static str,
        effect: Effect,
        sql: impl Into<Sql<'_>>,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        let pooled = self.pool.get().await.map_err(|error| match error {
            PoolError::Backend(error) => error,
            PoolError::Timeout(_) => self.options().pool_is_exhausted(operation),
            error => Error::new(ErrorKind::Internal, operation, "the pool is closed")
                .caused_by(error.to_string()),
        })?;
        // If this is dropped before the answer came, the connection must not go back to the pool:
        // the next statement on it would get that answer.
        let borrowed = Borrowed(Some(pooled));
        let Some(session) = borrowed.0.as_deref() else {
            return Err(Error::new(ErrorKind::Internal, operation, "no connection"));
        };
        let answer = session.query(operation, effect, sql, params).await;
        borrowed.give_back();
        answer
    }

    /// Opens a connection that is not of the pool, driven by the runtime that this is called on.
    pub(crate) async fn connect(&self, operation: &'static str) -> Result<Session, Error> {
        self.pool.manager().session(operation).await
    }

    /// Listens to a channel on a connection of its own.
    pub(crate) async fn listen(
        &self,
        channel: &str,
        heard: impl Fn(&str) + Send + 'static,
    ) -> Result<Session, Error> {
        let connector = self.pool.manager();
        let (client, mut connection) = connector.connect("listen").await?;
        let driven = async move {
            while let Some(Ok(message)) = poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(notification) = message {
                    heard(notification.payload());
                }
            }
        };
        let session = connector.session_of(client, driven);
        session
            .batch("listen", &format!("LISTEN {channel}"))
            .await?;
        Ok(session)
    }
}

/// A connection that goes back to the pool only when its statement has been answered.
struct Borrowed(Option<Object<Connector>>);

impl Borrowed {
    fn give_back(mut self) {
        self.0 = None;
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            let session = Object::take(object);
            session.cancel();
        }
    }
}

/// A connection.
pub(crate) struct Session {
    client: tokio_postgres::Client,
    driven: JoinHandle<()>,
    options: Arc<PostgresOptions>,
    cancel: CancelToken,
    /// Whether statements may have names; shared by all connections.
    named: Arc<AtomicBool>,
    /// The statements that have a name on this connection, by their text: those that are run often.
    statements: Mutex<HashMap<String, Statement>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.driven.abort();
    }
}

impl Session {
    /// Runs one statement, for the statement timeout at most.
    pub(crate) async fn query(
        &self,
        operation: &'static str,
        effect: Effect,
        sql: impl Into<Sql<'_>>,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        let sql = sql.into();
        let answer = async {
            if let Sql::Often(text) = sql
                && self.named.load(Ordering::Relaxed)
            {
                match self.query_by_name(text, params).await {
                    // The server has not carried the statement out.
                    Err(error) if failure::is_about_a_name(&error) => {
                        tracing::warn!(%error, "a prepared statement was not what it had been; \
                                                doing without them, which takes a little longer");
                        self.named.store(false, Ordering::Relaxed);
                    }
                    answer => return answer,
                }
            }
            let (Sql::Once(text) | Sql::Often(text)) = sql;
            self.client.query_typed(text, params).await
        };
        self.within_limit(operation, effect, answer).await
    }

    /// Runs a prepared statement. If this connection does not know it yet, prepares it first, which
    /// is one more round trip.
    async fn query_by_name(
        &self,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, tokio_postgres::Error> {
        let statements = || {
            self.statements
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
        };
        let known = statements().get(sql).cloned();
        let statement = match known {
            Some(statement) => statement,
            None => {
                let types: Vec<_> = params.iter().map(|(_, kind)| kind.clone()).collect();
                let statement = self.client.prepare_typed(sql, &types).await?;
                statements().insert(sql.to_owned(), statement.clone());
                statement
            }
        };
        let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
        self.client.query(&statement, &values).await
    }

    /// Runs statements without parameters or results.
    pub(crate) async fn batch(&self, operation: &'static str, sql: &str) -> Result<(), Error> {
        let answer = self.client.batch_execute(sql);
        self.within_limit(operation, Effect::Write, answer).await
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driven.is_finished()
    }

    /// Waits until the connection is closed, by either side.
    pub(crate) async fn closed(mut self) {
        // How it ended makes no difference.
        let _ = (&mut self.driven).await;
    }

    async fn within_limit<T>(
        &self,
        operation: &'static str,
        effect: Effect,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Error> {
        match timeout(self.options.statement_timeout, answer).await {
            Ok(answer) => answer.map_err(|error| self.options.failure(operation, effect, &error)),
            Err(_) => {
                self.cancel();
                Err(self.options.statement_timed_out(operation, effect))
            }
        }
    }

    /// Asks the server to cancel the statement that it is carrying out, and closes the connection.
    fn cancel(&self) {
        let (token, options) = (self.cancel.clone(), Arc::clone(&self.options));
        let cancel = async move {
            if let Ok(tls) = tls::config(&options) {
                // This only spares the server work, so it may fail.
                let asked = token.cancel_query(MakeRustlsConnect::new(tls));
                let _ = timeout(options.statement_timeout, asked).await;
            }
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(cancel);
        }
        self.driven.abort();
    }
}

/// Makes connections.
#[derive(Debug)]
struct Connector {
    options: Arc<PostgresOptions>,
    /// Shared by all connections.
    named: Arc<AtomicBool>,
}

impl Connector {
    async fn session(&self, operation: &'static str) -> Result<Session, Error> {
        let (client, connection) = self.connect(operation).await?;
        let driven = async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection to PostgreSQL ended");
            }
        };
        Ok(self.session_of(client, driven))
    }

    fn session_of(
        &self,
        client: tokio_postgres::Client,
        driven: impl Future<Output = ()> + Send + 'static,
    ) -> Session {
        Session {
            cancel: client.cancel_token(),
            client,
            driven: tokio::spawn(driven),
            options: Arc::clone(&self.options),
            named: Arc::clone(&self.named),
            statements: Mutex::default(),
        }
    }

    async fn connect(
        &self,
        operation: &'static str,
    ) -> Result<
        (
            tokio_postgres::Client,
            Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>,
        ),
        Error,
    > {
        let options = &self.options;
        let config = config(options)?;
        let tls = MakeRustlsConnect::new(tls::config(options)?);
        match timeout(options.connection_timeout, config.connect(tls)).await {
            Ok(connected) => {
                connected.map_err(|error| options.failure(operation, Effect::Connect, &error))
            }
            Err(_) => Err(options.connect_timed_out(operation)),
        }
    }
}

impl Manager for Connector {
    type Type = Session;
    type Error = Error;

    async fn create(&self) -> Result<Session, Error> {
        self.session("connect").await
    }

    async fn recycle(&self, session: &mut Session, _: &Metrics) -> managed::RecycleResult<Error> {
        if session.is_closed() {
            return Err(RecycleError::message("the connection is closed"));
        }
        Ok(())
    }
}

fn config(options: &PostgresOptions) -> Result<Config, Error> {
    let mut config = Config::new();
    for (host, port) in &options.hosts {
        config.host(host).port(*port);
    }
    config
        .dbname(&options.database)
        .user(&options.username)
        .application_name("pac-concurrency")
        .target_session_attrs(TargetSessionAttrs::ReadWrite)
        .connect_timeout(options.connection_timeout)
        .tcp_user_timeout(options.statement_timeout)
        .keepalives_idle(KEEPALIVE.0)
        .keepalives_interval(KEEPALIVE.1)
        .keepalives_retries(KEEPALIVE.2)
        .ssl_mode(match options.ssl_mode {
            SslMode::Disable => ClientSslMode::Disable,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => ClientSslMode::Require,
        });
    if let Some(password) = options.password.read()? {
        config.password(password.expose());
    }
    Ok(config)
}
