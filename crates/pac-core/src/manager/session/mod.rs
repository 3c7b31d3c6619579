//! This process at the store: one session, kept alive, and known to be over in time.

pub(super) mod fence;
pub(super) mod keep_alive;
