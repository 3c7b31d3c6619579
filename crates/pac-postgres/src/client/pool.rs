//! The pool of connections for requests. The one that was used last is used first: the server's
//! process behind it still has all that it needs in its caches.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use deadpool_postgres as deadpool;
use deadpool_postgres::{ClientWrapper, ManagerConfig, Object, PoolError, RecyclingMethod};
use pac_core::{Error, ErrorKind};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio_postgres::{Client, Config};

use super::connect::Connector;
use super::failure::Failure;
use crate::options::PostgresOptions;

/// A connection that was not used for so long is closed.
const IDLE: Duration = Duration::from_secs(60);
/// After the server had no room for another connection, the pool asks for none for so long.
const FULL_FOR: Duration = Duration::from_secs(1);

tokio::task_local! {
    /// Why the connection that is being made for the current call could not be made. The library
    /// hands on errors of its own alone.
    static REASON: RefCell<Option<Failure>>;
}

/// See the module. Cloning is cheap.
#[derive(Debug, Clone)]
pub(super) struct Pool {
    pool: deadpool::Pool,
    options: Arc<PostgresOptions>,
    /// Connections that are older than this are not used any more.
    emptied: Arc<Mutex<Option<Instant>>>,
}

impl Pool {
    /// Makes no connection yet. Those that it will make live on the current runtime.
    pub(super) fn new(connector: Arc<Connector>) -> Result<Self, Error> {
        let options = Arc::clone(&connector.options);
        let opener = Opener {
            connector,
            runtime: Handle::try_current().map_err(|error| {
                let message = "this needs a runtime of tokio: call it from within one";
                Error::new(ErrorKind::Internal, "connect", message).caused_by(error)
            })?,
            full_until: Mutex::default(),
        };
        let recycling = ManagerConfig {
            recycling_method: RecyclingMethod::Fast,
        };
        // The opener reads the settings anew for each connection, and does not look at this.
        let manager = deadpool::Manager::from_connect(Config::new(), opener, recycling);
        let pool = deadpool::Pool::builder(manager)
            .max_size(options.max_connections)
            .queue_mode(deadpool::QueueMode::Lifo)
            .wait_timeout(Some(options.connection_timeout))
            .create_timeout(Some(options.connection_timeout))
            .runtime(deadpool::Runtime::Tokio1)
            .build();
        let pool = pool.map_err(|error| {
            Error::new(ErrorKind::Internal, "connect", "cannot make a pool").caused_by(error)
        })?;
        Ok(Self {
            pool,
            options,
            emptied: Arc::default(),
        })
    }

    /// A connection, new or used before.
    pub(super) async fn get(&self, operation: &'static str) -> Result<Pooled, Failure> {
        let getting = async {
            let got = self.pool.get().await;
            (got, REASON.with(RefCell::take))
        };
        let (got, reason) = REASON.scope(RefCell::new(None), getting).await;
        let object = got.map_err(|error| match (error, reason) {
            (_, Some(reason)) => reason,
            (PoolError::Timeout(deadpool::TimeoutType::Wait), _) => {
                self.options.pool_is_exhausted(operation).into()
            }
            (PoolError::Timeout(_), _) => self
                .options
                .connect_timed_out(operation, self.options.connection_timeout),
            (error, None) => Error::new(ErrorKind::Internal, operation, "the pool is closed")
                .caused_by(error.to_string())
                .into(),
        })?;
        Ok(Pooled {
            object,
            pool: self.clone(),
        })
    }

    /// From now on only connections are used that are made from now on.
    pub(super) fn empty(&self) {
        let now = Instant::now();
        *self.emptied() = Some(now);
        self.pool.retain(|_, metrics| metrics.created > now);
    }

    /// Closes connections that have answered nothing since `then`, if no request is under way on
    /// them: if the server has gone silent, no other request has to find out about each of them.
    pub(super) fn drop_unused_since(&self, then: Instant) {
        self.pool
            .retain(|_, metrics| metrics.recycled.unwrap_or(metrics.created) > then);
    }

    /// Closes connections that were not used for long.
    pub(super) fn trim(&self) {
        self.pool.retain(|_, metrics| metrics.last_used() < IDLE);
    }

    fn emptied(&self) -> MutexGuard<'_, Option<Instant>> {
        self.emptied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection of the pool. It goes back when it is dropped.
#[derive(Debug)]
pub(super) struct Pooled {
    object: Object,
    pool: Pool,
}

impl Pooled {
    pub(super) fn client(&self) -> &ClientWrapper {
        &self.object
    }

    /// Takes the connection out of the pool, which may make another one in its place.
    pub(super) fn take(self) -> ClientWrapper {
        Object::take(self.object)
    }

    /// Gives the connection back, unless the pool was emptied since it was made.
    pub(super) fn give_back(self) {
        let created = Object::metrics(&self.object).created;
        let outdated = self.pool.emptied().is_some_and(|at| created <= at);
        if outdated {
            drop(self.take());
        }
    }
}

/// Makes the connections of the pool.
struct Opener {
    connector: Arc<Connector>,
    /// Drives them.
    runtime: Handle,
    full_until: Mutex<Option<Instant>>,
}

type Opened = (Client, JoinHandle<()>);

impl deadpool::Connect for Opener {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<Opened, tokio_postgres::Error>> + Send + '_>> {
        Box::pin(async move {
            match self.open().await {
                Ok(opened) => Ok(opened),
                Err(failure) => {
                    REASON.with(|reason| reason.replace(Some(failure)));
                    // `get` looks for the reason first, so it does not matter what this says.
                    match "?".parse::<Config>() {
                        Err(error) => Err(error),
                        Ok(_) => std::future::pending().await,
                    }
                }
            }
        })
    }
}

impl Opener {
    async fn open(&self) -> Result<Opened, Failure> {
        if self
            .full_until()
            .is_some_and(|until| Instant::now() < until)
        {
            return Err(self.connector.options.full("connect"));
        }
        let connector = Arc::clone(&self.connector);
        let patience = connector.options.connection_timeout;
        // The set aborts the task when this is dropped.
        let mut opening: JoinSet<Result<Opened, Failure>> = JoinSet::new();
        let open = async move {
            let (client, wire) = connector.connect("connect", patience).await?;
            let driven = tokio::spawn(async move {
                if let Err(error) = wire.await {
                    tracing::debug!(%error, "a connection to PostgreSQL ended");
                }
            });
            Ok((client, driven))
        };
        opening.spawn_on(open, &self.runtime);
        match opening.join_next().await {
            Some(Ok(Err(failure))) => {
                if failure.is_full() {
                    *self.full_until() = Some(Instant::now() + FULL_FOR);
                }
                Err(failure)
            }
            Some(Ok(opened)) => opened,
            Some(Err(_)) | None => {
                let message = "the runtime that the driver was connected on was shut down";
                Err(Error::new(ErrorKind::Closed, "connect", message).into())
            }
        }
    }

    fn full_until(&self) -> MutexGuard<'_, Option<Instant>> {
        self.full_until
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
