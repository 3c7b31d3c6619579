//! What callers hold.

pub(super) mod admission;
pub(super) mod grants;
pub(super) mod lease;
pub(super) mod permit;
pub(super) mod permits;
pub(super) mod turn;
pub(super) mod waiter;
pub(super) mod watch;
