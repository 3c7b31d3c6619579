//! What a copy has to do: the state of a repository in the source beside that in the target.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::report::{Action, MigratedRepository, MigratedRun};
use crate::name::RepositoryKey;
use crate::state::{Entry, EntryState, Head, Policy, RepositoryState, RunKind};
use crate::value::{FencingToken, Ticket};

/// One repository in both stores.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    source: &'a RepositoryState,
    target: &'a RepositoryState,
    /// The tickets of copied runs whose places newer runs of their groups have taken in the target: such a
    /// run bears the ticket of the one that it superseded.
    passed_on: BTreeSet<Ticket>,
}

impl<'a> Comparison<'a> {
    pub(super) fn of(source: &'a RepositoryState, target: &'a RepositoryState) -> Self {
        let mut new = Self {
            source,
            target,
            passed_on: BTreeSet::new(),
        };
        let news = target.entries().filter(|there| !new.is_copied(there));
        let news: BTreeMap<_, _> = news.map(|there| (there.ticket, there)).collect();
        if news.is_empty() {
            return new;
        }
        let mut places: BTreeMap<Ticket, Vec<&Entry>> = BTreeMap::new();
        for entry in source.entries() {
            places.entry(entry.ticket).or_default().push(entry);
        }
        let passed_on = places.iter().filter(|(ticket, had)| {
            let there = news.get(ticket);
            there.is_some_and(|there| new.is_passed_on(had, there))
        });
        new.passed_on = passed_on.map(|(ticket, _)| *ticket).collect();
        new
    }

    /// What is to be done about each run, and what forbids to do it.
    pub(super) fn report(&self, key: &RepositoryKey) -> MigratedRepository {
        let runs: Vec<_> = self
            .in_order()
            .into_iter()
            .map(|entry| MigratedRun {
                run: entry.run.clone(),
                action: self.action(entry),
                remark: None,
            })
            .collect();
        let mut problems: Vec<_> = runs
            .iter()
            .filter(|run| run.action == Action::Conflict)
            .map(|run| format!("another run named {} is there", run.run))
            .collect();
        let live = self.source.entries().filter(|entry| !entry.is_finished());
        let own = live
            .filter(|entry| entry.kind == RunKind::Ephemeral)
            .count();
        if own > 0 {
            problems.push(format!(
                "{own} runs of `pac exec` are live in the source: wait until they have ended, or cancel \
                 them, and run this again"
            ));
        }
        if self.has_state_of_its_own() {
            problems.push(format!(
                "the target has a state of its own of this repository: keep that one, or remove it with \
                 `pac cleanup {key}`, and run this again"
            ));
        }
        MigratedRepository {
            repository: key.clone(),
            limit: self.head().limit,
            limit_is_provisional: false,
            runs,
            problems,
            source: self.source.head().revision,
        }
    }

