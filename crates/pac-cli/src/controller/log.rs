//! What is logged, and where to.

use std::io;

use clap::ValueEnum;

use crate::exit::{Exit, Failure};

/// The least important lines that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Level {
    /// What needs a person
    Error,
    /// What does not go as it should
    Warn,
    /// What is done
    Info,
    /// What it takes
    Debug,
}

/// Logs to stderr from now on, all parts of the process.
pub(crate) fn install(level: Level) -> Result<(), Failure> {
    let level = match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .finish();
    tracing::subscriber::set_global_default(lines)
        .map_err(|error| Failure::new(Exit::Internal, error))
}
