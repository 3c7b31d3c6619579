//! Fuzzing: no annotation of a run, a Repository or a Namespace makes a panic, a limit of none, or takes
//! long; what is understood is written the same again, and what is not is named.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use pac_core::Limit;
use serde_json::json;

use crate::error::ModelError;
use crate::lanes::{NamespaceRule, is_lane};
use crate::model::{ExecutionOrder, NamespaceView, PacState, RepositoryView, RunView};
use crate::policy::Policies;
use crate::sections::{self, SectionAnswer, SectionRequest};
use crate::vocabulary::PAC_PREFIX;

/// Lines such as `priority=5`; where they name no prefix, ours is meant.
#[test]
fn fuzz_annotations() {
    pac_fuzz::text(env!("CARGO_MANIFEST_DIR"), "annotations", |text| {
        let begun = Instant::now();
        let lines = text.lines().filter_map(|line| line.split_once('='));
        let ours = format!("concurrency.{PAC_PREFIX}");
        let marks: BTreeMap<_, _> = lines
            .map(|(name, value)| {
                let prefix = if name.contains('/') { "" } else { &ours };
                (format!("{prefix}{name}"), value)
            })
            .collect();
        let object = json!({
            "metadata": {
                "name": "a", "namespace": "ci", "uid": "u", "annotations": marks, "labels": marks,
            },
        });
        let object = object.to_string();
        let run = RunView::from_json(&object).unwrap();
        let repository = match RepositoryView::from_json(&object) {
            Ok(view) => {
                assert_ne!(view.limit, Some(Limit::UNLIMITED));
                Some(view)
            }
            Err(error) => {
                named(&error, "Repository ci/a", &marks);
                None
            }
        };
        order(&run);
        let policies = Policies::of(&run, repository.as_ref());
        for error in &policies.invalid {
            let repository = error.object().starts_with("Repository");
            let object = if repository {
                "Repository ci/a"
            } else {
                "PipelineRun ci/a"
            };
            named(error, object, &marks);
        }
        marks.values().for_each(|value| section(value));
        let limited = sections::sections_of(&run);
        assert!(limited.len() <= sections::MOST);
        for section in limited.iter().filter_map(sections::section_of) {
            let limit = sections::limit_of(&section, repository.iter());
            assert_ne!(limit, Limit::UNLIMITED);
        }
        let name = object.replace("\"name\":\"a\"", "\"name\":\"ci\"");
        lanes(&NamespaceView::from_json(&name).unwrap(), &run, &marks);
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

/// An error names the object, an annotation of it, and no more of its value than fits a line.
fn named(error: &ModelError, object: &str, marks: &BTreeMap<String, &str>) {
    assert_eq!(error.object(), object, "{error}");
    let annotation = error.field().strip_prefix("metadata.annotations.");
    assert!(
        annotation.is_some_and(|name| marks.contains_key(name)),
        "{error}"
    );
    assert!(error.rule().len() < 2_000, "{error}");
}

fn order(run: &RunView) {
    assert_eq!(run.has_order(), run.order().is_some());
    if let Some(order) = run.order() {
        let again = ExecutionOrder::parse(&order.to_string());
        assert_eq!(again.runs(), order.runs());
        assert!(again.malformed().is_empty());
        let malformed = order.malformed().iter();
        assert!(
            malformed
                .map(|one| one.entry.chars().count())
                .all(|shown| shown <= 80)
        );
    }
    if let Some(state) = run.state() {
        assert_eq!(PacState::parse(state.as_str()), Some(state));
    }
    if let Some(token) = run.token() {
        assert_eq!(token.to_string().parse(), Ok(token.get()));
    }
    assert!(run.repository().is_none_or(|key| key.namespace() == "ci"));
    assert_ne!(run.global_repository().as_deref(), Some(""));
}

fn section(value: &str) {
    if let Ok(request) = SectionRequest::parse(value) {
        let shown = request.to_string();
        assert!(shown.len() <= sections::LONGEST, "{shown}");
        assert_eq!(SectionRequest::parse(&shown), Ok(request));
    }
    if let Ok(answer) = SectionAnswer::parse(value) {
        assert_eq!(SectionAnswer::parse(&answer.to_string()), Ok(answer));
    }
}

/// Every controller finds the same lane, and no lane is without a limit.
fn lanes(namespace: &NamespaceView, run: &RunView, marks: &BTreeMap<String, &str>) {
    let rule = NamespaceRule::of(namespace);
    for error in rule.problems() {
        named(error, "Namespace ci", marks);
    }
    assert!(
        rule.limit()
            .is_ok_and(|limit| limit != Some(Limit::UNLIMITED))
            || rule.is_said()
    );
    let Some(lane) = rule.lane_of(run) else {
        return;
    };
    assert_eq!(
        NamespaceRule::of(namespace).lane_of(run),
        Some(lane.clone())
    );
    match lane {
        Ok(lane) => {
            assert!(
                is_lane(lane.key()) && lane.key().namespace() == "ci",
                "{lane:?}"
            );
            match rule.limit_of(&lane) {
                Ok(limit) => assert_ne!(limit, Some(Limit::UNLIMITED)),
                Err(error) => named(&error, "Namespace ci", marks),
            }
        }
        Err(error) => named(&error, "Namespace ci", marks),
    }
}
