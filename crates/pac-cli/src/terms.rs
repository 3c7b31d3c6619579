//! What a run asked for beyond a slot, and what was asked of it, as it is shown.

use pac_concurrency::{Paused, Reason, SlotName, Terms, Weight};
use serde::Serialize;

use crate::time::rfc3339;

/// The terms of a run in JSON and YAML. What it did not ask for is left out.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct TermsShape {
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// When it was asked to end.
    #[serde(skip_serializing_if = "Option::is_none")]
    asked_at: Option<String>,
    /// The numbers of its slots.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    slots: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_wait_s: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_hold_s: Option<f64>,
}

impl TermsShape {
    pub(crate) fn of(terms: &Terms) -> Self {
        Self {
            weight: (terms.weight != Weight::ONE).then_some(terms.weight.get()),
            group: terms.group.as_ref().map(ToString::to_string),
            asked_at: terms.asked.at().map(rfc3339),
            slots: terms.slots.clone(),
            max_wait_s: terms.max_wait.map(|longest| longest.as_secs_f64()),
            max_hold_s: terms.max_hold.map(|longest| longest.as_secs_f64()),
        }
    }

    /// What a table says of it, its weight among that if it is asked for: nothing of most runs.
    pub(crate) fn words(&self, with_weight: bool) -> impl Iterator<Item = String> + use<> {
        let weight = self.weight.filter(|_| with_weight);
        let weight = weight.map(|weight| format!("{weight} slots"));
        let group = self.group.as_ref().map(|group| format!("group {group}"));
        [weight, group].into_iter().flatten()
    }
}

/// The names of slots of these numbers; none unless all of them have one, so that no number is missed
/// among the names.
pub(crate) fn slot_names<'a>(numbers: &[u32], names: &'a [SlotName]) -> Vec<&'a str> {
    let named = numbers.iter().map(|number| {
        let at = usize::try_from(*number).ok()?;
        names.get(at).map(SlotName::as_str)
    });
    named.collect::<Option<_>>().unwrap_or_default()
}

/// A pause in JSON and YAML.
#[derive(Debug, Serialize)]
pub(crate) struct PauseShape<'a> {
    since: Option<String>,
    reason: Option<&'a str>,
}

impl<'a> PauseShape<'a> {
    pub(crate) fn of(pause: &'a Paused) -> Self {
        Self {
            since: pause.since.map(rfc3339),
            reason: pause.reason.as_ref().map(Reason::as_str),
        }
    }
}