    /// The runs that are to be written, in an order in which any number of them can be: a place is given
    /// up in the target before another run takes it.
    pub(super) fn to_write(&self) -> Vec<&'a Arc<Entry>> {
        let mut entries = self.in_order();
        entries.retain(|entry| self.action(entry) != Action::Present);
        entries.sort_by_key(|entry| {
            let there = self.target.entry(&entry.run);
            !(entry.is_finished() && there.is_some_and(|there| !there.is_finished()))
        });
        entries
    }

    /// The head that the target gets, but for the counts.
    pub(super) fn head(&self) -> Head {
        let (from, to) = (self.source.head(), self.target.head());
        let counted_on = to.last_ticket > from.last_ticket || to.last_token > from.last_token;
        let goes_on = self.target.exists() && (counted_on || self.has_gone_on());
        let rules_of = if goes_on || self.has_newer_rules() {
            to
        } else {
            from
        };
        let pause_of = if goes_on { to } else { from };
        let policy_of = |head: &Head| head.policy.as_deref().cloned().unwrap_or_default();
        let (known, counted) = (policy_of(from), policy_of(to));
        // Where it is too small, a manager looks at the repository in vain; too large, and none does.
        let needs = match self.target.exists() {
            true => known.needs.min(counted.needs),
            false => known.needs,
        };
        let policy = Policy {
            pause: pause_of.pause().cloned(),
            needs,
            // Counted with the entries that are written.
            surplus: counted.surplus,
            timed: counted.timed,
            ..policy_of(rules_of)
        };
        let has_policy = from.policy.is_some() || to.policy.is_some();
        Head {
            limit: rules_of.limit,
            limit_version: rules_of.limit_version,
            last_ticket: from.last_ticket.max(to.last_ticket),
            last_token: from.last_token.max(to.last_token),
            policy: has_policy.then(|| Arc::new(policy)),
            ..to.clone()
        }
    }

    /// What is not as it should be in the target, as it was read back.
    pub(super) fn problems(&self, key: &RepositoryKey) -> Vec<String> {
        let now = self.report(key);
        let mut problems = now.problems;
        let missing = now.runs.iter().filter(|run| {
            let is_kept = run.action == Action::Present;
            // The store lets finished runs go by its own rules.
            !is_kept && run.action != Action::Record
        });
        problems.extend(missing.map(|run| format!("{} is not there: run this again", run.run)));
        let (from, to) = (self.source.head(), self.target.head());
        if to.last_ticket < from.last_ticket || to.last_token < from.last_token {
            problems.push("its counters are behind those of the source: run this again".to_owned());
        }
        // What has gone on in the target, and was changed there since, is not in question.
        if !self.has_gone_on() {
            let differs = "set it alike in both stores, and run this again";
            if !self.has_newer_rules() && !has_same_rules(from, to) {
                problems.push(format!(
                    "its limit or a rule beside it is another one: {differs}"
                ));
            }
            if from.pause() != to.pause() {
                problems.push(format!("its pause is another one: {differs}"));
            }
        }
        let places: BTreeMap<_, _> = self
            .target
            .queue()
            .map(|entry| &entry.run)
            .zip(0_usize..)
            .collect();
        let order: Vec<_> = self
            .source
            .queue()
            .filter_map(|entry| places.get(&entry.run))
            .collect();
        if !order.is_sorted() {
            problems.push("its queue is not in the order of the source".to_owned());
        }
        problems
    }

    fn action(&self, entry: &Entry) -> Action {
        let new = match entry.state {
            EntryState::Queued { .. } => Action::Enqueue,
            EntryState::Started { .. } => Action::Adopt,
            EntryState::Finished { .. } => Action::Record,
        };
        match self.target.entry(&entry.run) {
            Some(there) if is_same(entry, there) => {
                if progress(there) < progress(entry) {
                    new
                } else {
                    Action::Present
                }
            }
            // Superseded in the target, which has forgotten it since.
            _ if self.passed_on.contains(&entry.ticket) => Action::Present,
            None => new,
            Some(there) if self.is_newer(there) => Action::Present,
            Some(_) => Action::Conflict,
        }
    }

    /// Whether the target was used for this repository before it was copied: tickets and tokens of
    /// two histories cannot be told apart.
    fn has_state_of_its_own(&self) -> bool {
        if !self.target.exists() {
            return false;
        }
        let tickets: BTreeSet<_> = self.source.entries().map(|entry| entry.ticket).collect();
        let foreign = |there: &Arc<Entry>| {
            let is_known = self.is_copied(there) || self.is_newer(there);
            !is_known && (tickets.contains(&there.ticket) || !there.is_finished())
        };
        let is_shared =
            tickets.is_empty() || self.target.entries().any(|there| self.is_copied(there));
        !is_shared || self.target.entries().any(foreign)
    }

    fn is_copied(&self, there: &Entry) -> bool {
        let known = self.source.entry(&there.run);
        known.is_some_and(|entry| is_same(entry, there))
    }

    /// Whether a run of the target, which is none of the source's, came after the copy.
    fn is_newer(&self, there: &Entry) -> bool {
        there.ticket > self.source.head().last_ticket || self.passed_on.contains(&there.ticket)
    }

    /// Whether a run of the target took its place after the copy from those that `had` it in the source.
    fn is_passed_on(&self, had: &[&Entry], there: &Entry) -> bool {
        let copied = |entry: &&Entry| {
            let copy = self.target.entry(&entry.run);
            copy.filter(|copy| is_same(entry, copy))
        };
        let succeeds = |entry: &&Entry| entry.group().is_some() && entry.group() == there.group();
        // One that still lives in the source was copied, and ended in the target: where it has no record,
        // it must not be a newer one that has superseded a copied one in the source.
        let ended = |entry: &&Entry| match copied(entry) {
            Some(copy) => copy.is_finished(),
            None => entry.is_finished() || !had.iter().any(|other| copied(other).is_some()),
        };
        had.iter().all(|entry| succeeds(entry) && ended(entry))
    }

    /// Whether the target has runs that came, or were started, after the copy.
    fn has_gone_on(&self) -> bool {
        let last = Some(self.source.head().last_token);
        let mut entries = self.target.entries();
        entries.any(|there| self.is_newer(there) || there.token() > last)
    }

    /// Whether newer rules were announced in the target.
    fn has_newer_rules(&self) -> bool {
        self.target.head().limit_version > self.source.head().limit_version
    }

    /// Running runs by their tokens, waiting ones in their order, finished ones by their end.
    fn in_order(&self) -> Vec<&'a Arc<Entry>> {
        let entries = || self.source.entries();
        let mut running: Vec<_> = entries().filter(|entry| entry.is_started()).collect();
        running.sort_by_key(|entry| entry.token());
        let mut finished: Vec<_> = entries().filter(|entry| entry.is_finished()).collect();
        finished.sort_by_key(|entry| (entry.finished.at(), entry.ticket));
        running
            .into_iter()
            .chain(self.source.queue())
            .chain(finished)
            .collect()
    }
}

fn is_same(entry: &Entry, there: &Entry) -> bool {
    entry.uid == there.uid && entry.ticket == there.ticket
}

/// How far a run has come. (One that was given back in the source after it had been copied keeps
/// the slot that it had then, until the lease TTL has passed.)
fn progress(entry: &Entry) -> (u8, Option<FencingToken>) {
    let stage = match entry.state {
        EntryState::Queued { .. } => 0,
        EntryState::Started { .. } => 1,
        EntryState::Finished { .. } => 2,
    };
    (stage, entry.token())
}

fn has_same_rules(one: &Head, other: &Head) -> bool {
    let beneath = |head: &Head| {
        let policy = head.policy.as_deref();
        policy.and_then(|policy| policy.beneath.clone())
    };
    (one.rules(), one.owner(), beneath(one)) == (other.rules(), other.owner(), beneath(other))
}
