//! The same cases as those of the policies: what each rule changes, and what it leaves alone.

use pac_pipelines::vocabulary::{
    CANCELLED, CANCELLED_RUN_FINALLY, HELD, PAC_MANAGER, PENDING, STOPPED_RUN_FINALLY,
};

use super::*;

/// The answer to a review. `lookup` is asked at most once, for the Repository that it depends on.
fn respond(
    rule: Rule,
    body: &[u8],
    lookup: impl FnOnce(&RepositoryKey) -> Lookup,
) -> Result<Vec<u8>, Refusal> {
    Ok(match consider(rule, body)? {
        Considered::Answered(answer) => answer,
        Considered::Asks(question) => {
            let found = lookup(question.repository());
            question.answer(&found)
        }
    })
}

/// A review of a run, of which these are the operation, the object and the object before.
fn review(operation: &str, object: &Value, old: &Value) -> Value {
    json!({
        "apiVersion": VERSION,
        "kind": KIND,
        "request": {
            "uid": "7e0d", "operation": operation, "namespace": "ci", "name": "a",
            "kind": {"group": "tekton.dev", "version": "v1", "kind": "PipelineRun"},
            "resource": {"group": "tekton.dev", "version": "v1", "resource": "pipelineruns"},
            "object": object, "oldObject": old, "dryRun": false,
            "userInfo": {"username": "pac"},
        },
    })
}

/// A run with these labels and annotations, and this `spec.status`; `null` for none.
fn run(labels: &Value, annotations: &Value, status: &Value) -> Value {
    let mut run = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {"namespace": "ci", "name": "a", "labels": labels, "annotations": annotations},
        "spec": {"pipelineRef": {"name": "build"}},
    });
    if !status.is_null() {
        run["spec"]["status"] = status.clone();
    }
    run
}

/// The object as it is after the answer; the Repository `website` bears a limit, and no other one.
fn admitted(rule: Rule, review: &Value) -> Value {
    let lookup = |repository: &RepositoryKey| match repository.as_str() {
        "ci/website" => Lookup::Limited,
        _ => Lookup::Unlimited,
    };
    let answer = respond(rule, review.to_string().as_bytes(), lookup).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    assert_eq!(answer["apiVersion"], VERSION);
    assert_eq!(answer["kind"], KIND);
    let response = &answer["response"];
    assert_eq!(response["uid"], "7e0d");
    assert_eq!(response["allowed"], true, "{answer}");
    assert_eq!(response["warnings"], Value::Null, "{answer}");
    let mut object = review["request"]["object"].clone();
    if let Some(patch) = response["patch"].as_str() {
        assert_eq!(response["patchType"], "JSONPatch");
        let patch = STANDARD.decode(patch).unwrap();
        let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
        json_patch::patch(&mut object, &patch).unwrap();
    }
    object
}

fn of_pac() -> Value {
    json!({MANAGED_BY: PAC_MANAGER, "x/y": "z"})
}

/// The order comes with an update after the creation, and lands as ours with its value; that of
/// Pipelines-as-Code is gone, and runs of others are left alone.
#[test]
fn takeover_moves_the_order_of_runs_of_pipelines_as_code() {
    let order = json!({EXECUTION_ORDER: "ci/a,ci/b", "x/y": "z"});
    let moved = json!({OUR_EXECUTION_ORDER: "ci/a,ci/b", "x/y": "z"});
    let ordered = run(&of_pac(), &order, &json!(PENDING));
    for (operation, old) in [("CREATE", Value::Null), ("UPDATE", ordered.clone())] {
        let after = admitted(Rule::Takeover, &review(operation, &ordered, &old));
        assert_eq!(
            after,
            run(&of_pac(), &moved, &json!(PENDING)),
            "{operation}"
        );
    }
    // An order that is ours already is written over, as the policy does.
    let both = json!({EXECUTION_ORDER: "ci/b", OUR_EXECUTION_ORDER: "ci/a"});
    let both = run(&of_pac(), &both, &Value::Null);
    let after = admitted(Rule::Takeover, &review("UPDATE", &both, &both));
    assert_eq!(
        after["metadata"]["annotations"],
        json!({OUR_EXECUTION_ORDER: "ci/b"})
    );
    // The label may go with the same change: the API server selects by both states.
    let unlabelled = run(&json!({}), &order, &Value::Null);
    let after = admitted(Rule::Takeover, &review("UPDATE", &unlabelled, &ordered));
    assert_eq!(after["metadata"]["annotations"], moved);
    for alone in [
        unlabelled.clone(),
        run(&json!({MANAGED_BY: "others"}), &order, &Value::Null),
        run(&of_pac(), &json!({"x/y": "z"}), &Value::Null),
        run(&Value::Null, &Value::Null, &Value::Null),
    ] {
        let after = admitted(Rule::Takeover, &review("UPDATE", &alone, &alone));
        assert_eq!(after, alone);
    }
}

