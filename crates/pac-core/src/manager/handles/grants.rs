//! The stream of leases that nobody awaits.

use super::lease::Lease;
use crate::manager::ConcurrencyManager;

/// The leases that nobody awaits: of runs whose waiter was detached, and of durable runs that
/// have no owner. While this lives, the manager takes over runs without an owner, as long as
/// fewer than 1,024 leases lie here unread.
///
/// Dropping it gives back what it has not handed out: durable runs are queued again in their old
/// places, without an owner, unless another call of this manager's was answered with their slot.
#[derive(Debug)]
pub struct Grants(pub(in crate::manager) ConcurrencyManager);

impl Grants {
    /// Waits for the next lease; `None` when the manager was closed or has died. Cancel-safe.
    pub async fn next(&mut self) -> Option<Lease> {
        let engine = self.0.engine();
        loop {
            // Taken only after the wait, so that a dropped future loses nothing.
            let session = engine.grants.session_of_first().await?;
            let era = engine.fence.confirmed(session).await;
            // A grant whose session is over is lost with the session.
            if let (Some((cell, grant)), Some(era)) = (engine.grants.take_first(), era) {
                return Some(Lease::new(&self.0, &cell, grant, era, true));
            }
        }
    }
}

impl Drop for Grants {
    fn drop(&mut self) {
        let engine = self.0.engine();
        for (cell, grant) in engine.grants.close() {
            engine.give_back(&cell, &grant);
        }
    }
}
