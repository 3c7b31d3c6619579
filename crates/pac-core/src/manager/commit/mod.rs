//! Group commit: what a repository plans is carried to the store together with others', and what
//! comes of it is brought back.

pub(super) mod batcher;
pub(super) mod drive;
pub(super) mod queue;
pub(super) mod token;
