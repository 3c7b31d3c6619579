//! The driver on servers, healthy and not: one program, since each takes seconds to build. The
//! conformance suite is one of its own, on servers and on the mock.

mod access;
mod batches;
mod cluster;
mod faults;
mod hostile;
mod outages;
mod permissions;
mod remains;
mod requests;
mod rewind;
mod silence;
mod support;
