//! Follows the session: tells what becomes of it, and goes on waiting in the name of a new one.

use std::sync::Arc;

use tokio::time::sleep;

use crate::event::Event;
use crate::manager::engine::Engine;
use crate::manager::log;
use crate::manager::session::fence::{Standing, View};
use crate::value::SessionId;

/// The session as it was last told of.
struct Told {
    session: SessionId,
    lost: bool,
    lapsed: bool,
    /// The last renewal failed.
    failing: bool,
}

pub(super) async fn follow(engine: Arc<Engine>) {
    let mut changes = engine.fence.follow();
    let view = engine.fence.view();
    let mut told = Told::nothing_of(view.session);
    loop {
        changes.mark_unchanged();
        let view = engine.fence.view();
        told.tell(&engine, view);
        let waits_for_lapse = view.standing == Standing::Kept && !view.lapsed;
        tokio::select! {
            _ = changes.changed() => {}
            () = sleep(view.remaining), if waits_for_lapse => {}
        }
    }
}

impl Told {
    fn nothing_of(session: SessionId) -> Self {
        Self {
            session,
            lost: false,
            lapsed: false,
            failing: false,
        }
    }

    /// Events follow from the difference between two looks at the state.
    fn tell(&mut self, engine: &Arc<Engine>, view: View) {
        if view.standing == Standing::Closed {
            return;
        }
        if view.session != self.session {
            self.tell_lost(engine);
            *self = Self::nothing_of(view.session);
            log::session_opened("opened a new session", &engine.fence);
            for cell in engine.registry.all() {
                let lead = engine.input(&cell, |input| {
                    let machine = &mut input.machine;
                    machine.on_session_opened(input.env, input.effects)
                });
                engine.follow_up(&cell, lead);
            }
            engine.session_died.notify_one();
            engine.events.tell(Event::SessionOpened(view.session));
        }
        if view.standing == Standing::Lost {
            self.tell_lost(engine);
            return;
        }
        self.tell_trouble(engine, view);
        if view.lapsed && !self.lapsed {
            let session = view.session;
            tracing::warn!(%session, "the session was not renewed in time: its leases are lost");
            engine.events.tell(Event::LeasesLost(session));
        } else if self.lapsed && !view.lapsed {
            tracing::info!(session = %view.session, "the store has kept the session");
            engine.events.tell(Event::SessionKept(view.session));
        }
        self.lapsed = view.lapsed;
    }

    /// Tells of renewals that fail, and that succeed again before anything is lost.
    fn tell_trouble(&mut self, engine: &Engine, view: View) {
        let trouble = engine.fence.trouble();
        let before = std::mem::replace(&mut self.failing, trouble.is_some());
        match trouble {
            Some(cause) if !before => engine.events.tell(Event::NotRenewed {
                session: view.session,
                remaining: view.remaining,
                cause,
            }),
            None if before && !self.lapsed && !view.lapsed => {
                engine.events.tell(Event::Renewed(view.session));
            }
            Some(_) | None => {}
        }
    }

    fn tell_lost(&mut self, engine: &Arc<Engine>) {
        if std::mem::replace(&mut self.lost, true) {
            return;
        }
        let session = self.session;
        tracing::warn!(%session, "the session is lost, and all leases with it");
        engine.events.tell(Event::SessionLost(session));
        for cell in engine.registry.all() {
            engine.input(&cell, |input| {
                let machine = &mut input.machine;
                machine.on_session_lost(input.env, session, input.effects);
            });
        }
    }
}
