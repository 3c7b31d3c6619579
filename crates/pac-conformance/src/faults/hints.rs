//! Watch hints that are lost or late.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pac_core::Error;
use pac_core::driver::{Watch, WatchEvent};
use tokio::time::sleep;

use super::Fault;

/// What becomes of hints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintsLost {
    /// All are dropped, and nobody is told.
    Silently,
    /// Each comes late, and those after it too.
    Late(Duration),
    /// Each comes twice.
    Twice,
}

/// A watch that is not to be relied upon.
#[derive(Debug)]
pub struct Hints {
    fate: HintsLost,
    seen: Arc<AtomicU64>,
}

impl Hints {
    /// With this fate for every hint.
    #[must_use]
    pub fn new(fate: HintsLost) -> Self {
        Self {
            fate,
            seen: Arc::default(),
        }
    }

    /// How many hints had this fate.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }
}

impl Fault for Hints {
    fn watched(&self, watch: Box<dyn Watch>) -> Box<dyn Watch> {
        Box::new(FatefulWatch {
            watch,
            fate: self.fate,
            seen: Arc::clone(&self.seen),
            again: None,
        })
    }
}

struct FatefulWatch {
    watch: Box<dyn Watch>,
    fate: HintsLost,
    seen: Arc<AtomicU64>,
    again: Option<WatchEvent>,
}

#[async_trait]
impl Watch for FatefulWatch {
    async fn next(&mut self) -> Result<WatchEvent, Error> {
        loop {
            if let Some(again) = self.again.take() {
                return Ok(again);
            }
            let event = self.watch.next().await?;
            self.seen.fetch_add(1, Ordering::Relaxed);
            match self.fate {
                HintsLost::Silently => {}
                HintsLost::Late(delay) => {
                    sleep(delay).await;
                    return Ok(event);
                }
                HintsLost::Twice => {
                    self.again = Some(event.clone());
                    return Ok(event);
                }
            }
        }
    }
}
