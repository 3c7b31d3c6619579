//! What the keys of the two older layouts on etcd say.

use std::collections::{BTreeMap, BTreeSet};

use super::legacy::{ClusterFacts, Collector, Does, LeftOut, LegacySource, LegacyState, is_final};
use crate::name::{InvalidValue, PipelineRunKey, RepositoryKey};

/// What all keys of leases start with, in both generations.
pub const LEASES: &str = "/pac/leases/";
/// What all other keys start with, in both generations.
pub const CONCURRENCY: &str = "/pac/concurrency/";

/// A key of an older layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegacyKey {
    /// The key.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision of the store at which it was created: the order of arrival.
    pub created: i64,
}

/// Reads the first generation: a run runs while it has a lease key, and waits when its state says
/// so and it has none. Waiting runs are in the order in which their state keys were created.
///
/// `keys` are all keys under [`LEASES`] and [`CONCURRENCY`], in any order. Which Repository a
/// waiting run belongs to, only `facts` can say.
#[must_use]
pub fn etcd_v1(keys: &[LegacyKey], facts: &ClusterFacts) -> LegacyState {
    let mut collector = Collector::new(LegacySource::EtcdV1, facts);
    let parsed = Parsed::of(Generation::First, keys, &mut collector);
    let states: BTreeMap<_, _> = parsed.states.iter().cloned().collect();
    for (repository, run) in &parsed.leases {
        parsed.add_leased(&mut collector, repository, run, &states);
    }
    let leased = parsed.leased();
    for (run, state) in parsed
        .states
        .iter()
        .filter(|(run, _)| !leased.contains(run))
    {
        match state.as_str() {
            "queued" => collector.add_by_facts(run, Does::Wait),
            "started" => collector.add_by_facts(run, Does::Run),
            state => collector.leave(over_or_unknown(run, state)),
        }
    }
    collector.finish()
}

/// Reads the second generation: a run runs while it has a lease key, and waits when it has a queue
/// key, no lease, and no final state. Queue keys are never deleted.
///
/// `keys` are all keys under [`LEASES`] and [`CONCURRENCY`], in any order. A state key whose name
/// is a Repository's as well proves nothing about the run.
#[must_use]
pub fn etcd_v2(keys: &[LegacyKey], facts: &ClusterFacts) -> LegacyState {
    let mut collector = Collector::new(LegacySource::EtcdV2, facts);
    let mut parsed = Parsed::of(Generation::Second, keys, &mut collector);
    let placed = parsed.leases.iter().chain(&parsed.queue);
    let repositories: BTreeSet<String> = placed
        .map(|(repository, _)| repository.as_str().to_owned())
        .chain(facts.limits.keys().map(ToString::to_string))
        .collect();
    let shared = |run: &PipelineRunKey| repositories.contains(run.as_str());
    parsed.states.retain(|(run, _)| !shared(run));
    let states: BTreeMap<_, _> = parsed.states.iter().cloned().collect();
    for (repository, run) in &parsed.leases {
        parsed.add_leased(&mut collector, repository, run, &states);
    }
    let leased = parsed.leased();
    let waiting = parsed.queue.iter().filter(|(_, run)| !leased.contains(run));
    for (repository, run) in waiting {
        match states.get(run).map(String::as_str) {
            Some(state) if is_final(state) => collector.leave(over_or_unknown(run, state)),
            Some("running") => {
                let remark = "its lease has expired; it may still run";
                collector.add(repository, run, Does::Run, Some(remark));
            }
            _ => {
                let remark = "a Repository has its name, so its state key says nothing";
                collector.add(repository, run, Does::Wait, shared(run).then_some(remark));
            }
        }
    }
    let queued: BTreeSet<_> = parsed.queue.iter().map(|(_, run)| run).collect();
    for (run, state) in &parsed.states {
        if leased.contains(run) || queued.contains(run) {
            continue;
        }
        match state.as_str() {
            "queued" => collector.add_by_facts(run, Does::Wait),
            "running" => collector.add_by_facts(run, Does::Run),
            // A Repository without runs, or a run that is over: neither has a place to lose.
            _ => {}
        }
    }
    collector.finish()
}

/// Whether a key belongs to the layout, so that its removal is part of the migration.
#[must_use]
pub fn is_of_layout(source: LegacySource, key: &str) -> bool {
    let generation = match source {
        LegacySource::EtcdV1 => Generation::First,
        LegacySource::EtcdV2 => Generation::Second,
        _ => return false,
    };
    !matches!(meaning(generation, key), Meaning::Foreign(_))
}

