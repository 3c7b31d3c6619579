//! The progress bar of a replay.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::trace::Trace;

/// A bar on stderr, drawn only if that is a terminal. Cheap to update for every event; clones
/// share it.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// A bar that ends when every row has been fed to the manager and every run has ended.
    pub(crate) fn start(trace: &Trace) -> Self {
        if !io::stderr().is_terminal() {
            return Self {
                bar: ProgressBar::hidden(),
            };
        }
        let steps = trace.rows.len() + trace.runs();
        let bar = ProgressBar::with_draw_target(
            Some(u64::try_from(steps).unwrap_or(u64::MAX)),
            ProgressDrawTarget::stderr(),
        );
        let style = ProgressStyle::with_template("replaying {wide_bar} {percent:>3} %  {eta:>4}");
        Self {
            bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())),
        }
    }

    /// Counts a row that was fed to the manager.
    pub(crate) fn row_done(&self) {
        self.bar.inc(1);
    }

    /// Counts a run that ended: completed or cancelled, started or not.
    pub(crate) fn run_done(&self) {
        self.bar.inc(1);
    }

    /// Removes the bar from the terminal.
    pub(crate) fn finish(&self) {
        self.bar.finish_and_clear();
    }
}
