//! Names of the slots of a repository.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;
use std::sync::Arc;

use super::{InvalidValue, MAX_NAMESPACE, is_of_uid};

/// The name of a slot of a repository, as that of a device or an account.
///
/// 1 to 63 ASCII letters, digits, `-`, `_`, `.` or `:`. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotName(Arc<str>);

impl SlotName {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SlotName {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() || text.len() > MAX_NAMESPACE || !text.bytes().all(is_of_uid) {
            return Err(InvalidValue::new(
                "name of a slot",
                text,
                "must be 1 to 63 ASCII letters, digits, '-', '_', '.' or ':'",
            ));
        }
        Ok(Self(text.into()))
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The names of the slots of a repository, in the order of their numbers.
///
/// At most [`MOST`](Self::MOST), since a store keeps them in the one record of the repository that every
/// commit reads; and none of them twice, or two runs would have the same device. Cloning is cheap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SlotNames(Arc<[SlotName]>);

impl SlotNames {
    /// The most names that a repository may have. It may have more slots than that, without names.
    pub const MOST: usize = 256;

    /// These names, the first of which is that of slot 0.
    ///
    /// # Errors
    /// [`InvalidValue`] for too many, and for a name that is there twice.
    pub fn new(names: impl IntoIterator<Item = SlotName>) -> Result<Self, InvalidValue> {
        let mut known = BTreeSet::new();
        let mut kept: Vec<SlotName> = Vec::new();
        for name in names {
            if kept.len() == Self::MOST {
                return Err(InvalidValue::new(
                    "list of slot names",
                    &format!("{} names and {name}", kept.len()),
                    "must have at most 256 names; leave them out, and use the numbers of the slots",
                ));
            }
            if !known.insert(name.clone()) {
                return Err(InvalidValue::new(
                    "list of slot names",
                    name.as_str(),
                    "must not have a name twice; name each slot otherwise",
                ));
            }
            kept.push(name);
        }
        Ok(Self(kept.into()))
    }
}

impl Deref for SlotNames {
    type Target = [SlotName];

    fn deref(&self) -> &[SlotName] {
        &self.0
    }
}

impl FromStr for SlotNames {
    type Err = InvalidValue;

    /// Parses names with commas between them.
    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let names: Vec<SlotName> = text.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Self::new(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_names_as_a_record_may_have_each_once() {
        let many = |count: usize| {
            (0..count)
                .map(|n| n.to_string())
                .collect::<Vec<_>>()
                .join(",")
        };
        let most: SlotNames = many(SlotNames::MOST).parse().unwrap();
        assert_eq!((most.len(), most[255].as_str()), (SlotNames::MOST, "255"));
        for (wrong, said) in [
            (many(SlotNames::MOST + 1), "at most 256 names"),
            ("a,b,a".to_owned(), "twice"),
            (String::new(), "must be 1 to 63"),
            ("a,,b".to_owned(), "must be 1 to 63"),
            ("a b".to_owned(), "must be 1 to 63"),
        ] {
            let error = wrong.parse::<SlotNames>().unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
            assert!(error.len() < 400, "{error}");
        }
    }
}
