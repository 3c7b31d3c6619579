//! Random commands against the pure protocol.

#[cfg(feature = "mutants")]
use std::{cell::RefCell, collections::BTreeSet};

use proptest::test_runner::{TestCaseError, TestError};
use proptest_state_machine::ReferenceStateMachine;

use super::book::Book;
use super::check::Check;
use super::invariants::Findings;
use super::search::{Failure, Search, shortest};
use super::steps::{Event, Step, Steps, World};
use crate::Rules;

/// The most steps of a sequence.
const STEPS: usize = 60;

/// Compares rules with the reference model and the invariants, over random commands of three
/// parties whose sessions die and are replaced.
///
/// # Errors
/// The first violation found, with as few steps as possible.
pub fn rules(rules: &dyn Rules, search: Search) -> Result<(), Failure> {
    let strategy = Steps::sequential_strategy(1..=STEPS);
    let run = search.runner().run(&strategy, |(world, steps, seen)| {
        let mut play = Play::new(rules, world);
        for step in &steps {
            if let Some(seen) = &seen {
                seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
            if let Some((check, what)) = play.take(step).into_iter().next() {
                return Err(TestCaseError::fail(format!("{check}: {what}")));
            }
        }
        Ok(())
    });
    let (world, steps) = match run {
        Ok(()) => return Ok(()),
        Err(TestError::Fail(_, (world, steps, _))) => (world, steps),
        Err(TestError::Abort(reason)) => panic!("no steps to try: {reason}"),
    };
    let play = |steps: &[Step]| {
        let mut play = Play::new(rules, world.clone());
        let found = steps
            .iter()
            .find_map(|step| play.take(step).into_iter().next());
        found.map(|found| (found, play.told))
    };
    let steps = shortest(steps, |steps| play(steps).is_some());
    let Some(((check, message), steps)) = play(&steps) else {
        panic!("the same steps show nothing wrong any more: the rules are not pure");
    };
    Err(Failure {
        check,
        message,
        steps,
        search,
    })
}

/// The checks that fail for these rules.
#[cfg(feature = "mutants")]
pub(crate) fn survey(rules: &dyn Rules, search: Search) -> BTreeSet<Check> {
    let strategy = Steps::sequential_strategy(1..=STEPS);
    let found = RefCell::new(BTreeSet::new());
    let run = search.runner().run(&strategy, |(world, steps, _)| {
        let mut play = Play::new(rules, world);
        for step in &steps {
            let findings = play.take(step);
            found
                .borrow_mut()
                .extend(findings.iter().map(|(check, _)| *check));
        }
        Ok(())
    });
    run.unwrap();
    found.into_inner()
}

/// One sequence of steps.
struct Play<'a> {
    book: Book<'a>,
    world: World,
    /// The rules and the model have reached different states: the model's answers no longer
    /// apply.
    apart: bool,
    /// The store has refused a commit: the sequence cannot continue.
    stuck: bool,
    told: Vec<String>,
}

impl<'a> Play<'a> {
    fn new(rules: &'a dyn Rules, world: World) -> Self {
        Self {
            book: Book::new(rules),
            world,
            apart: false,
            stuck: false,
            told: Vec::new(),
        }
    }

    fn take(&mut self, step: &Step) -> Findings {
        let Some(event) = self.world.event(step).filter(|_| !self.stuck) else {
            return Vec::new();
        };
        let expected = self.world.take(step);
        let Event::Asked(asker, ask) = event else {
            self.told.push(event.to_string());
            return Vec::new();
        };
        let (clock, dead) = (self.world.repository.clock, self.world.dead());
        let answer = self.book.ask(asker, &ask, (clock, &dead));
        let mut findings = self.book.findings();
        self.stuck = answer.is_none();
        let picture = self.book.picture();
        let answered = answer
            .as_ref()
            .map_or("refused".into(), |a| format!("{a:?}"));
        self.told
            .push(format!("{event}\n      -> {answered}\n      -> {picture}"));
        if self.apart || self.stuck {
            return findings;
        }
        if answer != expected {
            let expected = expected.map_or("nothing".into(), |answer| format!("{answer:?}"));
            findings.push((Check::Answer, format!("expected {expected}")));
        }
        let model = self.world.repository.clone().sorted();
        let queue: Vec<_> = model.queue().iter().map(|run| run.name).collect();
        let counts = (model.taken(), model.timed(), model.could_start());
        let same = picture == model && self.book.counts() == counts;
        if !same || self.book.queue() != queue {
            findings.push((Check::State, format!("expected {model}")));
            self.apart = true;
        }
        findings
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    use super::*;
    use crate::Production;

    /// A kind of answer that never occurs is never checked.
    #[test]
    fn every_kind_of_answer_is_met() {
        let met = RefCell::new(BTreeSet::new());
        let search = Search {
            seed: 3,
            cases: 300,
        };
        let strategy = Steps::sequential_strategy(1..=STEPS);
        let run = search.runner().run(&strategy, |(world, steps, _)| {
            let mut play = Play::new(&Production, world);
            for step in &steps {
                play.take(step);
            }
            let answers = play.told.iter().filter_map(|told| told.split("-> ").nth(1));
            let kind = |answer: &str| answer.split([' ', '(', '\n']).next().map(str::to_owned);
            met.borrow_mut().extend(answers.filter_map(kind));
            Ok(())
        });
        run.unwrap();
        for kind in [
            "Runs",
            "Waits",
            "Finished",
            "HeldElsewhere",
            "NotHeld",
            "Ended",
            "EndedBefore",
            "NotStarted",
            "Stale",
            "Unknown",
            "QueueFull",
            "TooHeavy",
            "Skipped",
            "Started",
            "Asked",
            "Moved",
            "Paused",
            "Limit",
            "Swept",
            "Removed",
        ] {
            assert!(met.borrow().contains(kind), "{kind} is not in {met:?}");
        }
    }
}
