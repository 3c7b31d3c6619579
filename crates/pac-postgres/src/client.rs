//! The one place that talks to the client library: connections, the pool, statements.
//!
//! A process has two kinds of connections. One, the [link](Link), is there from beginning to end:
//! it hears and sends hints and renews sessions. The others are the pool's, for requests; there are
//! as many as are needed at once, and none where the server has no room for them: then requests go
//! over the link, too.
//!
//! A proxy may give each statement another connection. Until the driver knows that there is none,
//! statements are unnamed and leave nothing behind on a connection.

mod connect;
mod failure;
mod guard;
mod link;
mod pool;
mod proof;
mod session;
mod startup;

use std::sync::Arc;
use std::time::{Duration, Instant};

use deadpool_postgres::ClientWrapper;
use pac_core::driver::Finding;
use pac_core::{Error, file};
pub(crate) use tokio_postgres::types::{FromSql, ToSql, Type};
pub(crate) use tokio_postgres::{Error as RowError, Row};

use crate::options::PostgresOptions;
use crate::tls;
use connect::Connector;
use pool::{Pool, Pooled};
use session::{Request, Statements};

pub(crate) use failure::{Effect, Failure};
pub(crate) use link::Link;
pub(crate) use session::Session;

/// A parameter and its type.
pub(crate) type Param<'a> = (&'a (dyn ToSql + Sync), Type);

/// A statement.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Sql<'a> {
    /// Parsed and planned each time.
    Once(&'a str),
    /// Prepared once on each connection, where statements may have names.
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
    connector: Arc<Connector>,
    pool: Pool,
    link: Arc<Link>,
    statements: Arc<Statements>,
}

impl Client {
    /// Makes no connection yet. Those of the pool will live on the current runtime.
    pub(crate) fn new(options: &PostgresOptions) -> Result<Self, Error> {
        let connector = Arc::new(Connector::new(options));
        Ok(Self {
            pool: Pool::new(Arc::clone(&connector))?,
            link: Arc::default(),
            statements: Arc::new(Statements::new(Arc::clone(&connector))),
            connector,
        })
    }

    pub(crate) fn options(&self) -> &PostgresOptions {
        &self.connector.options
    }

    /// The name of the schema as SQL has it, in quotes: some names are words of the language.
    pub(crate) fn schema(&self) -> String {
        // The options have checked that there is no quote in it.
        format!("\"{}\"", self.options().schema)
    }

    /// The connection that is always there, when it is.
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// A warning about the private key, if others can read it.
    pub(crate) async fn exposed_key(&self) -> Option<Finding> {
        let options = Arc::clone(&self.connector.options);
        let patience = options.connection_timeout;
        let look = file::apart(patience, move || tls::exposed_key(&options));
        // A thread that fails, or does not end, has found nothing.
        look.await.ok().flatten()
    }

    /// Lets statements have names: no proxy gives this process's connections to others. From now on
    /// a connection prepares each [`Often`](Sql::Often) statement once.
    pub(crate) fn name_statements(&self) {
        self.statements.name(true);
    }

    /// Whether statements have names.
    pub(crate) fn names_statements(&self) -> bool {
        self.statements.are_named()
    }

    /// No server may take longer than this to be connected to while another one is left to be
    /// tried.
    pub(crate) fn hurry(&self, share: Duration) {
        self.connector.hurry(share);
    }

    /// Closes connections that were not used for long.
    pub(crate) fn trim(&self) {
        self.pool.trim();
    }

    /// Runs one statement on a connection of the pool, for the statement timeout at most.
    pub(crate) async fn query(
        &self,
        operation: &'static str,
        effect: Effect,
        sql: impl Into<Sql<'_>>,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        let answer = self.attempt(operation, effect, sql, params).await;
        answer.map_err(|failure| failure.error)
    }

    /// The same, with what the failure says of the connection and of the server.
    pub(crate) async fn attempt(
        &self,
        operation: &'static str,
        effect: Effect,
        sql: impl Into<Sql<'_>>,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Failure> {
        self.query_pooled(Request {
            patience: self.options().statement_timeout,
            operation,
            effect,
            sql: sql.into(),
            params,
        })
        .await
    }

