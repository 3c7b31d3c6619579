//! The time from a release in one process until the waiter in another one runs, against the time
//! that the store's own notification takes between two processes.

use std::time::Duration;

use pac_concurrency::{DriverKind, Limit, RunOutcome};
use tokio::time::sleep;

use super::contended::now;
use super::load::{Names, acquire};
use super::measurement::{Goal, Measurement};
use super::place::{Place, bug, repository};
use super::statistics::{median, quantile, spread};
use super::worker::{Asked, Work, Worker};
use crate::exit::Failure;
use crate::output::note;

/// The pause between two wake-ups, so that the store has finished with the one before.
const PAUSE: Duration = Duration::from_millis(10);

const REPOSITORY: &str = "wakeup";

pub(super) async fn measure(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let Some(raw) = place.raw().await? else {
        note("wakeup: left out; no other process can reach the memory of this one");
        return Ok(Vec::new());
    };
    let manager = place.manager().await?;
    let key = repository(REPOSITORY)?;
    manager.set_limit(&key, Limit::new(1), None).await?;
    let mut worker = Worker::start(place, Work::Wait)?;
    let names = Names::new("holder");
    let (mut ours, mut store) = (Vec::new(), Vec::new());
    let times = if quick { 100 } else { 500 };
    for _ in 0..times {
        worker.ask("listen")?;
        worker.answer::<String>()?;
        sleep(PAUSE).await;
        let sent = now();
        raw.announce().await?;
        store.push(micros_since(sent, worker.answer()?));

        let lease = acquire(&manager, &key, names.next()?).await?;
        worker.ask("wait")?;
        worker.answer::<String>()?;
        sleep(PAUSE).await;
        let sent = now();
        manager.release(lease, RunOutcome::Completed).await?;
        ours.push(micros_since(sent, worker.answer()?));
    }
    drop(worker);
    manager.close().await?;
    let row = |name, part, goal| {
        let measured = Measurement {
            rounds: Some(times),
            spread: Some(spread(&ours)),
            ..Measurement::new(name, quantile(&ours, part), "µs")
        };
        let measured = measured.latencies(median(&ours), quantile(&ours, 0.99));
        measured
            .against(quantile(&store, part))
            .goal(Goal::AtMost(goal))
    };
    let mut rows = vec![row("wakeup", 0.5, 2.0), row("wakeup_p99", 0.99, 5.0)];
    if place.driver() == DriverKind::Postgresql {
        let worst = Measurement::new("wakeup_p99_ms", quantile(&ours, 0.99) / 1e3, "ms");
        rows.push(worst.goal(Goal::AtMost(50.0)));
    }
    Ok(rows)
}

fn micros_since(sent: u64, heard: u64) -> f64 {
    heard.saturating_sub(sent) as f64 / 1e3
}

/// Runs the process that waits.
pub(super) async fn take_part(place: &Place, asked: &mut Asked) -> Result<(), Failure> {
    let manager = place.manager().await?;
    let raw = place.raw().await?;
    let raw = raw.ok_or_else(|| bug("a store that nobody else can reach"))?;
    let mut listener = raw.listen().await?;
    let key = repository(REPOSITORY)?;
    let names = Names::new("waiter");
    asked.answer(&"ready")?;
    while let Some(step) = asked.next() {
        if step == "listen" {
            asked.answer(&"listening")?;
            listener.heard().await?;
            asked.answer(&now())?;
            continue;
        }
        let admission = manager.admit(&key, names.next()?).await?;
        let pac_concurrency::Admission::Queued(waiter) = admission else {
            return Err(bug("the only slot is held, but a run has started"));
        };
        asked.answer(&"waiting")?;
        let turn = waiter.await?;
        let woken = now();
        let pac_concurrency::Turn::Started(lease) = turn else {
            return Err(bug(format!("nobody ends this run, but: {turn:?}")));
        };
        manager.release(lease, RunOutcome::Completed).await?;
        asked.answer(&woken)?;
    }
    Ok(manager.close().await?)
}