/// A run of a Repository with our limit is held at its creation and marked; a run that its user
/// created pending is not marked, and one with Kueue's label is Kueue's.
#[test]
fn gate_holds_runs_of_repositories_with_our_limit() {
    let website = json!({REPOSITORY: "website"});
    let held = json!({REPOSITORY: "website", HELD: "true"});
    for status in [Value::Null, json!("")] {
        let new = run(&json!({}), &website, &status);
        let after = admitted(Rule::Gate, &review("CREATE", &new, &Value::Null));
        assert_eq!(after, run(&json!({}), &held, &json!(PENDING)));
    }
    for alone in [
        run(&json!({}), &json!({REPOSITORY: "docs"}), &Value::Null),
        run(&json!({}), &json!({REPOSITORY: "../website"}), &Value::Null),
        run(&json!({}), &json!({REPOSITORY: ""}), &Value::Null),
        run(&json!({}), &json!({"x/y": "z"}), &Value::Null),
        run(&json!({}), &Value::Null, &Value::Null),
        run(&json!({}), &website, &json!(PENDING)),
        run(&json!({}), &website, &json!(CANCELLED)),
        run(&json!({KUEUE_QUEUE: "q"}), &website, &Value::Null),
    ] {
        let after = admitted(Rule::Gate, &review("CREATE", &alone, &Value::Null));
        assert_eq!(after, alone);
    }
    let started = run(&json!({}), &website, &Value::Null);
    let after = admitted(Rule::Gate, &review("UPDATE", &started, &started));
    assert_eq!(after, started);
}

/// Whatever made it, with annotations or without, unless another run did.
#[test]
fn namespace_holds_runs_of_anybody() {
    let held = |annotations: &Value| {
        let mut run = run(&json!({}), annotations, &json!(PENDING));
        run["metadata"]["annotations"][HELD] = json!("true");
        run
    };
    for annotations in [
        Value::Null,
        json!({"x/y": "z"}),
        json!({REPOSITORY: "docs"}),
    ] {
        let mut new = run(&json!({}), &annotations, &Value::Null);
        if annotations.is_null() {
            new["metadata"]
                .as_object_mut()
                .unwrap()
                .remove("annotations");
        }
        let after = admitted(Rule::Namespace, &review("CREATE", &new, &Value::Null));
        assert_eq!(after, held(&annotations), "{annotations}");
    }
    let owned = |kind: &str| {
        let mut run = run(&json!({}), &json!({"x/y": "z"}), &Value::Null);
        run["metadata"]["ownerReferences"] = json!([{"kind": "Other"}, {"kind": kind}]);
        run
    };
    let after = admitted(
        Rule::Namespace,
        &review("CREATE", &owned("CronJob"), &Value::Null),
    );
    assert_eq!(after["spec"]["status"], PENDING);
    for alone in [
        owned("PipelineRun"),
        owned("CustomRun"),
        run(&json!({}), &json!({}), &json!(PENDING)),
        run(&json!({KUEUE_QUEUE: "q"}), &json!({}), &Value::Null),
    ] {
        let after = admitted(Rule::Namespace, &review("CREATE", &alone, &Value::Null));
        assert_eq!(after, alone);
    }
    let started = run(&json!({}), &json!({}), &Value::Null);
    let after = admitted(Rule::Namespace, &review("UPDATE", &started, &started));
    assert_eq!(after, started);
}

/// Tekton runs the `finally` tasks of a held run that is cancelled gracefully, and none of one
/// that is `Cancelled`.
#[test]
fn cancel_ends_a_held_run_at_once_and_no_other() {
    let website = json!({REPOSITORY: "website"});
    let of = |status: &str| run(&json!({}), &website, &json!(status));
    for graceful in [CANCELLED_RUN_FINALLY, STOPPED_RUN_FINALLY] {
        let after = admitted(Rule::Cancel, &review("UPDATE", &of(graceful), &of(PENDING)));
        assert_eq!(after, of(CANCELLED));
        let running = run(&json!({}), &website, &Value::Null);
        for (new, old) in [
            (of(graceful), running.clone()),
            (of(graceful), of(graceful)),
            (of(CANCELLED), of(PENDING)),
            (running.clone(), of(PENDING)),
        ] {
            let after = admitted(Rule::Cancel, &review("UPDATE", &new, &old));
            assert_eq!(after, new);
        }
        let of_none = run(&json!({}), &json!({}), &json!(graceful));
        let after = admitted(Rule::Cancel, &review("UPDATE", &of_none, &of(PENDING)));
        assert_eq!(after, of_none);
    }
}

/// The configuration asks about nothing else; should it be changed, nothing else is changed.
#[test]
fn what_is_no_change_of_a_run_itself_is_allowed_as_it_is() {
    let order = json!({EXECUTION_ORDER: "ci/a", REPOSITORY: "website"});
    let ordered = run(&of_pac(), &order, &Value::Null);
    let change = |pointer: &str, value: Value| {
        let mut review = review("CREATE", &ordered, &ordered);
        *review.pointer_mut(pointer).unwrap() = value;
        review
    };
    let mut subresource = review("UPDATE", &ordered, &ordered);
    subresource["request"]["subResource"] = json!("status");
    for review in [
        change("/request/operation", json!("DELETE")),
        change("/request/operation", json!("CONNECT")),
        change("/request/resource/resource", json!("taskruns")),
        change("/request/resource/group", json!("example.dev")),
        change("/request/resource/version", json!("v1beta1")),
        subresource,
    ] {
        for rule in Rule::ALL {
            assert_eq!(admitted(rule, &review), ordered, "{rule:?} {review}");
        }
    }
}

