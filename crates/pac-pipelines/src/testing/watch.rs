//! Watches of the cluster in memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use tokio::sync::mpsc;

use super::world::World;
use crate::cluster::{ClusterEvent, ClusterWatch};

/// Delivers events in their order, or not quite, as the faults say.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    pub(super) world: Arc<Mutex<World>>,
    pub(super) events: mpsc::UnboundedReceiver<ClusterEvent>,
    pub(super) ahead: VecDeque<ClusterEvent>,
}

#[async_trait]
impl ClusterWatch for MemoryWatch {
    async fn next(&mut self) -> Option<ClusterEvent> {
        if self.ahead.is_empty() {
            let event = self.events.recv().await?;
            self.ahead.push_back(event);
        }
        while let Ok(event) = self.events.try_recv() {
            self.ahead.push_back(event);
        }
        let mut world = self.world.lock().unwrap_or_else(PoisonError::into_inner);
        let disorder = world.faults.disorder;
        if world.chance.f64() >= disorder {
            return self.ahead.pop_front();
        }
        let at = world.chance.usize(..self.ahead.len());
        if world.chance.bool() {
            return self.ahead.get(at).cloned();
        }
        self.ahead.remove(at)
    }
}
