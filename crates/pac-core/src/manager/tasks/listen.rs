//! Passes hints on, and opens the watch anew whenever it breaks.

use std::sync::Arc;
use std::time::Duration;

use crate::driver::{Watch, WatchEvent};
use crate::error::Error;
use crate::manager::commit::token::Token;
use crate::manager::engine::Engine;
use crate::name::RepositoryKey;
use crate::pauses::Pauses;
use crate::protocol::Command;
use crate::state::Snapshot;
use crate::value::Revision;

/// Between attempts to open the watch anew: the first pause.
const FIRST_RECONNECT: Duration = Duration::from_millis(50);
/// The longest of these, without its jitter: this is often the one request that a manager whose
/// runs only wait makes, and the store's return is to be noticed within half a second.
const LONGEST_RECONNECT: Duration = Duration::from_millis(250);

pub(super) async fn listen(engine: Arc<Engine>, mut watch: Box<dyn Watch>) {
    loop {
        match watch.next().await {
            Ok(event) => pass_on(&engine, event),
            Err(error) => {
                engine.store.contact.heard(&Err::<(), _>(error.replicate()));
                watch = reconnect(&engine, error).await;
                pass_on(&engine, WatchEvent::Missed);
            }
        }
    }
}

async fn reconnect(engine: &Engine, mut error: Error) -> Box<dyn Watch> {
    let mut pauses = Pauses::new(FIRST_RECONNECT, LONGEST_RECONNECT);
    let mut returns = engine.store.contact.follow();
    let mut failures = 0_u32;
    loop {
        // An outage is told when it begins, and then more and more seldom.
        failures = failures.saturating_add(1);
        if failures.is_power_of_two() {
            tracing::warn!(%error, failures, "the watch is broken; polling until it is back");
        }
        engine.vitals.watching(Some(error.to_string()));
        returns.pause(pauses.grow()).await;
        returns.begin();
        let watching = engine.store.driver.watch(engine.fence.session().0);
        match engine.store.read(watching, "watch").await {
            Ok(watch) => {
                engine.vitals.watching(None);
                return watch;
            }
            Err(again) => error = again,
        }
    }
}

fn pass_on(engine: &Arc<Engine>, event: WatchEvent) {
    match event {
        WatchEvent::Changed {
            repository,
            revision,
            startable,
            snapshot,
        } => {
            changed(engine, &repository, revision, snapshot.as_ref());
            if startable && engine.grants.takes() {
                // The manager that freed the slot starts no run without an owner; this one does.
                engine.send(&engine.repository(&repository), Command::Promote);
            }
        }
        WatchEvent::SessionDied => engine.session_died.notify_one(),
        WatchEvent::Missed => {
            for cell in engine.registry.all() {
                engine.look_again(&cell);
            }
            engine.session_died.notify_one();
            engine.grants.look_again();
        }
    }
}

fn changed(
    engine: &Arc<Engine>,
    repository: &RepositoryKey,
    revision: Revision,
    snapshot: Option<&Snapshot>,
) {
    let Some(cell) = engine.registry.get(repository) else {
        return;
    };
    let lead = engine.input(&cell, |input| {
        let machine = &mut input.machine;
        machine.on_hint(input.env, revision, snapshot, input.effects)
    });
    if lead {
        engine.attend(Token::new(cell));
    }
}
