//! The controller beside Pipelines-as-Code and Tekton: a store in memory, a cluster over HTTP, which may
//! be one that is given.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod apart;
mod cases;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod given;
mod lanes;
mod limits;
mod peaks;
mod queues;
mod replicas;
mod reports;
mod scale;
mod sections;
mod setting;
mod together;
mod two_modes;
mod webhook;
mod wishes;
mod world;
