//! What a commit costs the store beside time: bytes of its log, and of its database.

use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::DriverKind;
use pac_concurrency::raw::{Gauges, RawStore};
use tokio::time::sleep;

use super::load::{Length, Load, Names};
use super::measurement::{Goal, Measurement};
use super::place::{Place, repositories};
use super::rounds::Rounds;
use crate::exit::Failure;
use crate::output::note;

/// Tasks, and repositories, where commits go to the store in batches.
const MANY: usize = 64;

/// Commits of a cycle: one admits, one releases.
const COMMITS: f64 = 2.0;

/// A store tells its figures a moment late: they have settled when they do not change for so long.
const SETTLE: Duration = Duration::from_millis(300);
const MOST_LOOKS: usize = 40;

/// Bytes of PostgreSQL's write-ahead log for each commit, against one raw insert. Nothing else may
/// use the server meanwhile: its log is one for all.
pub(super) async fn wal(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let Some(raw) = place.raw().await? else {
        note("wal: left out; memory has no log");
        return Ok(Vec::new());
    };
    if raw.gauges().await?.logged.is_none() {
        note("wal: left out; the store does not tell this role how much it writes to its log");
        return Ok(Vec::new());
    }
    let cycles = if quick { 640 } else { 6_400 };
    let mut measured = Vec::new();
    for (name, tasks) in [("wal", 1), ("wal_batched", MANY)] {
        let shape = ("wal", tasks, cycles);
        let rounds = rounds(place, &raw, shape, |gauges| gauges.logged).await?;
        let per_commit: Vec<_> = rounds.ours.iter().map(|bytes| bytes / COMMITS).collect();
        let row = Measurement::of_rounds(name, &per_commit, "bytes a commit");
        let row = row.against(rounds.raw());
        measured.push(row.goal_of_value(Goal::AtMost(600.0)));
    }
    Ok(measured)
}

/// Bytes by which the database grows for each run, against one raw write. Nothing is compacted or
/// vacuumed meanwhile, unless the server does so by itself.
pub(super) async fn stored(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    if !place.is_shared() {
        note("stored: left out; memory has no database, see footprint");
        return Ok(Vec::new());
    }
    let cycles = if quick { 1_280 } else { 12_800 };
    let work = async |place: &Place| {
        let Some(raw) = place.raw().await? else {
            return Ok(Vec::new());
        };
        let shape = ("stored", MANY, cycles);
        let rounds = rounds(place, &raw, shape, |gauges| gauges.stored).await?;
        let row = Measurement::of_rounds("stored", &rounds.ours, "bytes a run");
        let row = row.against(rounds.raw());
        Ok(vec![match place.driver() {
            DriverKind::Etcd => row.goal_of_value(Goal::AtMost(1_000.0)),
            _ => row,
        }])
    };
    place.another().cleared_after(work).await
}

/// By how much a figure of the store grows for each of our cycles, and for each raw write.
async fn rounds(
    place: &Place,
    raw: &Arc<dyn RawStore>,
    (name, tasks, cycles): (&str, usize, usize),
    figure: fn(&Gauges) -> Option<u64>,
) -> Result<Rounds, Failure> {
    let name = format!("{name}{tasks}");
    let manager = place.manager().await?;
    let keys = repositories(&manager, &name, tasks, 5).await?;
    manager.close().await?;
    drop(manager);
    let names = Names::new(&name);
    let each = |growth: u64| growth as f64 / cycles as f64;
    Rounds::alternate(
        3,
        async |_| {
            let before = settled(raw, figure).await?;
            // A connection that ends has told the server all that it has written.
            let manager = place.manager().await?;
            let mut load = Load::new(manager.clone(), keys.clone(), tasks, names.clone());
            load.round(Length::Cycles(cycles / tasks)).await?;
            manager.close().await?;
            drop((load, manager));
            Ok(each(settled(raw, figure).await?.saturating_sub(before)))
        },
        async |_| {
            let before = settled(raw, figure).await?;
            for _ in 0..cycles {
                raw.write(0).await?;
            }
            Ok(each(settled(raw, figure).await?.saturating_sub(before)))
        },
    )
    .await
}

/// A figure of the store once it does not change any more; 0 where the store has none.
pub(super) async fn settled(
    raw: &Arc<dyn RawStore>,
    figure: fn(&Gauges) -> Option<u64>,
) -> Result<u64, Failure> {
    let mut last = figure(&raw.gauges().await?);
    for _ in 0..MOST_LOOKS {
        sleep(SETTLE).await;
        let now = figure(&raw.gauges().await?);
        if now == last {
            break;
        }
        last = now;
    }
    Ok(last.unwrap_or_default())
}
