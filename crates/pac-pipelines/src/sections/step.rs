//! What a step of a run does about a section, given the run's object. Pure: the step reads the
//! object, asks here, and writes what is said here where the object is still as it was read.

use pac_core::{FencingToken, Timestamp};

use super::MOST;
use super::decide::request_of;
use super::name::{SectionHolder, SectionName, sections_of};
use super::request::{SectionAnswer, SectionRequest};
use crate::model::RunView;

/// What a step does to be in a section.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Arrival {
    /// Write this request.
    Ask(SectionRequest),
    /// Nothing: the holder is in the request already, as after a retry.
    Asked(SectionRequest),
    /// Nothing: as many hold the section together as may, or the run asks for as many sections as
    /// it may.
    Crowded,
}

impl Arrival {
    /// Of a holder whose run is as it is here. `now` and `chance` make the request, if it is the
    /// run's first.
    #[must_use]
    pub fn of(
        run: &RunView,
        section: &SectionName,
        holder: &SectionHolder,
        now: Timestamp,
        chance: u32,
    ) -> Self {
        match request_of(run, section) {
            None if sections_of(run).len() >= MOST => Self::Crowded,
            None => Self::Ask(SectionRequest::new(now, chance, holder.clone())),
            // What was cancelled stays so: another holder would never be let in.
            Some(request) if Standing::of(run, section, &request) == Standing::Cancelled => {
                Self::Ask(SectionRequest::new(now, chance, holder.clone()))
            }
            Some(request) if request.holders().contains(holder) => Self::Asked(request),
            Some(request) => match request.joined_by(holder) {
                Some(joined) => Self::Ask(joined),
                None => Self::Crowded,
            },
        }
    }
}

/// What a step does to leave a section.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departure {
    /// Nothing: the run does not ask for the section.
    Left,
    /// Nothing: others hold the section, and this holder does not.
    OfOthers(SectionRequest),
    /// Write this request: others go on.
    Stay(SectionRequest),
    /// Remove the request and its answer.
    Leave,
}

impl Departure {
    /// Of a holder whose run is as it is here.
    #[must_use]
    pub fn of(run: &RunView, section: &SectionName, holder: &SectionHolder) -> Self {
        match request_of(run, section) {
            None if run.annotation(&section.request_annotation()).is_none() => Self::Left,
            // It cannot be understood, so that nobody is in the section by it.
            None => Self::Leave,
            Some(request) if !request.holders().contains(holder) => Self::OfOthers(request),
            Some(request) => request.left_by(holder).map_or(Self::Leave, Self::Stay),
        }
    }
}

/// How a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Standing {
    /// It waits.
    Waits,
    /// The run is in the section.
    Granted(FencingToken),
    /// It was cancelled in the store, by an operator.
    Cancelled,
    /// The run asks no longer, or has asked anew: another step has taken the request back.
    Withdrawn,
    /// The run has ended, or is being deleted.
    Ended,
}

