//! The controller beside Pipelines-as-Code and Tekton: a store in memory, a cluster over HTTP.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

mod apart;
#[path = "../common/mod.rs"]
mod common;
mod failures;
mod lanes;
mod limits;
mod queues;
mod replicas;
mod reports;
mod scale;
mod sections;
mod setting;
mod together;
mod two_modes;
mod webhook;
