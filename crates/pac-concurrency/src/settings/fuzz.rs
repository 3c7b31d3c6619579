//! Fuzzing: no text of a file, a variable or a value makes a panic, an endless error, or an error
//! that a terminal would act on.

use std::collections::BTreeMap;
use std::path::Path;

use pac_core::Error;
use pac_core::text::{self, is_plain};

use super::found::Findings;
use super::problem::{SettingsError, TOLD};
use super::{LoadedSettings, duration, environment, kubernetes, resolve};

#[test]
fn fuzz_settings() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "settings", |text| {
        let mut findings = Findings::default();
        kubernetes::read(Path::new("settings.yaml"), text, &mut findings);
        check(resolve::resolve(findings, false));
    });
}

#[test]
fn fuzz_variables() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "variables", |text| {
        let variables = text.lines().filter_map(|line| line.split_once('='));
        // The environment has each name once.
        let variables: BTreeMap<_, _> = variables.collect();
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()));
        let mut findings = Findings::default();
        environment::read(variables, &mut findings);
        check(resolve::resolve(findings, false));
    });
}

#[test]
fn fuzz_durations() {
    pac_fuzz::text(
        env!("CARGO_MANIFEST_DIR"),
        "durations",
        |text| match duration::parse(text) {
            Ok(parsed) => {
                let shown = duration::format(parsed);
                assert_eq!(duration::parse(&shown), Ok(parsed), "{shown}");
            }
            Err(error) => assert!(!error.rule().is_empty()),
        },
    );
}

fn check(resolved: Result<LoadedSettings, SettingsError>) {
    match resolved {
        Ok(loaded) => {
            let _ = loaded.settings();
            assert!(
                loaded
                    .effective()
                    .iter()
                    .all(|setting| { !setting.key.is_secret() || !setting.is_shown })
            );
        }
        Err(error) => {
            assert!((1..=TOLD).contains(&error.problems().len()));
            let shown = error.to_string();
            assert!(
                shown.lines().all(|line| line.chars().all(is_plain)),
                "{shown}"
            );
            // A problem has a place, a key and a message.
            assert!(shown.lines().all(|line| line.len() <= 4 * text::LONGEST));
            assert!(Error::from(error).to_string().chars().all(is_plain));
        }
    }
}