impl Standing {
    /// Of a request whose run is as it is here.
    #[must_use]
    pub fn of(run: &RunView, section: &SectionName, request: &SectionRequest) -> Self {
        if run.is_done() {
            return Self::Ended;
        }
        if request_of(run, section).is_none_or(|now| now.id() != request.id()) {
            return Self::Withdrawn;
        }
        let answer = run.annotation(&section.answer_annotation());
        let answer = answer.and_then(|text| SectionAnswer::parse(text).ok());
        match answer.filter(|answer| answer.answers(request)) {
            Some(answer) => answer.token().map_or(Self::Cancelled, Self::Granted),
            None if run.deleted.is_some() => Self::Ended,
            None => Self::Waits,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_millis(9);

    fn gpu() -> SectionName {
        "gpu".parse().unwrap()
    }

    fn holder(name: &str) -> SectionHolder {
        name.parse().unwrap()
    }

    fn run(request: &str, answer: &str) -> RunView {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        for (name, value) in [
            (gpu().request_annotation(), request),
            (gpu().answer_annotation(), answer),
        ] {
            if !value.is_empty() {
                run.annotations.insert(name, value.to_owned());
            }
        }
        run
    }

    fn arrive(request: &str, answer: &str, name: &str) -> String {
        match Arrival::of(&run(request, answer), &gpu(), &holder(name), NOW, 0xa) {
            Arrival::Ask(request) => format!("ask {request}"),
            Arrival::Asked(request) => format!("asked {request}"),
            Arrival::Crowded => "crowded".to_owned(),
        }
    }

    #[test]
    fn the_first_step_asks_and_the_others_join() {
        assert_eq!(arrive("", "", "run"), "ask 9-a run");
        assert_eq!(arrive("by hand", "", "run"), "ask 9-a run");
        assert_eq!(arrive("5-b run", "", "run"), "asked 5-b run");
        assert_eq!(arrive("5-b run", "5-b 41", "run"), "asked 5-b run");
        assert_eq!(arrive("5-b run", "5-b 41", "e2e"), "ask 5-b e2e run");
        assert_eq!(arrive("5-b a b c d e f g h", "", "i"), "crowded");
        assert_eq!(arrive("5-b run", "5-b cancelled", "run"), "ask 9-a run");
    }

    #[test]
    fn a_run_asks_for_no_more_sections_than_are_seen_of_it() {
        let mut run = run("", "");
        for number in 0..MOST {
            let name: SectionName = format!("s{number}").parse().unwrap();
            let request = "5-b run".to_owned();
            run.annotations.insert(name.request_annotation(), request);
        }
        let arrival = |run: &RunView| Arrival::of(run, &gpu(), &holder("run"), NOW, 0xa);
        assert_eq!(arrival(&run), Arrival::Crowded);
        run.annotations.pop_last();
        assert!(matches!(arrival(&run), Arrival::Ask(_)));
    }

    #[test]
    fn the_last_holder_to_leave_gives_the_slot_back() {
        let leave =
            |request: &str, name: &str| Departure::of(&run(request, ""), &gpu(), &holder(name));
        let request = |text: &str| SectionRequest::parse(text).unwrap();
        assert_eq!(leave("", "run"), Departure::Left);
        assert_eq!(leave("by hand", "run"), Departure::Leave);
        assert_eq!(leave("5-b run", "run"), Departure::Leave);
        assert_eq!(
            leave("5-b e2e run", "run"),
            Departure::Stay(request("5-b e2e"))
        );
        assert_eq!(
            leave("5-b e2e", "run"),
            Departure::OfOthers(request("5-b e2e"))
        );
    }

    #[test]
    fn a_step_is_let_in_by_the_answer_to_its_own_request_alone() {
        let mine = SectionRequest::parse("5-b run").unwrap();
        let standing =
            |request: &str, answer: &str| Standing::of(&run(request, answer), &gpu(), &mine);
        assert_eq!(standing("5-b run", ""), Standing::Waits);
        assert_eq!(standing("5-b run", "4-b 40"), Standing::Waits);
        assert_eq!(
            standing("5-b run", "5-b 41"),
            Standing::Granted(FencingToken::new(41))
        );
        assert_eq!(
            standing("5-b e2e run", "5-b 41"),
            Standing::Granted(FencingToken::new(41))
        );
        assert_eq!(standing("5-b run", "5-b cancelled"), Standing::Cancelled);
        assert_eq!(standing("", ""), Standing::Withdrawn);
        assert_eq!(standing("6-b run", "6-b 42"), Standing::Withdrawn);
        let mut ended = run("5-b run", "5-b 41");
        ended.deleted = Some(NOW);
        assert_eq!(
            Standing::of(&ended, &gpu(), &mine),
            Standing::Granted(FencingToken::new(41))
        );
        ended.annotations.remove(&gpu().answer_annotation());
        assert_eq!(Standing::of(&ended, &gpu(), &mine), Standing::Ended);
    }
}
