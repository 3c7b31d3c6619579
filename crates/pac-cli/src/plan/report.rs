//! The plan in words: what becomes of each run, and why.

use std::collections::HashMap;
use std::fmt;

use pac_concurrency::{FinishedRun, QueuedRun, RepositoryKey, RunOutcome, RunningRun};
use pac_pipelines::integration::{EffectiveLimit, GlobalLimit, Phase};
use pac_pipelines::model::{RepositoryView, RunView, SpecStatus};
use pac_pipelines::policy::Policies;
use pac_pipelines::{UnreadableObject, vocabulary};

use super::decision::Decision;
use super::manifests::{Manifests, Problem, Run};
use super::order::{self, Order};
use crate::why::{self, Waiting};

/// Everything that is printed.
#[derive(Debug)]
pub(super) struct Report<'a> {
    /// In the order of their names.
    pub(super) repositories: Vec<Queue<'a>>,
    /// The runs of no Repository that is known, as they are written.
    pub(super) elsewhere: Vec<Line<'a>>,
    pub(super) unreadable: &'a [Problem],
    pub(super) warnings: &'a [Problem],
    /// Objects of other kinds.
    pub(super) others: usize,
}

/// A Repository and its runs: those that run first, then those that start, then those that wait,
/// each in their order, then the others as they are written.
#[derive(Debug)]
pub(super) struct Queue<'a> {
    pub(super) repository: RepositoryKey,
    pub(super) limit: LimitOf<'a>,
    pub(super) runs: Vec<Line<'a>>,
}

/// The limit in force, and whose it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LimitOf<'a> {
    Own(u32),
    Global(u32, &'a RepositoryKey),
    None,
    /// The manifest that has it cannot be understood.
    Unknown,
}

/// A run, and what becomes of it.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) run: &'a Run,
    pub(super) fate: Fate,
    pub(super) reason: String,
    /// For those that want a slot.
    pub(super) order: Option<Order>,
}

/// What becomes of a run. In the order in which they are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// It runs, and is counted. With its place among those that run.
    Runs(usize),
    /// It starts. With its place among those that run then.
    Starts(usize),
    /// It waits. 1 is next.
    Queued(usize),
    /// It never starts.
    Cancelled,
    /// It has ended.
    Ended,
    /// Its user holds it back.
    HeldByUser,
    /// Another controller decides about it.
    LeftAlone,
    /// It takes more slots than there are: it stays held back.
    TooHeavy,
    /// Nothing is started while the limit cannot be understood.
    LimitUnknown,
    /// It belongs to no Repository that is known.
    NoRepository,
}

impl<'a> Report<'a> {
    pub(super) fn of(
        manifests: &'a Manifests,
        decision: &Decision,
        global: &'a RepositoryKey,
    ) -> Self {
        let mut by_repository: HashMap<RepositoryKey, Vec<&Run>> = HashMap::new();
        let mut elsewhere = Vec::new();
        let unreadable = unreadable_repositories(manifests);
        let is_known = |key: &RepositoryKey| {
            manifests.repositories.contains_key(key) || unreadable.contains(&key)
        };
        for run in &manifests.runs {
            match run.view.repository() {
                Some(key) if is_known(&key) => by_repository.entry(key).or_default().push(run),
                other => elsewhere.push(stray(run, other)),
            }
        }
        let known = manifests
            .repositories
            .keys()
            .chain(unreadable.iter().copied());
        let mut keys: Vec<_> = known.collect();
        keys.sort();
        keys.dedup();
        let repositories = keys.into_iter().map(|key| {
            let limit = limit_of(manifests, &unreadable, key, global);
            let runs = by_repository.remove(key).unwrap_or_default();
            Queue {
                repository: key.clone(),
                limit,
                runs: lines(runs, decision, manifests.repositories.get(key), limit),
            }
        });
        Self {
            repositories: repositories.collect(),
            elsewhere,
            unreadable: &manifests.unreadable,
            warnings: &manifests.warnings,
            others: manifests.others,
        }
    }

    /// Whether there is neither a Repository nor a run.
    pub(super) fn is_empty(&self) -> bool {
        self.repositories.is_empty() && self.elsewhere.is_empty() && self.unreadable.is_empty()
    }
}

