//! Settings as operators write them.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod keys;
mod report;
mod rules;
mod sources;

use std::ffi::OsString;
use std::time::Duration;

use pac_concurrency::settings::{Password, Secret};
use pac_concurrency::{LoadedSettings, SettingsLoader};

/// A loader with these values set explicitly.
pub(crate) fn set(values: &[(&str, &str)]) -> SettingsLoader {
    let loader = SettingsLoader::new();
    values
        .iter()
        .fold(loader, |loader, (key, value)| loader.set(*key, *value))
}

pub(crate) fn variables(values: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    let pair = |(name, value): &(&str, &str)| (name.into(), value.into());
    values.iter().map(pair).collect()
}

pub(crate) fn map(values: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    values.iter().map(pair).collect()
}

pub(crate) fn problems(loader: SettingsLoader) -> Vec<String> {
    let error = loader.load().unwrap_err();
    error.problems().iter().map(ToString::to_string).collect()
}

pub(crate) fn source_of(loaded: &LoadedSettings, key: &str) -> String {
    let mut effective = loaded.effective().iter();
    let setting = effective.find(|setting| setting.key.name() == key).unwrap();
    setting.source.to_string()
}

pub(crate) fn reads(password: Option<&Password>, expected: &str) -> bool {
    password.is_some_and(|password| password.read().unwrap() == Some(Secret::new(expected)))
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
