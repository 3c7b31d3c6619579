//! Lanes: which queue a PipelineRun belongs to and how many of it run at once, where annotations
//! of its Namespace say so.
//!
//! | annotation of a Namespace | value |
//! | --- | --- |
//! | [`LIMIT`](crate::vocabulary::LIMIT) | a whole number of at least 1: the limit of each of its queues that has no other one, those of Repositories among them |
//! | [`LANE_LABELS`](crate::vocabulary::LANE_LABELS) | 1 to 8 keys of labels, separated by commas: runs with the same values are one lane |
//! | [`LANE`](crate::vocabulary::LANE) | an expression over `object`, the run: its text is the lane |
//! | [`LANE_LIMIT`](crate::vocabulary::LANE_LIMIT) | the limit of each lane: a whole number of at least 1, or an expression over `lane` and `labels` that gives one |
//!
//! A lane is a queue of its Namespace like that of a Repository, under a name that begins with
//! `lane.`. Its name is made from the run each time, and its limit from the lane alone: both are
//! the same in every controller and after a restart. What breaks a rule never lets a run start: the
//! run stays held back, and is counted where it runs.

mod expression;
mod name;
mod rule;

pub use name::is_lane;
pub use rule::{Lane, NamespaceRule};

pub(crate) use name::of_namespace;
