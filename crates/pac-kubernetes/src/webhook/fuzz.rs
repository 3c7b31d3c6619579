//! Fuzzing: no body makes a panic, an answer that is none or is larger than its question, a refusal that
//! repeats the body, or a change that cannot be made or that is asked for twice.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pac_core::text::is_plain;
use serde_json::Value;

use super::review::{Considered, Lookup, consider};
use super::rule::Rule;

/// An answer to an empty review.
const SMALL: usize = 2_048;

#[test]
fn fuzz_reviews() {
    pac_fuzz::bytes(env!("CARGO_MANIFEST_DIR"), "reviews", |body| {
        let begun = Instant::now();
        for rule in Rule::ALL {
            for answer in answers(rule, body) {
                check(rule, body, &answer);
            }
        }
        assert!(begun.elapsed() < Duration::from_secs(10));
    });
}

/// What the webhook may answer; none to a body that is no review.
fn answers(rule: Rule, body: &[u8]) -> Vec<Vec<u8>> {
    match consider(rule, body) {
        Ok(Considered::Answered(answer)) => vec![answer],
        Ok(Considered::Asks(question)) => {
            assert!(!question.repository().as_str().is_empty());
            let unknown = Lookup::Unknown("it did not answer".to_owned());
            [Lookup::Limited, Lookup::Unlimited, unknown]
                .iter()
                .map(|found| question.answer(found))
                .collect()
        }
        Err(refusal) => {
            let shown = refusal.to_string();
            assert!(shown.len() < 200 && shown.chars().all(is_plain), "{shown}");
            Vec::new()
        }
    }
}

fn check(rule: Rule, body: &[u8], answer: &[u8]) {
    assert!(answer.len() <= 2 * body.len() + SMALL);
    let answer: Value = serde_json::from_slice(answer).unwrap();
    assert_eq!(answer["kind"], "AdmissionReview");
    let response = &answer["response"];
    let is_allowed = response["allowed"].as_bool().unwrap();
    assert!(is_allowed || !rule.allows_when_unsure(), "{answer}");
    // Some numbers are too large for a value, and are passed over in a review.
    let Ok(review) = serde_json::from_slice::<Value>(body) else {
        return;
    };
    let request = &review["request"];
    let is_map = |part: &Value| part.is_null() || part.is_object();
    // A structure may be written as the list of its fields, which the API server does not.
    let is_usual = is_map(&request["object"]["metadata"]) && is_map(&request["object"]["spec"]);
    if !request.is_object() || !is_usual {
        return;
    }
    assert_eq!(response["uid"], request["uid"]);
    if let Some(patch) = response["patch"].as_str() {
        assert!(is_allowed && response["patchType"] == "JSONPatch");
        let patch = STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        let mut after = review.clone();
        json_patch::patch(&mut after["request"]["object"], &patch).unwrap();
        // The API server may ask again after others have changed the object.
        for answer in answers(rule, after.to_string().as_bytes()) {
            let answer: Value = serde_json::from_slice(&answer).unwrap();
            assert_eq!(answer["response"]["patch"], Value::Null, "{after}");
        }
    }
}
