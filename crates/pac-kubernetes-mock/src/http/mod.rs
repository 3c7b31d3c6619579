//! The API over HTTP/1.1: connections, paths, and the bodies of answers.

pub(crate) mod answer;
pub(crate) mod connection;
pub(crate) mod discovery;
pub(crate) mod route;
pub(crate) mod watch;
