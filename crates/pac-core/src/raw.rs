//! What a store does by itself, without the protocol: what `pac bench` measures a driver
//! against. Drivers provide it under their feature `bench`.

use std::fmt;

use async_trait::async_trait;

use crate::error::Error;

/// A store as it is. Every method has the deadline of a driver's request.
#[async_trait]
pub trait RawStore: fmt::Debug + Send + Sync {
    /// The product and its version.
    ///
    /// # Errors
    /// The store's own, as with every method here.
    async fn server(&self) -> Result<String, Error>;

    /// One small durable write, that of writer number `writer`, and nothing else.
    ///
    /// # Errors
    /// The store's own.
    async fn write(&self, writer: usize) -> Result<(), Error>;

    /// One small durable write that listeners are told of, in the cheapest way there is.
    ///
    /// # Errors
    /// The store's own.
    async fn announce(&self) -> Result<(), Error>;

    /// Listens for announcements from now on.
    ///
    /// # Errors
    /// The store's own.
    async fn listen(&self) -> Result<Box<dyn RawListener>, Error>;

    /// Deletes everything below the prefix or in the schema of the settings, the driver's own
    /// state included.
    ///
    /// # Errors
    /// The store's own.
    async fn clear(&self) -> Result<(), Error>;
}

/// Hears announcements.
#[async_trait]
pub trait RawListener: Send {
    /// Waits for the next announcement.
    ///
    /// # Errors
    /// The stream is broken.
    async fn heard(&mut self) -> Result<(), Error>;
}
