//! A store whose answers take a while, so that a caller can be gone before they come.

use async_trait::async_trait;
use pac_core::Error;
use tokio::task::yield_now;

use super::Fault;

/// So many turns of the scheduler on the way there, and as many on the way back.
#[derive(Debug)]
pub struct Slow(pub usize);

#[async_trait]
impl Fault for Slow {
    async fn before(&self) -> Result<(), Error> {
        self.after().await;
        Ok(())
    }

    async fn after(&self) {
        for _ in 0..self.0 {
            yield_now().await;
        }
    }
}
