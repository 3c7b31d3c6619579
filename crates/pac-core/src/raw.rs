//! A store's own speed, without the protocol: the baseline that `pac bench` compares a driver
//! with. Drivers provide it under their feature `bench`.

use std::fmt;

use async_trait::async_trait;

use crate::error::Error;

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
