//! The driver on servers, healthy and not: one program, since each takes seconds to build. The
//! conformance suite is one of its own.

mod connections;
mod costs;
mod crashes;
mod dumps;
mod failover;
mod full_server;
mod guards;
mod hijack;
mod hostile;
mod impostors;
mod outages;
mod processes;
mod rewind;
mod rules;
mod schema;
mod sent;
mod spoilt;
mod stalls;
mod support;
mod views;
