//! The options of every command that say where settings are.

use std::fmt;
use std::path::PathBuf;

use pac_concurrency::SettingsLoader;

use crate::exit::{Exit, Failure};
use crate::output::note;

/// The sources of settings, besides the environment.
#[derive(clap::Args)]
pub(crate) struct Sources {
    /// Settings: a file with ConfigMaps, Secrets or a plain map in YAML, or a directory with a
    /// file per key, as Kubernetes mounts them (can be given more than once)
    #[arg(long = "config", value_name = "FILE")]
    files: Vec<PathBuf>,

    /// One setting, stronger than files and the environment; an empty value means the default
    /// (can be given more than once)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    assignments: Vec<String>,
}

/// Hides the assignments, which may contain passwords.
impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Sources {
    /// These sources, then the `other` ones: of two of the same kind, the later one takes
    /// precedence.
    pub(crate) fn followed_by(mut self, other: Self) -> Self {
        self.files.extend(other.files);
        self.assignments.extend(other.assignments);
        self
    }

    /// Loads files, the environment and assignments of the command line.
    pub(crate) fn loader(&self) -> Result<SettingsLoader, Failure> {
        self.loader_without_environment(&[])
            .map(SettingsLoader::environment)
    }

    /// Loads files, those in `more` too, and assignments of the command line.
    pub(crate) fn loader_without_environment(
        &self,
        more: &[PathBuf],
    ) -> Result<SettingsLoader, Failure> {
        let files = self.files.iter().chain(more);
        let loader = files.fold(SettingsLoader::new(), SettingsLoader::file);
        self.assignments.iter().try_fold(loader, |loader, text| {
            // Everything after the first `=` is the value, which errors never repeat.
            let Some((key, value)) = text.split_once('=') else {
                let message = "--set takes KEY=VALUE, such as --set postgresql-host=db; there is \
                               one without `=`";
                return Err(Failure::new(Exit::Usage, message));
            };
            Ok(loader.set(key.trim(), value))
        })
    }

    /// Prints a note if settings were given to a command that reads none.
    pub(crate) fn note_unused(&self, command: &str) {
        if !self.files.is_empty() || !self.assignments.is_empty() {
            note(format_args!(
                "{command} reads no settings; --config and --set change nothing"
            ));
        }
    }
}
