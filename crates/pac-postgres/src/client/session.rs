//! One connection, and the statements that are run on it.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::ClientWrapper;
use pac_core::Error;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client, Row};

use super::connect::{Connector, Wire};
use super::failure::{self, Effect, Failure};
use super::{Param, Sql};
use crate::options::PostgresOptions;

/// One statement, and how long it may take.
#[derive(Clone, Copy)]
pub(super) struct Request<'a> {
    pub(super) patience: Duration,
    pub(super) operation: &'static str,
    pub(super) effect: Effect,
    pub(super) sql: Sql<'a>,
    pub(super) params: &'a [Param<'a>],
}

/// How statements are run, on whatever connection.
#[derive(Debug)]
pub(super) struct Statements {
    connector: Arc<Connector>,
    options: Arc<PostgresOptions>,
    /// Whether they may have names.
    named: AtomicBool,
}

impl Statements {
    pub(super) fn new(connector: Arc<Connector>) -> Self {
        Self {
            options: Arc::clone(&connector.options),
            connector,
            named: AtomicBool::new(false),
        }
    }

    pub(super) fn name(&self, may: bool) {
        self.named.store(may, Ordering::Relaxed);
    }

    pub(super) fn are_named(&self) -> bool {
        self.named.load(Ordering::Relaxed)
    }

    /// Runs a statement. Asks the server to cancel it when it takes too long; the connection is not
    /// to be used any more then.
    pub(super) async fn run(
        &self,
        client: &ClientWrapper,
        request: Request<'_>,
    ) -> Result<Vec<Row>, Failure> {
        let Request { sql, params, .. } = request;
        let answer = async {
            if let Sql::Often(text) = sql
                && self.are_named()
            {
                match by_name(client, text, params).await {
                    // The server has not carried the statement out.
                    Err(error) if failure::is_about_a_name(&error) => {
                        tracing::warn!(%error, "a prepared statement was not what it had been; \
                                                doing without them, which takes a little longer");
                        self.name(false);
                    }
                    answer => return answer,
                }
            }
            let (Sql::Once(text) | Sql::Often(text)) = sql;
            client.query_typed(text, params).await
        };
        self.within(
            client,
            request.patience,
            request.operation,
            request.effect,
            answer,
        )
        .await
    }

    async fn within<T>(
        &self,
        client: &Client,
        patience: Duration,
        operation: &'static str,
        effect: Effect,
        answer: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, Failure> {
        match timeout(patience, answer).await {
            Ok(answer) => answer.map_err(|error| self.options.failure(operation, effect, &error)),
            Err(_) => {
                self.cancel(client);
                Err(self
                    .options
                    .statement_timed_out(operation, effect, patience))
            }
        }
    }

    /// Asks the server, in the background, to cancel the statement that it is carrying out.
    pub(super) fn cancel(&self, client: &Client) {
        let (token, patience) = (client.cancel_token(), self.options.statement_timeout);
        let Some(guard) = self.connector.last_guard() else {
            return;
        };
        let cancel = async move {
            // This only spares the server work, so it may fail.
            let _ = timeout(patience, token.cancel_query(guard)).await;
        };
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(cancel);
        }
    }
}

/// How plans are made on connections on which statements have names: once, without a look at what the
/// arguments are, and for tables of any size. With the usual settings the server would plan each
/// statement anew at first, and would keep reading a whole table that was small then. A proxy gives
/// such connections to nobody else without a reset.
const PLANS: &str = "SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; \
                     SET enable_bitmapscan = off; SET enable_hashjoin = off; \
                     SET enable_mergejoin = off; SET jit = off";

/// Runs a prepared statement. If this connection does not know it yet, prepares it first, which is
/// one more round trip, and two for the first statement.
async fn by_name(
    client: &ClientWrapper,
    sql: &str,
    params: &[Param<'_>],
) -> Result<Vec<Row>, tokio_postgres::Error> {
    if client.statement_cache.size() == 0 {
        client.batch_execute(PLANS).await?;
    }
    let types: Vec<_> = params.iter().map(|(_, kind)| kind.clone()).collect();
    let statement = client.prepare_typed_cached(sql, &types).await?;
    let values: Vec<_> = params.iter().map(|(value, _)| *value).collect();
    client.query(&statement, &values).await
}

/// A connection that is not of the pool. Closed when it is dropped.
pub(crate) struct Session {
    client: ClientWrapper,
    driven: AbortHandle,
    /// Its sender is dropped when the connection is closed.
    open: watch::Receiver<()>,
    statements: Arc<Statements>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").finish_non_exhaustive()
    }
}

impl Session {
    /// Drives a new connection on the current runtime, and passes on what its notifications say.
    pub(super) fn over(
        (client, mut wire): (Client, Wire),
        statements: &Arc<Statements>,
        heard: impl Fn(&str) + Send + 'static,
    ) -> Self {
        let (sender, open) = watch::channel(());
        let driven = tokio::spawn(async move {
            let _sender = sender;
            loop {
                match poll_fn(|cx| wire.poll_message(cx)).await {
                    Some(Ok(AsyncMessage::Notification(told))) => heard(told.payload()),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => {
                        tracing::debug!(%error, "a connection to PostgreSQL ended");
                        return;
                    }
                    None => return,
                }
            }
        });
        Self {
            driven: driven.abort_handle(),
            client: ClientWrapper::new(client, driven),
            open,
            statements: Arc::clone(statements),
        }
    }

    /// Runs one statement, for the statement timeout at most.
    pub(crate) async fn query(
        &self,
        operation: &'static str,
        effect: Effect,
        sql: impl Into<Sql<'_>>,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, Error> {
        let request = Request {
            patience: self.statements.options.statement_timeout,
            operation,
            effect,
            sql: sql.into(),
            params,
        };
        let answer = self.run(request).await;
        answer.map_err(|failure| failure.error)
    }

    pub(super) async fn run(&self, request: Request<'_>) -> Result<Vec<Row>, Failure> {
        self.statements.run(&self.client, request).await
    }

    /// Runs statements without parameters or results.
    pub(crate) async fn batch(&self, operation: &'static str, sql: &str) -> Result<(), Error> {
        let patience = self.statements.options.statement_timeout;
        let answer = self.client.batch_execute(sql);
        let answer =
            self.statements
                .within(&self.client, patience, operation, Effect::Write, answer);
        answer.await.map_err(|failure| failure.error)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.client.is_closed() || self.driven.is_finished()
    }

    /// Closes the connection, also if others still use it.
    pub(crate) fn give_up(&self) {
        self.driven.abort();
    }

    /// Waits until the connection is closed, by either side. Cancel-safe.
    pub(crate) async fn closed(&self) {
        // Nothing is ever sent.
        let _ = self.open.clone().changed().await;
    }
}
