//! A store's own speed, without the protocol: the baseline that `pac bench` compares a driver
//! with. Drivers provide it under their feature `bench`.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use crate::error::Error;

/// The TTL of what a [`Peer`] holds, where it has one. No store has a higher minimum.
pub const PEER_TTL: Duration = Duration::from_secs(3);

/// The longest time that a peer's request may take, those that wait for the limit included.
pub const PEER_WAIT: Duration = Duration::from_secs(60);

/// A store without the protocol. Every method has the deadline of a driver's request.
#[async_trait]
pub trait RawStore: fmt::Debug + Send + Sync {
    /// The name of the server product and its version.
    ///
    /// # Errors
    /// The store's own, as for every method here.
    async fn server(&self) -> Result<String, Error>;

    /// Makes one small durable write as writer number `writer`, and nothing else.
    ///
    /// # Errors
    /// The store's own.
    async fn write(&self, writer: usize) -> Result<(), Error>;

    /// Reads what this writer has written last.
    ///
    /// # Errors
    /// The store's own.
    async fn read(&self, writer: usize) -> Result<(), Error>;

    /// What the store says of itself now. It may be some hundred milliseconds old.
    ///
    /// # Errors
    /// The store's own. A figure that the role may not read is none.
    async fn gauges(&self) -> Result<Gauges, Error>;

    /// Has the store do at once what it does by itself now and then to clear away old versions. A store
    /// that does none of it has nothing to do.
    ///
    /// # Errors
    /// The store's own.
    async fn upkeep(&self) -> Result<(), Error> {
        Ok(())
    }

    /// Makes one small durable write that listeners are notified of, in the cheapest way there
    /// is.
    ///
    /// # Errors
    /// The store's own.
    async fn announce(&self) -> Result<(), Error>;

    /// Listens for announcements from now on.
    ///
    /// # Errors
    /// The store's own.
    async fn listen(&self) -> Result<Box<dyn RawListener>, Error>;

    /// Deletes everything below the prefix or in the schema of the settings, including the
    /// driver's own state.
    ///
    /// # Errors
    /// The store's own.
    async fn clear(&self) -> Result<(), Error>;

    /// The ways in which a limit is kept on this store without this project.
    fn peers(&self) -> &'static [Peer];

    /// Makes what a peer needs, with nothing held. Nothing may use the peer meanwhile.
    ///
    /// # Errors
    /// The store's own.
    async fn prepare(&self, peer: Peer, limit: u32) -> Result<(), Error>;

    /// A place of a peer's limit, for one task, with a connection or a lease of its own.
    ///
    /// # Errors
    /// The store's own.
    async fn place(&self, peer: Peer, limit: u32) -> Result<Box<dyn RawPlace>, Error>;
}

/// What a store says of its size. `None`: it has no such figure, or does not tell this role.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gauges {
    /// Bytes written to the log since some moment, by everybody.
    pub logged: Option<u64>,
    /// Bytes in use: on PostgreSQL of the schema of the settings, on etcd of all its database.
    pub stored: Option<u64>,
    /// Versions of rows in that schema: those that are visible and those that are not any more.
    pub versions: Option<u64>,
}

/// A way in which a limit is kept on a store without this project, as people do it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// Its name, for people.
    pub name: &'static str,
    /// Whether it can keep a limit above one.
    pub counts: bool,
}

/// A task's place of a limit that a [`Peer`] keeps.
#[async_trait]
pub trait RawPlace: Send {
    /// Waits until the task may run.
    ///
    /// # Errors
    /// The store's own.
    async fn acquire(&mut self) -> Result<(), Error>;

    /// Lets the next one run.
    ///
    /// # Errors
    /// The store's own.
    async fn release(&mut self) -> Result<(), Error>;
}

/// Receives announcements.
#[async_trait]
pub trait RawListener: Send {
    /// Waits for the next announcement.
    ///
    /// # Errors
    /// The stream is broken.
    async fn heard(&mut self) -> Result<(), Error>;
}
