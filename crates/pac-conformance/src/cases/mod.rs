//! The cases, in the groups of the list of behaviours that they prove.

pub mod admission_and_order;
mod calls;
pub mod driver_contract;
pub mod hostile_input;
pub mod leases_and_crashes;
pub mod limits;
pub mod poisoned_records;
pub mod recovery;
pub mod release_cancel_removal;
pub mod state;
pub mod terms_and_policies;
pub mod time_limits;
pub mod waiting_and_waking;
pub mod wishes;
