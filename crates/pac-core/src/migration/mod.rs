//! Brings state along: out of the layouts of older systems ([`adopt_legacy`]), or out of another
//! store of this project ([`copy_state`]).
//!
//! What an older layout means is decided by pure functions over what was read of it
//! ([`etcd_v1`], [`etcd_v2`], [`postgresql`]); the drivers read, and remove what was read once the
//! new state was verified.

mod adopt;
mod compare;
mod copy;
mod etcd;
mod legacy;
mod postgresql;
mod report;
mod writer;

pub use adopt::{adopt_legacy, preview_legacy};
pub use copy::{copy_state, preview_copy, remove_copied};
pub use etcd::{CONCURRENCY, LEASES, LegacyKey, etcd_generations, etcd_v1, etcd_v2, is_of_layout};
pub use legacy::{
    ClusterFacts, LeftOut, LegacyRepository, LegacyRun, LegacySource, LegacyState, RunFacts,
};
pub use postgresql::{SlotRow, postgresql};
pub use report::{Action, MigratedRepository, MigratedRun, MigrationReport};