impl LimitOf<'_> {
    /// How many runs at once; `None` for no limit or an unknown one.
    pub(super) fn runs(self) -> Option<u32> {
        match self {
            Self::Own(runs) | Self::Global(runs, _) => Some(runs),
            Self::None | Self::Unknown => None,
        }
    }
}

impl Queue<'_> {
    /// How many of its runs have a fate.
    pub(super) fn count(&self, of: impl Fn(Fate) -> bool) -> usize {
        self.runs.iter().filter(|line| of(line.fate)).count()
    }
}

fn unreadable_repositories(manifests: &Manifests) -> Vec<&RepositoryKey> {
    let objects = manifests.unreadable_objects.iter();
    let keys = objects.filter_map(|unreadable| match &unreadable.object {
        UnreadableObject::Repository(key) => Some(key),
        _ => None,
    });
    keys.collect()
}

fn limit_of<'a>(
    manifests: &Manifests,
    unreadable: &[&RepositoryKey],
    key: &RepositoryKey,
    global: &'a RepositoryKey,
) -> LimitOf<'a> {
    let Some(view) = manifests
        .repositories
        .get(key)
        .filter(|_| !unreadable.contains(&key))
    else {
        return LimitOf::Unknown;
    };
    if view.limit.is_none() && unreadable.contains(&global) {
        return LimitOf::Unknown;
    }
    let mut inherited = GlobalLimit::default();
    inherited.limit = manifests
        .repositories
        .get(global)
        .and_then(|view| view.limit);
    match EffectiveLimit::of(view, inherited).limit.get() {
        None => LimitOf::None,
        Some(runs) if view.limit.is_some() => LimitOf::Own(runs),
        Some(runs) => LimitOf::Global(runs, global),
    }
}

/// A run of no Repository that is known.
fn stray(run: &Run, repository: Option<RepositoryKey>) -> Line<'_> {
    let name = vocabulary::REPOSITORY;
    let reason = match repository {
        Some(key) => format!("its Repository {key} is not in these manifests"),
        None => format!("names no Repository ({name})"),
    };
    Line {
        run,
        fate: Fate::NoRepository,
        reason,
        order: None,
    }
}

fn lines<'a>(
    runs: Vec<&'a Run>,
    decision: &Decision,
    repository: Option<&RepositoryView>,
    limit: LimitOf<'_>,
) -> Vec<Line<'a>> {
    let status = repository.and_then(|view| decision.repositories.get(&view.key));
    let limited = !matches!(limit, LimitOf::None);
    let wants_slot = |run: &&Run| Phase::of(&run.view, limited) == Phase::Held;
    let wanting: Vec<_> = runs.iter().copied().filter(wants_slot).collect();
    let mut orders = order::reasons(&wanting);
    let running = status.into_iter().flat_map(|status| &status.running);
    let running: HashMap<_, _> = running
        .scan(0, |taken, run| Some((&run.run, Slots::after(taken, run))))
        .collect();
    let finished = status.into_iter().flat_map(|status| &status.finished);
    let finished: HashMap<_, _> = finished.map(|run| (&run.run, run)).collect();
    let queued = status.into_iter().flat_map(|status| &status.queued);
    let queued: HashMap<_, _> = queued.map(|run| (&run.run, run)).collect();
    let mut lines: Vec<_> = runs
        .into_iter()
        .map(|run| {
            let key = &run.view.key;
            let (fate, reason) = match (running.get(key), queued.get(key)) {
                (Some(slots), _) if decision.has_started(key) => starts(slots, limit),
                (Some(slots), _) => runs_already(slots, limit),
                (None, Some(queued)) => waits(queued),
                (None, None) => refused(&run.view, repository, finished.get(key).copied(), limit)
                    .unwrap_or_else(|| apart(run, limited, decision)),
            };
            let order = orders
                .remove(key)
                .filter(|_| fate <= Fate::Queued(usize::MAX));
            Line {
                run,
                fate,
                reason,
                order,
            }
        })
        .collect();
    // Stable: the others stay as they are written.
    lines.sort_by_key(|line| line.fate);
    lines
}

/// The slots of a run, counted in the order of the grants.
struct Slots {
    first: usize,
    last: usize,
    /// It was asked to end.
    asked: bool,
}

impl Slots {
    fn after(taken: &mut usize, run: &RunningRun) -> Self {
        let first = *taken + 1;
        *taken += usize::from(run.terms().weight.get());
        Self {
            first,
            last: *taken,
            asked: run.terms().asked.at().is_some(),
        }
    }
}

