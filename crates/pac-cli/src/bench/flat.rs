//! Whether what the store keeps, and the speed, stay as they are over many cycles when finished runs
//! are forgotten: old versions of rows that nobody clears away would show.

use super::costs::settled;
use super::load::{Length, Load, Names};
use super::measurement::{Goal, Measurement};
use super::place::{Place, repositories};
use crate::exit::Failure;
use crate::output::note;

const CYCLES: usize = 1_000_000;
/// Long enough that some of the first part's runs are forgotten within it.
const QUICK_CYCLES: usize = 200_000;
/// After each of so many parts the store does its upkeep. The state after the first one is compared
/// with that after the last.
const PARTS: usize = 10;

const TASKS: usize = 64;
/// Few, so that the finished runs that are kept are soon as many as they will ever be.
const REPOSITORIES: usize = 16;

/// The store and the speed at one moment.
struct State {
    bytes: u64,
    versions: u64,
    cycles_per_second: f64,
}

pub(super) async fn measure(place: &Place, quick: bool) -> Result<Vec<Measurement>, Failure> {
    let versions = match place.raw().await? {
        Some(raw) => raw.gauges().await?.versions,
        None => None,
    };
    if versions.is_none() {
        note("flat: left out; the store has no versions of rows that it would have to clear away");
        return Ok(Vec::new());
    }
    let cycles = if quick { QUICK_CYCLES } else { CYCLES };
    let other = place.another_that_forgets();
    let states = other.cleared_after(async |place| run(place, cycles).await);
    let (before, after) = states.await?;
    let grown = |name, unit, before: u64, after: u64| {
        let row = Measurement::new(name, after as f64, unit).against(before as f64);
        row.goal(Goal::AtMost(1.5))
    };
    let rate = Measurement::new("flat_rate", after.cycles_per_second, "cycles/s");
    Ok(vec![
        grown("flat", "bytes", before.bytes, after.bytes),
        grown("flat_versions", "rows", before.versions, after.versions),
        rate.against(before.cycles_per_second)
            .goal(Goal::AtLeast(0.8)),
    ])
}

/// The states after the first part of the cycles, and after the last one.
async fn run(place: &Place, cycles: usize) -> Result<(State, State), Failure> {
    let manager = place.manager().await?;
    let keys = repositories(&manager, "flat", REPOSITORIES, 5).await?;
    manager.close().await?;
    let names = Names::new("flat");
    let part = async || {
        // A connection that ends has told the server all that it has written.
        let manager = place.manager().await?;
        let mut load = Load::new(manager.clone(), keys.clone(), TASKS, names.clone());
        let rate = load.round(Length::Cycles(cycles / PARTS / TASKS)).await?;
        manager.close().await?;
        drop((load, manager));
        if let Some(raw) = place.raw().await? {
            raw.upkeep().await?;
        }
        state(place, rate).await
    };
    let first = part().await?;
    for _ in 2..PARTS {
        part().await?;
    }
    Ok((first, part().await?))
}

async fn state(place: &Place, cycles_per_second: f64) -> Result<State, Failure> {
    let mut state = State {
        bytes: 0,
        versions: 0,
        cycles_per_second,
    };
    if let Some(raw) = place.raw().await? {
        state.versions = settled(&raw, |gauges| gauges.versions).await?;
        state.bytes = settled(&raw, |gauges| gauges.stored).await?;
    }
    Ok(state)
}
