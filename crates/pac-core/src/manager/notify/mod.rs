//! Delivers effects: answers, turns, grants, losses, events and steps.

pub(super) mod dispatch;
pub(super) mod events;
pub(super) mod grant_queue;
