//! The protocol and the commit loop keep their invariants in every behaviour, and the model
//! check finds each mistake.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says how many states there are"
)]

use std::sync::Arc;

use pac_conformance::model::{Variant, check, suite};
use pac_conformance::{Production, Rules};
use pac_core::FencingToken;
use pac_core::protocol::{Changes, Command, Issuer, Outcome};
use pac_core::state::{Entry, EntryState, RepositoryState};

mod document;

#[test]
fn production_holds_in_every_behaviour() {
    let verdicts: Vec<_> = suite()
        .iter()
        .map(|scenario| check(Production, Variant::Faithful, scenario, 2))
        .inspect(|verdict| println!("{verdict}"))
        .collect();
    let states: usize = verdicts.iter().map(|verdict| verdict.unique_states).sum();
    println!("{states} states in {} scenarios", verdicts.len());
    for verdict in &verdicts {
        assert!(verdict.is_clean(), "{verdict}\n{}", verdict.trace);
    }
    let rows = verdicts
        .iter()
        .map(|verdict| format!("| {} | {} |\n", verdict.scenario, verdict.unique_states));
    let rows: String = rows.collect();
    document::holds(
        "states",
        &format!("| Scenario | States |\n| --- | ---: |\n{rows}| all | {states} |\n"),
    );
}

#[test]
fn every_mistake_is_caught() {
    let loops = Variant::MUTANTS.map(|(name, breaks, variant)| {
        row(
            name,
            "commit loop",
            breaks,
            &caught(Production, variant, shown_by(variant)),
        )
    });
    let rules = Mistake::ALL.map(|(name, breaks, scenario, mistake)| {
        row(
            name,
            "rules",
            breaks,
            &caught(Wrong(mistake), Variant::Faithful, scenario),
        )
    });
    let rows: String = loops.into_iter().chain(rules).collect();
    let head = "| Mutant | Level | What is broken | Caught by |\n| --- | --- | --- | --- |\n";
    document::holds("model mutants", &format!("{head}{rows}"));
}

fn row(name: &str, level: &str, breaks: &str, caught: &str) -> String {
    format!("| `{name}` | {level} | {breaks} | {caught} |\n")
}

/// A small scenario in which the mistake breaks an invariant.
fn shown_by(variant: Variant) -> &'static str {
    match variant {
        Variant::Faithful => unreachable!("it has no mistake"),
        Variant::RetriesBlindly => "a lost answer",
        Variant::TakesLostForFailed => "two lost answers",
        Variant::CommitsUnconditionally
        | Variant::AnswersConflictsFromThePlan
        | Variant::HandsOverOnlyWhenFresh => "contention of three",
        Variant::GrantsUnchecked | Variant::ForgetsTheDead | Variant::DropsGrants => "a crash",
        Variant::ReusesItsSession | Variant::AnswersFromTheCache => "two crashes",
        Variant::ForgetsItsWaiters | Variant::ForgetsLateWaiters => "a lapse without controllers",
        Variant::PlansForTheDead => "a crash with ephemeral runs",
    }
}

/// The invariants that the shortest violation in this scenario breaks. One thread searches in
/// the same order each time, so that the same violation is found first.
fn caught(rules: impl Rules, variant: Variant, scenario: &str) -> String {
    let mut suite = suite().into_iter();
    let scenario = suite.find(|known| known.name == scenario).unwrap();
    let what = format!("{rules:?}, {variant:?}");
    let verdict = check(rules, variant, &scenario, 1);
    println!("{what}: {verdict}");
    assert!(
        !verdict.violated.is_empty(),
        "{what} is not caught: {verdict}"
    );
    format!("{}: {}", verdict.scenario, verdict.violated.join(", "))
}

/// The production rules with a mistake.
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

impl Mistake {
    /// The name of each mistake, what it breaks, and a small scenario that shows it.
    const ALL: [(&str, &str, &str, Self); 5] = [
        (
            "release-by-any-token",
            "a release does not look at the token",
            "back to the queue",
            Self::ReleasesByAnyToken,
        ),
        (
            "latest-first",
            "a hand-over starts the last of the queue",
            "contention of three",
            Self::PromotesTheLatest,
        ),
        (
            "cancel-without-hand-over",
            "a cancelled run's slot is left to whoever comes next",
            "a run adopted",
            Self::CancelsWithoutHandOver,
        ),
        (
            "grants-to-itself",
            "a hand-over goes to whoever released",
            "contention of three",
            Self::GrantsToItself,
        ),
        (
            "tokens-repeated",
            "a hand-over carries the last token once more",
            "contention of three",
            Self::RepeatsTokens,
        ),
    ];
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

/// The waiting runs that a commit starts, with their entries before.
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
