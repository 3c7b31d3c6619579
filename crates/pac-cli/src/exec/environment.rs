//! What a command finds in its environment of the slots that it runs in.

use pac_concurrency::{RepositoryKey, SessionId, SlotName, Weight};

use super::held::{HELD, Slot};
use crate::terms::slot_names;

/// What is changed of this process's own environment.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// Variables that are set.
    pub(crate) set: Vec<(&'static str, String)>,
    /// Variables of a command around this one that say nothing here.
    pub(crate) taken_out: &'static [&'static str],
}

const NUMBERS: &str = "PAC_SLOT";
const NAMES: &str = "PAC_SLOT_NAME";

/// Nothing is changed.
pub(crate) static AS_IT_IS: Environment = Environment {
    set: Vec::new(),
    taken_out: &[],
};

impl Environment {
    /// Of a command that runs in these slots. Those of `first` are told in variables of their own;
    /// `names` are those of its slots.
    pub(super) fn of(
        slots: &[HeldSlot],
        first: Option<&RepositoryKey>,
        names: &[SlotName],
    ) -> Self {
        let listed: Vec<_> = slots.iter().map(|held| held.slot.to_string()).collect();
        let mut told = Self {
            set: vec![(HELD, listed.join(" "))],
            taken_out: &[NUMBERS, NAMES],
        };
        let is_first = |held: &&HeldSlot| Some(&held.slot.repository) == first;
        let Some(held) = slots.iter().find(is_first) else {
            return told;
        };
        let numbers: Vec<_> = held.numbers.iter().map(u32::to_string).collect();
        told.set.extend([
            ("PAC_REPOSITORY", held.slot.repository.to_string()),
            ("PAC_RUN", held.slot.run.to_string()),
            ("PAC_LEASE", held.session.to_string()),
            ("PAC_FENCING_TOKEN", held.slot.token().to_string()),
        ]);
        if !numbers.is_empty() {
            told.set.push((NUMBERS, numbers.join(",")));
            told.taken_out = &[NAMES];
        }
        let named = slot_names(&held.numbers, names);
        if !named.is_empty() {
            told.set.push((NAMES, named.join(",")));
            told.taken_out = &[];
        }
        told
    }
}

/// The slots that a run holds of one repository.
#[derive(Debug, Clone)]
pub(super) struct HeldSlot {
    pub(super) slot: Slot,
    /// The session that holds them.
    pub(super) session: SessionId,
    pub(super) weight: Weight,
    pub(super) numbers: Vec<u32>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(environment: &Environment, name: &str) -> Option<String> {
        let mut set = environment.set.iter();
        set.find(|(known, _)| *known == name)
            .map(|(_, value)| value.clone())
    }

    #[test]
    fn slots_are_told_by_number_and_by_name_where_all_have_one() {
        let slot: Slot = "ci/web=ci/a#7".parse().unwrap();
        let held = [HeldSlot {
            session: SessionId::new(3),
            weight: Weight::ONE,
            numbers: vec![0, 2],
            slot,
        }];
        let first = "ci/web".parse().unwrap();
        let names: Vec<SlotName> = ["a", "b", "c"].map(|name| name.parse().unwrap()).into();
        let told = Environment::of(&held, Some(&first), &names);
        assert_eq!(value(&told, "PAC_SLOT").unwrap(), "0,2");
        assert_eq!(value(&told, NAMES).unwrap(), "a,c");
        assert_eq!(value(&told, HELD).unwrap(), "ci/web=ci/a#7");
        let told = Environment::of(&held, Some(&first), &names[..2]);
        assert_eq!(value(&told, NAMES), None, "the last has no name");
        assert_eq!(told.taken_out, [NAMES]);

        // Of many slots no numbers are told: then not those of a command around it either.
        let held = [HeldSlot {
            numbers: Vec::new(),
            ..held[0].clone()
        }];
        let told = Environment::of(&held, Some(&first), &names);
        assert_eq!(value(&told, NUMBERS), None);
        assert_eq!(told.taken_out, [NUMBERS, NAMES]);
    }
}
