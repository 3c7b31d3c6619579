//! The modes of a controller and of its installation, as they are named on the command line.

use clap::ValueEnum;
use pac_concurrency::kubernetes::Mode as Acting;
use pac_concurrency::kubernetes::install::InstallMode;

/// How runs are held back for the controller, and so which runs it acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Pipelines-as-Code holds its runs back, by their concurrency_limit
    Takeover,
    /// A policy holds runs back, by an annotation of the Repository or the Namespace
    Gate,
    /// Nothing is held back, and nothing is changed
    Observe,
}

impl From<Mode> for Acting {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Takeover => Self::Takeover,
            Mode::Gate => Self::Gate,
            Mode::Observe => Self::Observe,
        }
    }
}

impl From<Mode> for InstallMode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Takeover => Self::Takeover,
            Mode::Gate => Self::Gate,
            Mode::Observe => Self::Observe,
        }
    }
}