impl fmt::Display for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { first, last, .. } = self;
        if first == last {
            write!(f, "slot {first}")
        } else {
            write!(f, "slots {first} to {last}")
        }
    }
}

fn starts(slots: &Slots, limit: LimitOf<'_>) -> (Fate, String) {
    let reason = match limit.runs() {
        Some(limit) => format!("{slots} of {limit}"),
        None => "no limit".to_owned(),
    };
    (Fate::Starts(slots.last), reason)
}

fn runs_already(slots: &Slots, limit: LimitOf<'_>) -> (Fate, String) {
    let mut reason = match limit.runs() {
        Some(limit) if u32::try_from(slots.last).is_ok_and(|last| last <= limit) => {
            format!("counted: {slots} of {limit}")
        }
        Some(limit) => format!("counted, beyond the limit of {limit}"),
        None => "counted".to_owned(),
    };
    if slots.asked {
        reason.push_str("; a newer run of its group has it cancelled");
    }
    (Fate::Runs(slots.last), reason)
}

/// A run that was ended as it waited, or does not get in.
fn refused(
    view: &RunView,
    repository: Option<&RepositoryView>,
    finished: Option<&FinishedRun>,
    limit: LimitOf<'_>,
) -> Option<(Fate, String)> {
    match finished.map(|run| (run.outcome, &run.terms().group)) {
        Some((RunOutcome::Superseded, Some(group))) => {
            let reason = format!("a newer run of its group {group} takes its place");
            return Some((Fate::Cancelled, reason));
        }
        Some((RunOutcome::QueueFull, _)) => {
            let reason = "as many wait as may".to_owned();
            return Some((Fate::Cancelled, reason));
        }
        _ => {}
    }
    let weight = Policies::of(view, repository).weight;
    let limit = limit.runs()?;
    let too_heavy = Phase::of(view, true) == Phase::Held && u32::from(weight.get()) > limit;
    too_heavy.then(|| {
        let reason = format!("takes {weight} slots, and the limit is {limit}");
        (Fate::TooHeavy, reason)
    })
}

fn waits(run: &QueuedRun) -> (Fate, String) {
    let waiting = Waiting {
        weight: run.terms().weight,
        by_slots: false,
    };
    (
        Fate::Queued(run.position),
        why::reason(&run.reason, waiting),
    )
}

/// A run that has neither a slot nor a place.
fn apart(run: &Run, limited: bool, decision: &Decision) -> (Fate, String) {
    let view = &run.view;
    match Phase::of(view, limited) {
        Phase::Done(outcome) => (Fate::Ended, ended(outcome)),
        Phase::Ending { .. } if decision.asked.ended.contains(&view.key) => {
            let status = view.spec_status.as_str();
            let reason = format!("{status} before its start; no `finally` tasks");
            (Fate::Cancelled, reason)
        }
        Phase::Ending { .. } if view.spec_status.is_cancel() => {
            let status = view.spec_status.as_str();
            (Fate::Cancelled, format!("{status} before its start"))
        }
        Phase::Ending { .. } => (Fate::Cancelled, "deleted before its start".to_owned()),
        Phase::Held if decision.asked.ended.contains(&view.key) => {
            let reason = "a newer run of its group takes its place";
            (Fate::Cancelled, reason.to_owned())
        }
        Phase::HeldByUser => {
            let reason = "PipelineRunPending, and not marked as queued";
            (Fate::HeldByUser, reason.to_owned())
        }
        Phase::LeftAlone => (Fate::LeftAlone, foreign(view)),
        _ => {
            let reason = "the limit cannot be understood: nothing starts until it can";
            (Fate::LimitUnknown, reason.to_owned())
        }
    }
}

fn ended(outcome: RunOutcome) -> String {
    match outcome {
        RunOutcome::Completed => "succeeded".to_owned(),
        outcome => outcome.to_string(),
    }
}

fn foreign(view: &RunView) -> String {
    if let Some(queue) = view.label(vocabulary::KUEUE_QUEUE) {
        return format!("waits in Kueue's queue {queue}");
    }
    match (&view.managed_by, &view.spec_status) {
        (Some(manager), _) if view.is_foreign() => format!("spec.managedBy is {manager}"),
        (_, SpecStatus::Unknown(status)) => format!("spec.status is {status}, which is not known"),
        _ => "another controller's".to_owned(),
    }
}