/// The answer to a request, and its message.
fn judged(rule: Rule, review: &Value, found: Lookup) -> (bool, u64, String) {
    let answer = respond(rule, review.to_string().as_bytes(), |_| found).unwrap();
    let answer: Value = serde_json::from_slice(&answer).unwrap();
    let response = &answer["response"];
    assert_eq!(response["patch"], Value::Null);
    let message = response["status"]["message"].as_str();
    let message = message.or_else(|| response["warnings"][0].as_str());
    (
        response["allowed"].as_bool().unwrap(),
        response["status"]["code"].as_u64().unwrap_or_default(),
        message.unwrap().to_owned(),
    )
}

/// As the failure policies say: the gate refuses, the others let the request pass unchanged.
#[test]
fn what_cannot_be_judged_is_answered_by_the_rule_and_names_it() {
    let website = json!({REPOSITORY: "website"});
    let created = review(
        "CREATE",
        &run(&json!({}), &website, &Value::Null),
        &Value::Null,
    );
    let unknown = Lookup::Unknown("no answer within 3s".to_owned());
    let (allowed, code, message) = judged(Rule::Gate, &created, unknown);
    assert_eq!((allowed, code), (false, 503));
    assert!(
        message.contains("rule gate") && message.contains("ci/website"),
        "{message}"
    );
    assert!(message.contains("no answer within 3s"), "{message}");

    let mut other_version = created.clone();
    other_version["apiVersion"] = json!("admission.k8s.io/v1beta1");
    let mut no_object = created.clone();
    no_object["request"]["object"] = Value::Null;
    let mut no_spec = created.clone();
    no_spec["request"]["object"]["spec"] = Value::Null;
    let mut strange = created;
    strange["request"]["object"]["spec"]["status"] = json!({"a": 1});
    for review in [&other_version, &no_object, &no_spec, &strange] {
        let (allowed, code, message) = judged(Rule::Gate, review, Lookup::Limited);
        assert_eq!((allowed, code), (false, 400), "{review}");
        assert!(
            message.starts_with("rule gate of pac-concurrency: "),
            "{message}"
        );
    }
    for rule in [Rule::Takeover, Rule::Cancel] {
        let mut review = no_object.clone();
        review["request"]["operation"] = json!("UPDATE");
        let (allowed, _, message) = judged(rule, &review, Lookup::Limited);
        assert!(allowed && message.contains(rule.name()), "{message}");
        assert!(message.contains("request.object is missing"), "{message}");
    }
}

#[test]
fn what_is_no_review_has_no_answer() {
    let deep = "[".repeat(100_000);
    let wrong_map = json!({"request": {"uid": "u", "object": {"metadata": "hunter2"}}});
    for body in [
        "",
        "null",
        "[]",
        "{}",
        "{\"request\": {}}",
        "{\"request\": {\"uid\": 7}}",
        &deep,
        &wrong_map.to_string(),
        "{\"request\": {\"uid\": \"u\"",
    ] {
        for rule in Rule::ALL {
            let refusal = respond(rule, body.as_bytes(), |_| Lookup::Limited).unwrap_err();
            let refusal = refusal.to_string();
            assert!(!refusal.contains("hunter2"), "{refusal}");
            assert!(
                refusal.starts_with("the body is no AdmissionReview"),
                "{refusal}"
            );
        }
    }
    assert!(respond(Rule::Gate, b"\xff\xfe", |_| Lookup::Limited).is_err());
}

/// Other annotations, as large as they are, are not kept.
#[test]
fn nothing_is_read_but_what_the_rules_look_at() {
    let mut annotations = json!({EXECUTION_ORDER: "ci/a"});
    for at in 0..1000 {
        annotations[format!("x/{at}")] = json!({"deep": [at]});
    }
    let ordered = run(&of_pac(), &annotations, &Value::Null);
    let Ok(Considered::Answered(_)) = consider(
        Rule::Takeover,
        review("UPDATE", &ordered, &ordered).to_string().as_bytes(),
    ) else {
        panic!("it is answered");
    };
    let texts: Texts = serde_json::from_value(annotations).unwrap();
    assert_eq!(
        texts.0,
        BTreeMap::from([(EXECUTION_ORDER, "ci/a".to_owned())])
    );
}

#[test]
fn the_annotation_of_the_limit_is_what_counts() {
    for (repository, expected) in [
        (
            Some(json!({"metadata": {"annotations": {LIMIT: "2"}}})),
            Lookup::Limited,
        ),
        (
            Some(json!({"metadata": {"annotations": {"x": "2"}}})),
            Lookup::Unlimited,
        ),
        (
            Some(json!({"spec": {"concurrency_limit": 2}})),
            Lookup::Unlimited,
        ),
        (None, Lookup::Unlimited),
    ] {
        assert_eq!(Lookup::of(repository.as_ref()), expected);
    }
}
