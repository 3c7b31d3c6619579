//! The protocol and the commit loop hold in every behaviour, and the check finds what does not.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says how many states there are"
)]

use std::sync::Arc;

use pac_conformance::model::{Invariant, Variant, check, suite};
use pac_conformance::{Production, Rules};
use pac_core::FencingToken;
use pac_core::protocol::{Changes, Command, Issuer, Outcome};
use pac_core::state::{Entry, EntryState, RepositoryState};

#[test]
fn production_holds_in_every_behaviour() {
    let verdicts: Vec<_> = suite()
        .iter()
        .map(|scenario| check(Production, Variant::Faithful, scenario, 2))
        .inspect(|verdict| println!("{verdict}"))
        .collect();
    let states: usize = verdicts.iter().map(|verdict| verdict.unique_states).sum();
    println!("{states} states in {} scenarios", verdicts.len());
    for verdict in verdicts {
        assert!(verdict.is_clean(), "{verdict}\n{}", verdict.trace);
    }
}

#[test]
fn every_commit_loop_with_a_mistake_is_caught() {
    for variant in Variant::MUTANTS {
        let (scenario, invariant) = match variant {
            Variant::Faithful => unreachable!("it has no mistake"),
            Variant::RetriesBlindly => ("a lost answer", Invariant::UnknownIsNotFailed),
            Variant::TakesLostForFailed => ("two lost answers", Invariant::UnknownIsNotFailed),
            Variant::CommitsUnconditionally => ("contention of three", Invariant::Fencing),
            Variant::AnswersConflictsFromThePlan => {
                ("contention of three", Invariant::UnknownIsNotFailed)
            }
            Variant::GrantsUnchecked => ("a crash", Invariant::LivingOwners),
            Variant::ForgetsTheDead => ("a crash", Invariant::NoIdleSlot),
            Variant::ReusesItsSession => ("two crashes", Invariant::NoIdleSlot),
            Variant::HandsOverOnlyWhenFresh => ("contention of three", Invariant::NoIdleSlot),
            Variant::AnswersFromTheCache => ("two crashes", Invariant::AnswersAreCurrent),
            Variant::ForgetsItsWaiters | Variant::ForgetsLateWaiters => {
                ("a lapse without controllers", Invariant::NoIdleSlot)
            }
            Variant::PlansForTheDead => ("a crash with ephemeral runs", Invariant::ComesToRest),
            Variant::DropsGrants => ("a crash", Invariant::NoIdleSlot),
        };
        is_caught(
            &format!("{variant:?}"),
            Production,
            variant,
            scenario,
            invariant,
        );
    }
}

#[test]
fn every_rule_with_a_mistake_is_caught() {
    for (mistake, scenario, invariant) in [
        (
            Mistake::ReleasesByAnyToken,
            "back to the queue",
            Invariant::Fencing,
        ),
        (
            Mistake::PromotesTheLatest,
            "contention of three",
            Invariant::Order,
        ),
        (
            Mistake::CancelsWithoutHandOver,
            "a run adopted",
            Invariant::NoIdleSlot,
        ),
        (
            Mistake::GrantsToItself,
            "contention of three",
            Invariant::LivingOwners,
        ),
        (
            Mistake::RepeatsTokens,
            "contention of three",
            Invariant::Fencing,
        ),
    ] {
        let rules = Wrong(mistake);
        is_caught(
            &format!("{mistake:?}"),
            rules,
            Variant::Faithful,
            scenario,
            invariant,
        );
    }
}

/// One thread goes the same way each time, so that the same violation comes first.
fn is_caught(
    what: &str,
    rules: impl Rules,
    variant: Variant,
    scenario: &str,
    invariant: Invariant,
) {
    let mut suite = suite().into_iter();
    let scenario = suite.find(|known| known.name == scenario).unwrap();
    let verdict = check(rules, variant, &scenario, 1);
    println!("{what}: {verdict}");
    assert!(
        verdict.violated.contains(&invariant.name()),
        "{what}: {verdict}"
    );
}

/// Production with a mistake.
#[derive(Debug)]
struct Wrong(Mistake);

#[derive(Debug, Clone, Copy)]
enum Mistake {
    ReleasesByAnyToken,
    PromotesTheLatest,
    CancelsWithoutHandOver,
    GrantsToItself,
    RepeatsTokens,
}

impl Rules for Wrong {
    fn apply(
        &self,
        state: &RepositoryState,
        issuer: Issuer,
        command: &Command,
    ) -> (Outcome, Option<Changes>) {
        let mut command = command.clone();
        if let (Mistake::ReleasesByAnyToken, Command::Release { token, .. }) =
            (self.0, &mut command)
        {
            *token = None;
        }
        let (outcome, mut changes) = Production.apply(state, issuer, &command);
        if let Some(changes) = &mut changes {
            match (self.0, &command) {
                (Mistake::PromotesTheLatest, _) => promote_the_latest(state, changes),
                (Mistake::CancelsWithoutHandOver, Command::Cancel { .. }) => {
                    take_grants_out(state, changes);
                }
                (Mistake::GrantsToItself, Command::Release { .. }) => {
                    for (entry, _) in grants(state, changes) {
                        if let EntryState::Started { session, .. } = &mut entry.state {
                            *session = issuer.session;
                        }
                    }
                }
                (Mistake::RepeatsTokens, Command::Release { .. }) => {
                    let last = state.head().last_token;
                    for (entry, _) in grants(state, changes) {
                        if let EntryState::Started { token, .. } = &mut entry.state {
                            *token = FencingToken::new(last.get());
                        }
                    }
                    changes.head.last_token = last;
                }
                _ => {}
            }
        }
        (outcome, changes)
    }
}

/// The waiters that a commit starts, and what they were.
fn grants<'a>(
    state: &'a RepositoryState,
    changes: &'a mut Changes,
) -> impl Iterator<Item = (&'a mut Entry, &'a Arc<Entry>)> {
    changes.entries.iter_mut().filter_map(|entry| {
        let known = state.entry(&entry.run).filter(|known| known.is_queued())?;
        entry.is_started().then(|| (Arc::make_mut(entry), known))
    })
}

fn promote_the_latest(state: &RepositoryState, changes: &mut Changes) {
    let Some(latest) = state.queue().last() else {
        return;
    };
    let session = latest.owner();
    for (entry, _) in grants(state, changes) {
        if let (
            EntryState::Started {
                token, orphaned, ..
            },
            Some(session),
        ) = (entry.state, session)
        {
            *entry = Entry {
                state: EntryState::Started {
                    token,
                    session,
                    orphaned,
                },
                ..Entry::clone(latest)
            };
            break;
        }
    }
}

fn take_grants_out(state: &RepositoryState, changes: &mut Changes) {
    let granted = grants(state, changes).map(|(entry, _)| entry.run.clone());
    let granted: Vec<_> = granted.collect();
    changes
        .entries
        .retain(|entry| !granted.contains(&entry.run));
    let count = u32::try_from(granted.len()).unwrap();
    changes.head.started -= count;
    changes.head.queued += count;
}
