//! Fuzzing: no manifest makes a panic, or more than its own size; as JSON it says the same, and what is
//! wrong with it is named.

use std::collections::BTreeSet;

use pac_core::Timestamp;
use serde_json::Value;

use super::document::{Object, Placed, parse_placed};
use super::repository::RepositoryView;
use super::run::RunView;
use super::yaml;
use crate::error::ModelError;
use crate::migration::ClusterObjects;

const SOURCE: &str = "x.yaml";

#[test]
fn fuzz_manifests() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "manifests", |text| {
        let placed = parse_placed(SOURCE, text);
        assert!(placed.len() <= text.len());
        let place = |one: &Placed| (one.document, one.item);
        assert!(placed.is_sorted_by(|one, next| place(one) < place(next)));
        for one in &placed {
            if let Err(unreadable) = &one.found {
                check(&unreadable.error, text);
            }
        }
        migrate(text, &placed);
        for (at, document) in yaml::parse(text).unwrap_or_default().iter().enumerate() {
            let same = placed.iter().filter(|one| one.document == at + 1);
            as_json(&document.value, &same.collect::<Vec<_>>());
        }
    });
}

/// Names the object and the field.
fn check(error: &ModelError, text: &str) {
    assert!(!error.object().is_empty() && !error.field().is_empty());
    // Of a text with nothing but control characters each is written out.
    let shown = error.to_string();
    assert!(shown.len() <= 10 * text.len() + 500, "{shown}");
}

/// What `pac migrate` makes of it: each run once.
fn migrate(text: &str, placed: &[Placed]) {
    let mut objects = ClusterObjects::new("pac/global".parse().unwrap());
    objects.add_text(SOURCE, text);
    assert!(objects.runs.len() + objects.repositories.len() <= placed.len());
    assert!(objects.facts().runs.len() <= objects.runs.len());
    let state = objects.annotated(Timestamp::from_unix_millis(1_900_000_000_000));
    assert_eq!(state.left_out, objects.unreadable);
    let mut named = BTreeSet::new();
    for (repository, there) in &state.repositories {
        for legacy in there.running.iter().chain(&there.queued) {
            assert_eq!(legacy.run.namespace(), repository.namespace());
            assert!(named.insert(&legacy.run), "{} comes twice", legacy.run);
        }
    }
}

/// A document says the same in JSON, whichever reader reads it.
fn as_json(value: &Value, placed: &[&Placed]) {
    let json = value.to_string();
    let read = yaml::parse(&json).unwrap();
    assert_eq!(read.len(), 1, "{json}");
    assert_eq!(read[0].value, *value);
    let again = parse_placed(SOURCE, &json);
    assert_eq!(again.len(), placed.len());
    for (again, one) in again.iter().zip(placed) {
        assert_eq!(again.item, one.item);
        match (&again.found, &one.found) {
            (Ok(again), Ok(found)) => assert_eq!(again, found),
            (Err(again), Err(found)) => {
                assert_eq!(again.object, found.object);
                // The number of a line is another one.
                let line = |error: &ModelError| error.field().starts_with("line ");
                assert!(line(&found.error) || again.error == found.error);
            }
            (again, found) => assert_eq!(again, found),
        }
    }
    fn same<T: PartialEq + std::fmt::Debug>(
        json: &str,
        people: fn(&str) -> Result<T, ModelError>,
        api: fn(&str) -> Result<T, ModelError>,
    ) {
        assert_eq!(people(json).ok(), api(json).ok(), "{json}");
    }
    same(&json, RunView::parse, RunView::from_json);
    same(&json, RepositoryView::parse, RepositoryView::from_json);
    if let [one] = placed
        && let Ok(Object::Repository(view)) = &one.found
        && one.item.is_none()
    {
        assert_eq!(RepositoryView::parse(&json).as_ref(), Ok(view));
    }
}