/// The generations that have written some of these keys, the first one first. Leases alone are
/// taken for those of the second.
#[must_use]
pub fn etcd_generations<'a>(keys: impl Iterator<Item = &'a str>) -> Vec<LegacySource> {
    let (mut first, mut second, mut either) = (false, false, false);
    for key in keys {
        match (
            meaning(Generation::First, key),
            meaning(Generation::Second, key),
        ) {
            (Meaning::Foreign(_), Meaning::Foreign(_)) => {}
            (Meaning::Foreign(_), _) => second = true,
            // The second has no key beside a lease.
            (_, Meaning::Foreign(_)) | (Meaning::Nothing, Meaning::Nothing) => first = true,
            _ => either = true,
        }
    }
    second |= either && !first;
    let found = [
        (first, LegacySource::EtcdV1),
        (second, LegacySource::EtcdV2),
    ];
    let found = found.into_iter().filter(|(is_there, _)| *is_there);
    found.map(|(_, source)| source).collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Generation {
    First,
    Second,
}

#[derive(Debug, PartialEq, Eq)]
enum Meaning {
    Lease(RepositoryKey, PipelineRunKey),
    Queue(RepositoryKey, PipelineRunKey),
    /// Of a run; in the second generation perhaps of a Repository.
    State(PipelineRunKey),
    /// Beside a lease, or of a Repository: nothing to bring along.
    Nothing,
    Foreign(String),
}

/// The segments decide, not the last word: a run may be called `info`, a namespace `pr`.
fn meaning(generation: Generation, key: &str) -> Meaning {
    let checked = |found: Result<Meaning, InvalidValue>| {
        found.unwrap_or_else(|invalid| Meaning::Foreign(invalid.to_string()))
    };
    let both = |a: &str, b: &str, c: &str, d: &str| {
        Ok((RepositoryKey::new(a, b)?, PipelineRunKey::new(c, d)?))
    };
    let foreign = || {
        let why = "no key of this layout: migrate the other generation as well, or delete it";
        Meaning::Foreign(why.to_owned())
    };
    if let Some(rest) = key.strip_prefix(LEASES) {
        return match rest.split('/').collect::<Vec<_>>().as_slice() {
            [a, b, c, d] => checked(both(a, b, c, d).map(|(r, run)| Meaning::Lease(r, run))),
            [_, _, _, _, "info"] => Meaning::Nothing,
            _ => foreign(),
        };
    }
    let Some(rest) = key.strip_prefix(CONCURRENCY) else {
        return foreign();
    };
    let segments: Vec<_> = rest.split('/').collect();
    match (generation, segments.as_slice()) {
        (Generation::First, ["pr", namespace, name, "state"]) => {
            checked(PipelineRunKey::new(namespace, name).map(Meaning::State))
        }
        (Generation::First, [_, _, "state"]) => Meaning::Nothing,
        (Generation::Second, [a, b, "queue", c, d]) => {
            checked(both(a, b, c, d).map(|(r, run)| Meaning::Queue(r, run)))
        }
        (Generation::Second, [namespace, name, "state"]) => {
            checked(PipelineRunKey::new(namespace, name).map(Meaning::State))
        }
        _ => foreign(),
    }
}

/// The keys by their meaning, each kind in the order of creation.
#[derive(Debug, Default)]
struct Parsed {
    leases: Vec<(RepositoryKey, PipelineRunKey)>,
    queue: Vec<(RepositoryKey, PipelineRunKey)>,
    states: Vec<(PipelineRunKey, String)>,
}

impl Parsed {
    fn of(generation: Generation, keys: &[LegacyKey], collector: &mut Collector<'_>) -> Self {
        let mut keys: Vec<_> = keys.iter().collect();
        keys.sort_by(|a, b| (a.created, &a.key).cmp(&(b.created, &b.key)));
        let mut parsed = Self::default();
        for key in keys {
            match meaning(generation, &key.key) {
                Meaning::Lease(repository, run) => parsed.leases.push((repository, run)),
                Meaning::Queue(repository, run) => parsed.queue.push((repository, run)),
                Meaning::State(run) => parsed.states.push((run, key.value.trim().to_owned())),
                Meaning::Nothing => {}
                Meaning::Foreign(why) => collector.leave(LeftOut::open(&key.key, why)),
            }
        }
        parsed
    }

    fn leased(&self) -> BTreeSet<&PipelineRunKey> {
        self.leases.iter().map(|(_, run)| run).collect()
    }

    /// A lease that is there although the run's own state is final was not given back.
    fn add_leased(
        &self,
        collector: &mut Collector<'_>,
        repository: &RepositoryKey,
        run: &PipelineRunKey,
        states: &BTreeMap<PipelineRunKey, String>,
    ) {
        match states.get(run) {
            Some(state) if is_final(state) => collector.leave(over_or_unknown(run, state)),
            _ => collector.add(repository, run, Does::Run, None),
        }
    }
}

fn over_or_unknown(run: &PipelineRunKey, state: &str) -> LeftOut {
    if is_final(state) {
        return LeftOut::over(run.as_str(), format!("it has ended: its state is {state}"));
    }
    let state: String = state.chars().take(40).collect();
    let why = format!("its state {state:?} is none of this layout: delete it if the run is gone");
    LeftOut::open(run.as_str(), why)
}

#[cfg(test)]
#[path = "etcd_tests.rs"]
mod tests;
