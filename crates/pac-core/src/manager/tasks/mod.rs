//! What a manager does of its own accord, one loop a file: it listens, polls in case it did not
//! hear, sees to the runs of sessions that died, looks for runs without an owner, ends those
//! whose time is over, and follows its own session.

mod adopt;
mod expire;
mod listen;
mod poll;
mod reclaim;
pub(super) mod supervise;
pub(super) mod time_limits;

use std::sync::Arc;

use super::engine::Engine;
use crate::driver::Watch;

/// Starts them all.
pub(super) fn start(engine: &Arc<Engine>, watch: Box<dyn Watch>) {
    let listen = listen::listen(Arc::clone(engine), watch);
    supervise::start(engine, "watch", listen);
    let adopt = adopt::adopt(Arc::clone(engine));
    supervise::start(engine, "search for runs without an owner", adopt);
    let poll = poll::poll(Arc::clone(engine));
    supervise::start(engine, "back-stop poll", poll);
    let expire = expire::expire(Arc::clone(engine));
    supervise::start(engine, "sweep for dead sessions", expire);
    let time_limits = time_limits::keep(Arc::clone(engine));
    supervise::start(engine, "keeper of time limits", time_limits);
    let reclaim = reclaim::follow(Arc::clone(engine));
    supervise::start(engine, "follower of the session", reclaim);
}
