//! Hash maps for the short keys of this workspace, which every command hashes several times.

use std::hash::BuildHasher;

use foldhash::SharedSeed;
use foldhash::fast::SeedableRandomState;

/// Seeded per process, and quick on short keys. The keys are names that a cluster has admitted,
/// and each map holds those of one repository or one process. So hash flooding can slow down no
/// more than that repository or process.
pub(crate) type RandomState = foldhash::fast::RandomState;

/// The standard map with [`RandomState`].
pub(crate) type HashMap<K, V> = std::collections::HashMap<K, V, RandomState>;

/// The standard set with [`RandomState`].
pub(crate) type HashSet<T> = std::collections::HashSet<T, RandomState>;

/// The hash of a name, the same for equal texts of this process and seeded anew in the next.
pub(crate) fn of_name(text: &str) -> u64 {
    SeedableRandomState::with_seed(0, SharedSeed::global_random()).hash_one(text.as_bytes())
}
