use pac_core::{FencingToken, RepositoryKey};
use pac_pipelines::Preparation;
use serde_json::json;

use super::*;

/// A notice as a controller tells it, through the one constructor that there is outside.
fn told(what: What) -> Option<(Notice, Told)> {
    let notice = Notice::new(
        "ci/website".parse().unwrap(),
        "ci/website-build-x7k2p".parse().unwrap(),
        "e102ca01-ea05-4154-b8e8-0bf7bbc2d43f".parse().unwrap(),
        what,
    );
    let told = Told::of(&notice)?;
    Some((notice, told))
}

fn queued(limit: Limit, again: bool) -> What {
    What::Queued {
        position: 3,
        of: 7,
        running: 2,
        limit,
        pause: None,
        again,
    }
}

#[test]
fn an_event_says_what_has_happened_to_which_run() {
    let (notice, told) = told(queued(Limit::new(2), false)).unwrap();
    let at: MicroTime = serde_json::from_value(json!("2026-11-29T08:00:01.000002Z")).unwrap();
    let event = serde_json::to_value(told.event(&notice, "pod-1", at)).unwrap();
    let expected = json!({
        "apiVersion": "events.k8s.io/v1", "kind": "Event",
        "metadata": {"name": told.name, "namespace": "ci"},
        "eventTime": "2026-11-29T08:00:01.000002Z",
        "type": "Normal", "reason": "Queued", "action": "Queue",
        "note": "queued at position 3 of 7 in ci/website, 2 running of at most 2",
        "regarding": {"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "namespace": "ci",
            "name": "website-build-x7k2p", "uid": "e102ca01-ea05-4154-b8e8-0bf7bbc2d43f"},
        "reportingController": "pac-concurrency", "reportingInstance": "pod-1",
    });
    assert_eq!(event, expected);
}

#[test]
fn a_name_follows_from_the_run_and_what_has_happened() {
    let name = |what| told(what).unwrap().1.name;
    let started = |token| What::Started {
        token: FencingToken::new(token),
    };
    assert_eq!(name(started(41)), name(started(41)));
    assert_ne!(name(started(41)), name(started(42)));
    // Two controllers may see different places: it is one event.
    let other = What::Queued {
        position: 4,
        of: 9,
        running: 2,
        limit: Limit::new(2),
        pause: None,
        again: false,
    };
    assert_eq!(name(queued(Limit::new(2), false)), name(other));
    let given_back = |token| What::GivenBack {
        token: FencingToken::new(token),
    };
    assert_eq!(name(given_back(1)), name(given_back(2)), "a series");
    assert!(name(started(41)).starts_with("website-build-x7k2p."));
}

#[test]
fn a_waiter_that_is_taken_over_is_no_news() {
    assert_eq!(told(queued(Limit::new(2), true)), None);
    let (_, told) = told(queued(Limit::UNLIMITED, false)).unwrap();
    assert!(told.note.ends_with("2 running"), "{}", told.note);
}

#[test]
fn notes_and_names_keep_to_the_length_that_is_allowed() {
    let message = "ü".repeat(2_000);
    let (_, told) = told(What::InvalidAnnotation { message }).unwrap();
    assert_eq!(told.note.len(), NOTE);
    let run = format!("ci/{}-{}", "a".repeat(199), "b".repeat(40));
    let notice = Notice::new(
        "ci/website".parse().unwrap(),
        run.parse().unwrap(),
        "u".parse().unwrap(),
        What::Requeued,
    );
    let name = Told::of(&notice).unwrap().name;
    let (start, hash) = name.split_once('.').unwrap();
    assert_eq!((start, hash.len()), ("a".repeat(199).as_str(), 16));
}

