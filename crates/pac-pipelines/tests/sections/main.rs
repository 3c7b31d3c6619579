//! Sections on the store in memory: some Tasks of a run hold a slot.

#[path = "../flows/suite/support.rs"]
mod support;

mod ends;
mod flows;
mod late;
mod random;
mod restarts;
mod setting;