    async fn query_pooled(&self, request: Request<'_>) -> Result<Vec<Row>, Failure> {
        let operation = request.operation;
        let pooled = match self.pool.get(operation).await {
            Ok(pooled) => pooled,
            Err(failure) => {
                return match self.link.session().filter(|_| failure.is_full()) {
                    Some(link) => self.over_link(&link, request).await,
                    None => Err(failure),
                };
            }
        };
        // If this is dropped before the answer came, the connection must not go back to the pool:
        // the next statement on it would get that answer.
        let borrowed = Borrowed {
            pooled: Some(pooled),
            statements: &self.statements,
        };
        let sent = Instant::now();
        let answer = match borrowed.client() {
            Some(client) => self.statements.run(client, request).await,
            None => Err(self.options().pool_is_exhausted(operation).into()),
        };
        if let Err(failure) = &answer {
            if failure.is_of_the_connection() {
                // No other request has to find out about each of the others.
                self.pool.drop_unused_since(sent);
                borrowed.close();
                return answer;
            }
            self.note(failure);
        } else {
            // The server is there.
            self.link.hurry();
        }
        borrowed.give_back();
        answer
    }

    /// Runs one statement on the link, for so long at most. If that is down, or does not answer, the
    /// statement is run on a connection of the pool instead: it must be one that may run twice.
    pub(crate) async fn query_by_any(
        &self,
        patience: Duration,
        operation: &'static str,
        effect: Effect,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        let request = Request {
            patience,
            operation,
            effect,
            sql: sql.into(),
            params,
        };
        if let Some(link) = self.link.session() {
            let watched = GiveUp(Some(&link));
            match self.over_link(&link, request).await {
                Ok(rows) => {
                    watched.answered();
                    return Ok(rows);
                }
                Err(failure) => {
                    tracing::debug!(error = %failure.error, "trying another connection");
                    if !failure.is_of_the_connection() {
                        watched.answered();
                    }
                }
            }
        }
        let answer = match self.query_pooled(request).await {
            // With that, the pool has closed those that may be lost too.
            Err(failure) if failure.is_lost() => self.query_pooled(request).await,
            answer => answer,
        };
        answer.map_err(|failure| failure.error)
    }

    /// Runs one statement on the link. That one statement is not answered may be the statement's
    /// own fault, and no reason to give up what may be the only connection.
    async fn over_link(&self, link: &Session, request: Request<'_>) -> Result<Vec<Row>, Failure> {
        let answer = link.run(request).await;
        answer.inspect_err(|failure| {
            if failure.is_lost() || failure.is_read_only() {
                link.give_up();
            }
            self.note(failure);
        })
    }

    fn note(&self, failure: &Failure) {
        if failure.is_read_only() {
            // Another server takes writes now, and all connections may be to this one.
            self.pool.empty();
            if let Some(link) = self.link.session() {
                link.give_up();
            }
        }
    }

    /// The link before anything else uses it, or a connection of its own where there is no link.
    pub(crate) async fn first(&self) -> Result<Arc<Session>, Error> {
        match self.link.session() {
            Some(link) => Ok(link),
            None => self.connect("connect").await.map(Arc::new),
        }
    }

    /// Opens a connection that is not of the pool, driven by the runtime that this is called on.
    pub(crate) async fn connect(&self, operation: &'static str) -> Result<Session, Error> {
        self.listen(operation, |_| ()).await
    }

    /// The same, and passes on what notifications say.
    pub(crate) async fn listen(
        &self,
        operation: &'static str,
        heard: impl Fn(&str) + Send + 'static,
    ) -> Result<Session, Error> {
        let patience = self.options().connection_timeout;
        let connected = self.connector.connect(operation, patience).await;
        let connected = connected.map_err(|failure| failure.error)?;
        Ok(Session::over(connected, &self.statements, heard))
    }

    /// The same, and waits for a server that has no room for another connection.
    pub(crate) async fn listen_when_there_is_room(
        &self,
        operation: &'static str,
        heard: impl Fn(&str) + Send + 'static,
    ) -> Result<Session, Error> {
        let connected = self.connector.connect_when_there_is_room(operation).await?;
        Ok(Session::over(connected, &self.statements, heard))
    }
}

/// Gives the link up when it is dropped before the answer came.
struct GiveUp<'a>(Option<&'a Session>);

impl GiveUp<'_> {
    fn answered(mut self) {
        self.0 = None;
    }
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        if let Some(link) = self.0 {
            link.give_up();
        }
    }
}

/// A connection that goes back to the pool only when its statement has been answered.
struct Borrowed<'a> {
    pooled: Option<Pooled>,
    statements: &'a Statements,
}

impl Borrowed<'_> {
    fn client(&self) -> Option<&ClientWrapper> {
        self.pooled.as_ref().map(Pooled::client)
    }

    fn give_back(mut self) {
        if let Some(pooled) = self.pooled.take() {
            pooled.give_back();
        }
    }

    fn close(mut self) {
        drop(self.pooled.take().map(Pooled::take));
    }
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(pooled) = self.pooled.take() {
            let client = pooled.take();
            self.statements.cancel(&client);
        }
    }
}
