//! `pac` as a user runs it: one program, since each takes seconds to build.

mod bench;
mod common;
mod config;
mod controller;
mod doctor;
#[cfg(all(unix, feature = "postgres"))]
mod documents;
mod etcd_mock;
mod exec;
mod exec_crowd;
mod exec_family;
mod exec_faults;
mod exec_hanging;
mod exec_outage;
mod exec_restart;
mod exec_slots;
mod exec_store;
mod input_files;
mod kubernetes;
mod migrate;
mod operate;
mod operator;
mod plan;
mod queues;
mod replay;
mod results;
mod schema;
mod section;
#[cfg(all(unix, any(feature = "etcd", feature = "postgres")))]
mod servers;
mod status_cluster;
mod terminal;
mod terminal_store;
mod transcript;
mod watch;
mod webhook;
mod who;
