//! How waiting for a slot ended.

use super::lease::Lease;
use crate::state::RunOutcome;

/// How waiting ended. A caller has to answer each of these: one more would be a breaking change,
/// on purpose.
#[derive(Debug)]
#[must_use = "dropping the lease of an ephemeral run ends the run"]
pub enum Turn {
    /// It runs.
    Started(Lease),
    /// It was ended while it waited.
    Ended(RunOutcome),
    /// It is not this waiter's any more: admitted again, here or by another controller.
    TakenOver,
    /// It is gone: its repository was removed, a new run took its name, or the store was set back to
    /// a time before it was queued (`Event::StoreRewound`): then it may be admitted again.
    Gone,
}