#[test]
fn an_event_about_a_section_names_it_and_its_tokens() {
    let note = |what| {
        let notice = Notice::new(
            "ci/section.gpu".parse().unwrap(),
            "ci/website-build-x7k2p".parse().unwrap(),
            "u".parse().unwrap(),
            what,
        );
        let told = Told::of(&notice).unwrap();
        (told.reason, told.is_warning, told.note)
    };
    let (token, before) = (FencingToken::new(47), FencingToken::new(41));
    let queued = What::SectionQueued {
        position: 2,
        of: 3,
        running: 1,
        limit: Limit::new(1),
    };
    let expected = "waits at position 2 of 3 for section gpu, 1 in it of at most 1".to_owned();
    assert_eq!(note(queued), ("SectionQueued", false, expected));
    let expected = "in section gpu with token 47".to_owned();
    let entered = What::SectionEntered { token };
    assert_eq!(note(entered), ("SectionEntered", false, expected));
    let (reason, is_warning, text) = note(What::SectionLost { before, token });
    assert!(
        is_warning && text.contains("token 41") && text.contains("token 47"),
        "{text}"
    );
    assert_eq!(reason, "SectionLost");
    assert!(note(What::SectionRefused).2.contains("section gpu"));
}

#[test]
fn what_is_beside_the_limit_and_what_was_not_done_is_named() {
    let of = |what| {
        let told = told(what).unwrap().1;
        assert!(told.is_warning);
        (told.reason, told.note)
    };
    let global: RepositoryKey = "pipelines-as-code/global".parse().unwrap();
    for (limited_by, names) in [
        (global, "concurrency_limit of pipelines-as-code/global"),
        (
            "ci/website".parse().unwrap(),
            "has both spec.concurrency_limit",
        ),
    ] {
        let (reason, note) = of(What::InTwoModes { limited_by });
        assert_eq!(reason, "NotManaged");
        assert!(
            note.contains(names) && note.contains("remove one"),
            "{note}"
        );
    }
    let missing = Preparation::Secret;
    let (reason, note) = of(What::StartedUnprepared { missing });
    assert_eq!(reason, "StartedUnprepared");
    assert!(note.contains("has not made the secret"), "{note}");
}

#[test]
fn a_run_that_is_refused_is_told_what_is_to_be_put_right() {
    let message = "Namespace ci: metadata.annotations.x: must be a number".to_owned();
    let (notice, told) = told(What::Refused { message }).unwrap();
    let at: MicroTime = serde_json::from_value(json!("2026-11-29T08:00:01.000002Z")).unwrap();
    let event = serde_json::to_value(told.event(&notice, "pod-1", at)).unwrap();
    assert_eq!(
        (&event["reason"], &event["type"]),
        (&json!("NotQueued"), &json!("Warning"))
    );
    let note = event["note"].as_str().unwrap();
    assert!(
        note.ends_with("put right: Namespace ci: metadata.annotations.x: must be a number"),
        "{note}"
    );
}

#[test]
fn a_run_that_is_ended_is_told_why_and_what_to_do() {
    let of = |what| {
        let told = told(what).unwrap().1;
        (told.reason, told.is_warning, told.note)
    };
    let group = Some("pull-request 7 unit".parse().unwrap());
    let (reason, is_warning, note) = of(What::Superseded { group });
    assert_eq!((reason, is_warning), ("Superseded", false));
    assert!(note.contains("group pull-request 7 unit"), "{note}");
    let (reason, is_warning, note) = of(What::QueueFull {
        max_queued: Some(5),
    });
    assert_eq!((reason, is_warning), ("QueueFull", true));
    assert!(
        note.contains("as may: 5") && note.contains(vocabulary::MAX_QUEUED),
        "{note}"
    );
    for (runs, annotation) in [(false, vocabulary::MAX_WAIT), (true, vocabulary::MAX_HOLD)] {
        let (reason, is_warning, note) = of(What::TimedOut { runs });
        assert_eq!((reason, is_warning), ("TimedOut", true));
        assert!(note.contains(annotation), "{note}");
    }
    let (reason, _, note) = of(What::AskedToEnd { runs: true });
    assert_eq!(reason, "AskedToEnd");
    assert!(note.ends_with("its finally tasks run"), "{note}");
    assert!(!of(What::AskedToEnd { runs: false }).2.contains("finally"));
}
