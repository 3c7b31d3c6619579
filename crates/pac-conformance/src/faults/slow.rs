//! A store whose answers take a while, so that a caller can be gone before they come.

use std::time::Duration;

use async_trait::async_trait;
use pac_core::Error;
use tokio::task::yield_now;
use tokio::time::sleep;

use super::Fault;

/// Every request takes so long on the way there, and its answer as long on the way back.
#[derive(Debug, Clone, Copy)]
pub enum Slow {
    /// So many turns of the scheduler.
    Turns(usize),
    /// This time.
    Time(Duration),
}

#[async_trait]
impl Fault for Slow {
    async fn before(&self) -> Result<(), Error> {
        self.after().await;
        Ok(())
    }

    async fn after(&self) {
        match *self {
            Self::Turns(turns) => {
                for _ in 0..turns {
                    yield_now().await;
                }
            }
            Self::Time(time) => sleep(time).await,
        }
    }
}
