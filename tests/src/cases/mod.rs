//! The cases, in the groups of the list of behaviours that they prove.

pub mod admission_and_order;
pub mod limits;
pub mod release_cancel_removal;
