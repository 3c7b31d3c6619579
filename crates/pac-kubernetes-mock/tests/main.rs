//! The server, its faults and its stand-ins, over HTTP: one program, since each takes seconds to build.

mod admission;
mod api;
mod common;
mod detach;
mod faults;
mod kube_client;
mod pac_queue;
mod pending_and_cancel;
mod recorded;
mod takeover;
mod watches;
