//! What is logged, and where to.

use std::io::{self, Write};

use clap::ValueEnum;
use pac_concurrency::text::one_line;

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

/// Logs to stderr from now on, all parts of the process. Each event is one line, whatever servers
/// and objects of the cluster say in it.
pub(crate) fn install(level: Level) -> Result<(), Failure> {
    let level = match level {
        Level::Error => tracing::Level::ERROR,
        Level::Warn => tracing::Level::WARN,
        Level::Info => tracing::Level::INFO,
        Level::Debug => tracing::Level::DEBUG,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| OneLine(io::stderr()))
        .finish();
    tracing::subscriber::set_global_default(lines)
        .map_err(|error| Failure::new(Exit::Internal, error))
}

/// Writes each event, which comes in one piece with a line break at its end, as one line.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let text = text.strip_suffix('\n').unwrap_or(&text);
        // In one call: other processes may write to the same pipe.
        self.0
            .write_all(format!("{}\n", one_line(text)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_is_one_line_whatever_is_in_it() {
        let written = Written::default();
        let writer = written.clone();
        let log = tracing_subscriber::fmt()
            .with_writer(move || OneLine(writer.clone()))
            .finish();
        tracing::subscriber::with_default(log, || {
            let hostile = format!(
                "\u{1b}[2J\n2026-01-01 forged\u{202e}\u{9b}{}",
                "x".repeat(1 << 20)
            );
            tracing::warn!(object = %hostile, error = ?hostile, "{hostile}");
            tracing::info!("the next");
        });
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        let [hostile, next] = lines.as_slice() else {
            panic!("{} lines", lines.len());
        };
        assert!(
            hostile.chars().all(pac_concurrency::text::is_plain),
            "{hostile}"
        );
        assert!(hostile.contains("more bytes)"), "{hostile}");
        assert!(next.ends_with("the next"), "{next}");
    }
}
