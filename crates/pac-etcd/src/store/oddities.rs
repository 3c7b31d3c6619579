//! Keys and values under the prefix that this software does not write. They are passed over, so that
//! they harm nothing else, and named.

use std::collections::BTreeSet;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::driver::Finding;

use crate::record::shown;

/// Most of them that are remembered and told one by one.
const TOLD: usize = 100;

/// How many of them a finding names.
const NAMED: usize = 3;

/// What was met so far, by the keys as they are shown.
#[derive(Debug, Default)]
pub(crate) struct Oddities(Mutex<BTreeSet<String>>);

impl Oddities {
    fn met(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a key was passed over. Says so at *warn* the first time, for the first hundred.
    pub(crate) fn note(&self, key: &[u8], why: &dyn Display) {
        let key = shown(key);
        let mut met = self.met();
        if met.len() < TOLD && met.insert(key.clone()) {
            drop(met);
            tracing::warn!(
                "key {key} is passed over, because this software does not write such a key or \
                 value ({why}); find out what writes under its prefix, and delete or repair the key"
            );
        }
    }

    /// What an operator should know of them.
    pub(crate) fn finding(&self) -> Option<Finding> {
        let met = self.met();
        if met.is_empty() {
            return None;
        }
        let count = match met.len() {
            TOLD.. => format!("{TOLD} keys or more"),
            1 => "1 key".to_owned(),
            some => format!("{some} keys"),
        };
        let named: Vec<_> = met.iter().take(NAMED).map(String::as_str).collect();
        Some(Finding::warning(
            format!(
                "{count} of etcd under the prefix are not what this software writes, and are passed \
                 over, such as {}",
                named.join(", ")
            ),
            "find out what writes there, give this software a prefix and a user of its own, and \
             delete or repair those keys",
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_named_and_no_number_of_them_is_remembered() {
        let oddities = Oddities::default();
        assert!(oddities.finding().is_none());
        for n in 0..10_000_u32 {
            let key = [b"/pac/v1/heads/\xff\n".as_slice(), &n.to_be_bytes()].concat();
            oddities.note(&key, &"no text");
            oddities.note(&key, &"no text");
        }
        assert_eq!(oddities.met().len(), TOLD);
        let shown = oddities.finding().unwrap().to_string();
        assert!(shown.starts_with("100 keys or more"), "{shown}");
        assert!(shown.contains(r"/pac/v1/heads/\xff\n\x00"), "{shown}");
        assert!(!shown.contains('\n') && shown.len() < 1_000, "{shown}");
    }
}
