//! Unique names for runs.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::process;
use std::time::SystemTime;

use pac_concurrency::{PipelineRunKey, Uid};

use crate::exit::{Exit, Failure};

/// A name for a run in a namespace.
pub(crate) fn unique(namespace: &str) -> Result<PipelineRunKey, Failure> {
    PipelineRunKey::new(namespace, &format!("exec-{:016x}", random()))
        .map_err(|error| Failure::new(Exit::Internal, error))
}

/// A unique uid: two invocations are two runs, even with the same name.
pub(crate) fn uid() -> Result<Uid, Failure> {
    format!("exec-{:016x}{:016x}", random(), random())
        .parse()
        .map_err(|error| Failure::new(Exit::Internal, error))
}

/// A random number: the standard library seeds its hashers with 64 bits from the system.
fn random() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(process::id());
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    hasher.write_u128(since.unwrap_or_default().as_nanos());
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_and_uids_are_well_formed_and_do_not_repeat() {
        let names: BTreeSet<_> = (0..1_000).map(|_| unique("ci").unwrap()).collect();
        let uids: BTreeSet<_> = (0..1_000).map(|_| uid().unwrap()).collect();
        assert_eq!((names.len(), uids.len()), (1_000, 1_000));
    }
}
