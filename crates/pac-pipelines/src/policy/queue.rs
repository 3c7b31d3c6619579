//! What the annotations of a Repository say about its queue.

use std::num::NonZeroU32;

use pac_core::Reason;

use super::value::{order, whole_number};
use super::{Marks, Policy, set};
use crate::error::ModelError;
use crate::model::RepositoryView;
use crate::vocabulary;

/// What the reason of a pause begins with that an annotation has made: what is paused by other means
/// is not resumed when the annotation goes.
const ORIGIN: &str = "annotation of the Repository";

/// What the annotations say about the queue of a Repository.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct QueuePolicies {
    /// How many of its runs may wait; any number where there is none.
    pub max_queued: Option<u32>,
    /// How many lighter runs may go before one that does not fit; none where the order is strict.
    pub backfill: Option<NonZeroU32>,
    /// None of its runs starts, for this reason.
    pub pause: Option<Reason>,
    /// The values that break the rule of their annotation, and count as absent.
    pub invalid: Vec<ModelError>,
}

impl QueuePolicies {
    /// Reads them off a Repository.
    #[must_use]
    pub fn of(repository: &RepositoryView) -> Self {
        let mut policies = Self::default();
        for policy in POLICIES {
            policy.read(
                Marks::on_repository(repository),
                &mut policies,
                |policies| &mut policies.invalid,
            );
        }
        policies
    }

    /// What is to be done about a pause, given whether the store has one, and the reason of that: an
    /// annotation begins one where there is none, and ends and changes only what it has begun.
    #[must_use]
    pub fn about_pause(&self, known: Option<Option<&Reason>>) -> PauseStep {
        let reason = known.flatten();
        let is_ours = reason.is_some_and(|reason| reason.as_str().starts_with(ORIGIN));
        match &self.pause {
            Some(wanted) if known.is_none() || (is_ours && reason != Some(wanted)) => {
                PauseStep::Pause(wanted.clone())
            }
            None if is_ours => PauseStep::Resume,
            Some(_) | None => PauseStep::Nothing,
        }
    }
}

/// What is to be done about a pause.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum PauseStep {
    /// Nothing.
    #[default]
    Nothing,
    /// Begin one, or change the reason of the one that is there.
    Pause(Reason),
    /// End the one that is there.
    Resume,
}

/// All annotations about the queue of a Repository.
pub(super) const POLICIES: &[Policy<QueuePolicies>] = &[
    Policy {
        annotation: vocabulary::MAX_QUEUED,
        rule: "must be a whole number of at least 0, such as \"20\"",
        take: |value, policies| set(&mut policies.max_queued, whole_number(value).map(Some)),
    },
    Policy {
        annotation: vocabulary::ORDER,
        rule: "must be \"strict\", or \"backfill:K\" with a whole number K of at least 1",
        take: |value, policies| set(&mut policies.backfill, order(value)),
    },
    Policy {
        annotation: vocabulary::PAUSE,
        rule: "must be a text",
        take: |value, policies| {
            policies.pause = pause(value);
            true
        },
    },
];

/// A pause is never passed over for the sake of its reason: what a reason cannot hold is left out.
fn pause(value: &str) -> Option<Reason> {
    /// A reason has 500 bytes; the origin is before it.
    const MOST: usize = 400;
    let value = value.trim();
    if value == "false" {
        return None;
    }
    let text = value.get(..value.floor_char_boundary(MOST.min(value.len())));
    let text = text.filter(|text| !text.is_empty() && *text != "true");
    let said = text.and_then(|text| {
        let plain: String = text
            .chars()
            .map(|c| {
                if c.is_whitespace() || c.is_control() {
                    ' '
                } else {
                    c
                }
            })
            .collect();
        format!("{ORIGIN}: {}", plain.trim()).parse().ok()
    });
    said.or_else(|| ORIGIN.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(annotations: &[(&str, &str)]) -> QueuePolicies {
        let mut view = RepositoryView::new("ci/website".parse().unwrap());
        let annotations = annotations.iter();
        view.annotations
            .extend(annotations.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        QueuePolicies::of(&view)
    }

    fn reason(text: &str) -> Option<String> {
        let pause = of(&[(vocabulary::PAUSE, text)]).pause;
        pause.map(|reason| reason.to_string())
    }

    #[test]
    fn a_bound_and_an_order_are_read_and_bad_ones_told() {
        assert_eq!(of(&[]), QueuePolicies::default());
        let good = of(&[
            (vocabulary::MAX_QUEUED, "0"),
            (vocabulary::ORDER, "backfill:2"),
        ]);
        assert_eq!(good.max_queued, Some(0));
        assert_eq!(good.backfill, NonZeroU32::new(2));
        let bad = of(&[(vocabulary::MAX_QUEUED, "-1"), (vocabulary::ORDER, "lifo")]);
        assert_eq!((bad.max_queued, bad.backfill), (None, None));
        let told: Vec<_> = bad.invalid.iter().map(ToString::to_string).collect();
        assert_eq!(told.len(), 2);
        assert!(
            told[0].starts_with("Repository ci/website: metadata.annotations.")
                && told[0].contains("not \"-1\"; it counts as absent"),
            "{told:?}"
        );
    }

    #[test]
    fn a_pause_is_made_of_any_text_but_false() {
        assert_eq!(reason("false"), None);
        for without in ["true", "", "  "] {
            assert_eq!(reason(without).as_deref(), Some(ORIGIN), "{without:?}");
        }
        let said = reason("the store moves\n to another host").unwrap();
        assert_eq!(said, format!("{ORIGIN}: the store moves  to another host"));
        for odd in ["ä".repeat(10_000), "\u{202e}\u{7}".to_owned()] {
            assert!(reason(&odd).unwrap().starts_with(ORIGIN), "{odd:?}");
        }
    }

    #[test]
    fn an_annotation_ends_only_the_pause_that_it_has_begun() {
        let paused =
            |reason: Option<&str>| Some(reason.map(|text| text.parse::<Reason>().unwrap()));
        let ours = format!("{ORIGIN}: x");
        let (with, without) = (of(&[(vocabulary::PAUSE, "x")]), of(&[]));
        let pause = PauseStep::Pause(ours.parse().unwrap());
        for (known, wanted, unwanted) in [
            (None, pause.clone(), PauseStep::Nothing),
            (paused(Some(&ours)), PauseStep::Nothing, PauseStep::Resume),
            (paused(Some(ORIGIN)), pause, PauseStep::Resume),
            (paused(Some("x")), PauseStep::Nothing, PauseStep::Nothing),
            (paused(None), PauseStep::Nothing, PauseStep::Nothing),
        ] {
            let known = known.as_ref().map(Option::as_ref);
            assert_eq!(with.about_pause(known), wanted, "{known:?}");
            assert_eq!(without.about_pause(known), unwanted, "{known:?}");
        }
    }
}
