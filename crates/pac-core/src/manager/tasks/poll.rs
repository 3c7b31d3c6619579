//! The back-stop: reads again what somebody waits for, in case a hint was lost.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::driver::ListFilter;
use crate::manager::engine::Engine;
use crate::manager::registry::Cell;
use crate::pauses::{Pauses, jittered};
use crate::value::Version;

/// A page is worth its price if it saves this many reads on average.
const PER_PAGE: usize = 50;

/// After the store was away, hints may get lost for a while: processes that have changed something
/// end before they could tell, or cannot reach those that listen yet. What is of interest is read
/// again after each of so many pauses, together about three seconds,
const LOOKS_IN_DOUBT: usize = 8;
/// of which this is the shortest: with its jitter none is as long as half a second, and no run
/// waits longer than that for a hint that was lost.
const DOUBT: Duration = Duration::from_millis(250);

/// So long after these looks the next ones begin: a store that answers some requests and others not
/// comes back again and again.
const BETWEEN_DOUBTS: Duration = Duration::from_secs(3);

pub(super) async fn poll(engine: Arc<Engine>) {
    let mut returns = engine.store.contact.follow();
    let mut doubted: Option<Instant> = None;
    loop {
        let calm = doubted.map_or(Duration::ZERO, |at| {
            BETWEEN_DOUBTS.saturating_sub(at.elapsed())
        });
        let returned = async {
            sleep(calm).await;
            returns.next().await;
        };
        tokio::select! {
            () = sleep(jittered(engine.options.poll_interval)) => look(&engine).await,
            () = returned => {
                let mut pauses = Pauses::new(DOUBT, DOUBT);
                for _ in 0..LOOKS_IN_DOUBT {
                    sleep(pauses.grow()).await;
                    look(&engine).await;
                }
                doubted = Some(Instant::now());
            }
        }
        engine.registry.evict();
    }
}

/// Has what is of interest read again.
async fn look(engine: &Arc<Engine>) {
    let mut cells = engine.registry.all();
    cells.retain(|cell| cell.lock().machine.is_of_interest());
    look_at(engine, cells).await;
}

/// Has repositories read again. Of many, only those that have changed: pages of heads tell
/// which, unless the repositories in between are so many that this would cost more than it
/// saves.
async fn look_at(engine: &Arc<Engine>, mut cells: Vec<Arc<Cell>>) {
    let pages = cells.len() / PER_PAGE;
    let most = engine.store.page();
    cells.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    let mut left = cells.into_iter().peekable();
    for _ in 0..pages {
        let Some(first) = left.next() else {
            return;
        };
        engine.look_again(&first);
        let driver = &engine.store.driver;
        let list = driver.list(ListFilter::All, Some(first.key()), most);
        let page = match engine.store.read(list, "poll").await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "could not list repositories; reading each of them");
                break;
            }
        };
        let last = page
            .last()
            .map(|(key, _)| key)
            .filter(|_| page.len() >= most);
        while let Some(next) = left.next_if(|next| last.is_none_or(|last| next.key() <= last)) {
            let at = page.binary_search_by(|(key, _)| key.cmp(next.key()));
            match at.ok().and_then(|at| page.get(at)) {
                Some((_, head)) => look_if_behind(engine, &next, head.version()),
                None => engine.look_again(&next),
            }
        }
    }
    left.for_each(|cell| engine.look_again(&cell));
}

fn look_if_behind(engine: &Arc<Engine>, cell: &Arc<Cell>, version: Version) {
    let lead = engine.input(cell, |input| {
        input.machine.look_if_behind(version, input.effects)
    });
    engine.follow_up(cell, lead);
}
