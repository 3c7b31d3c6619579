//! Loads settings from their sources.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use pac_core::file;

use super::found::{Findings, Found};
use super::key::Key;
use super::problem::{Place, SettingsError, Source};
use super::{LoadedSettings, directory, environment, kubernetes, resolve, typo, yaml};

/// Loads settings from any number of sources.
///
/// The precedence of sources, highest first: values [set](Self::set) in code; the
/// [environment](Self::environment); Secrets; ConfigMaps and plain maps; the defaults. Of two
/// sources of one kind, the later one takes precedence. An empty value counts as not set: so if
/// the password in the ConfigMap is empty, the one in the Secret is used.
///
/// ```
/// use pac_concurrency::SettingsLoader;
///
/// let loaded = SettingsLoader::new()
///     .set("concurrency-driver", "memory")
///     .set("memory-lease-ttl", "1h30m")
///     .load()?;
/// let settings = loaded.settings();
/// # Ok::<(), pac_concurrency::SettingsError>(())
/// ```
#[derive(Clone, Default)]
#[must_use = "settings are read by `load`"]
pub struct SettingsLoader {
    explicit: Vec<(String, String)>,
    variables: Vec<(OsString, OsString)>,
    layers: Vec<Layer>,
    unseen_files: bool,
}

#[derive(Clone)]
enum Layer {
    File(PathBuf),
    ConfigMap(String, BTreeMap<String, String>),
    Secret(String, BTreeMap<String, String>),
}

impl SettingsLoader {
    /// A loader without sources.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key with the highest precedence. An empty value means the default.
    pub fn set(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.explicit.push((key.into(), value.into()));
        self
    }

    /// Adds the environment variables of this process.
    pub fn environment(self) -> Self {
        self.variables(std::env::vars_os())
    }

    /// Adds these variables, as if they were the environment's.
    pub fn variables(mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        self.variables.extend(variables);
        self
    }

    /// Adds a file of YAML or JSON (ConfigMaps and Secrets as Kubernetes writes them, also
    /// several in one file, or a plain map of keys to values), or a directory with a file for
    /// each key, as Kubernetes mounts a ConfigMap or a Secret. A directory that contains a
    /// password is a Secret, any other a ConfigMap. [`load`](Self::load) reads it.
    pub fn file(mut self, path: impl Into<PathBuf>) -> Self {
        self.layers.push(Layer::File(path.into()));
        self
    }

    /// Adds the data of a ConfigMap that was read by other means; errors show `name`.
    pub fn config_map(
        mut self,
        name: impl Into<String>,
        data: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let data = data.into_iter().collect();
        self.layers.push(Layer::ConfigMap(name.into(), data));
        self
    }

    /// Adds the decoded data of a Secret that was read by other means; errors show `name`.
    pub fn secret(
        mut self,
        name: impl Into<String>,
        data: impl IntoIterator<Item = (String, String)>,
    ) -> Self {
        let data = data.into_iter().collect();
        self.layers.push(Layer::Secret(name.into(), data));
        self
    }

    /// Does not read the files that settings name (certificates, keys, passwords): for checking
    /// settings on another machine than where they are used.
    pub fn without_looking_at_files(mut self) -> Self {
        self.unseen_files = true;
        self
    }

    /// Reads all sources and checks every value. Blocks on files.
    ///
    /// # Errors
    /// All problems found, each with its source. Unknown keys and variables are ignored, unless
    /// they resemble known ones.
    pub fn load(self) -> Result<LoadedSettings, SettingsError> {
        let mut findings = Findings::default();
        for layer in self.layers {
            match layer {
                Layer::File(path) => read(&path, &mut findings),
                Layer::ConfigMap(name, data) => findings.map(&name, data, Source::ConfigMap),
                Layer::Secret(name, data) => findings.map(&name, data, Source::Secret),
            }
        }
        environment::read(self.variables, &mut findings);
        for (name, value) in self.explicit {
            match Key::named(&name) {
                Some(key) => {
                    let found = Found::text(key, value, Source::Explicit);
                    findings.found.push(found);
                }
                None => {
                    let complaint = typo::explicit(&name);
                    findings.problem(Source::Explicit, Some(&name), complaint);
                }
            }
        }
        resolve::resolve(findings, !self.unseen_files)
    }
}

/// Shows which sources there are, but no values.
impl fmt::Debug for SettingsLoader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layers = self.layers.iter().map(|layer| match layer {
            Layer::File(path) => path.display().to_string(),
            Layer::ConfigMap(name, _) | Layer::Secret(name, _) => name.clone(),
        });
        let explicit = self.explicit.iter().map(|(key, _)| key.as_str());
        f.debug_struct("SettingsLoader")
            .field("explicit", &explicit.collect::<Vec<_>>())
            .field("variables", &self.variables.len())
            .field("layers", &layers.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

fn read(path: &Path, findings: &mut Findings) {
    if path.is_dir() {
        return directory::read(path, findings);
    }
    match file::read(path, yaml::MAX_BYTES) {
        Ok(text) => kubernetes::read(path, &text, findings),
        Err(reason) => {
            let source = Source::ConfigMap(Place::new(path, None));
            findings.problem(source, None, reason);
        }
    }
}
