//! How to use this crate, one subject a page. There is no code here.
//!
//! - [`slots`]: a slot in one line.
//! - [`waiting`]: queues, positions, and giving up.
//! - [`losing`]: what to do when a lease is lost, and what fencing tokens are for.
//! - [`controllers`]: runs that a cluster executes, which outlive the process that started them.
//! - [`operating`]: limits and who has set them, pauses, and ending or moving the runs of others.
//! - [`ending`]: closing a manager, and whether it is healthy.
//!
//! The [examples](https://doc.rust-lang.org/cargo/reference/cargo-targets.html#examples) of this
//! crate show three of these subjects as whole programs: `worker_pool`, `controller` and
//! `lost_lease`.

pub mod controllers;
pub mod ending;
pub mod losing;
pub mod operating;
pub mod slots;
pub mod waiting;
