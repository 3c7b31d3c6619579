//! The answers that a real API server gave, line by line: this one gives the same.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use crate::common;

use std::collections::HashMap;

use common::{APPLY, Answer, Client, JSON, MERGE, RUNS, STRATEGIC};
use pac_kubernetes_mock::ApiServer;
use serde_json::{Value, json};

#[tokio::test]
async fn every_answer_is_the_recorded_one() {
    let server = ApiServer::start().await;
    server.handle().create_namespace("ci").unwrap();
    let client = Client::new(server.url());
    let created = client.post(RUNS, new_run("t-")).await;
    let name = created.at("/metadata/name").to_owned();
    let uid = created.at("/metadata/uid").to_owned();
    let old_revision = created.at("/metadata/resourceVersion").to_owned();
    let path = format!("{RUNS}/{name}");
    let mut transcript = format!("created {name} {uid} {old_revision}\n");

    // Made known after the creation, so that the first patch is stale.
    let label = json!({"metadata": {"labels": {"a": "1"}}});
    server
        .handle()
        .merge("pipelineruns", "ci", &name, label)
        .unwrap();
    let revision = server.handle().revision().to_string();

    for (title, request) in requests(&uid, &old_revision, &revision) {
        let answer = match &request {
            Request::Patch(media_type, body) => client.patch(&path, media_type, body.clone()).await,
            Request::PatchAt(suffix, media_type, body) => {
                client
                    .patch(&format!("{path}{suffix}"), media_type, body.clone())
                    .await
            }
            Request::Delete(options) => client.delete(&path, Some(options.clone())).await,
            Request::PatchAbsent(body) => {
                client
                    .patch(&format!("{RUNS}/absent"), MERGE, body.clone())
                    .await
            }
            Request::DryRun => {
                client
                    .post(&format!("{RUNS}?dryRun=All"), started_run("dry-"))
                    .await
            }
        };
        transcript += &format!("{title}:\n{}\n", line(&answer));
        match title.split(' ').next().unwrap() {
            "10" => transcript += &format!("{}\n", python(answer.body.get("status"))),
            "11" => transcript += &format!("{}\n", python_status(&answer.body)),
            "12" => transcript += &format!("{}\n", answer.text.matches("unknown").count()),
            _ => {}
        }
    }

    let recorded = include_str!("data/api-answers.txt");
    let (recorded, recorded_list) = recorded
        .split_once("19 PartialObjectMetadata list:\n")
        .unwrap();
    let names = [("t-s6szw", "NAME"), ("dry-m26l4", "DRY")];
    let uid_there = "e102ca01-ea05-4154-b8e8-0bf7bbc2d43f";
    let mut expected = recorded.replace(uid_there, "UID");
    for (name, place) in names {
        expected = expected.replace(name, place);
    }
    let dry = transcript
        .split(' ')
        .find(|word| word.starts_with("dry-"))
        .unwrap()
        .to_owned();
    let found = transcript
        .replace(&uid, "UID")
        .replace(&name, "NAME")
        .replace(&dry, "DRY");
    let (expected, found) = (revisions(&expected), revisions(&found));
    for (expected, found) in expected.lines().zip(found.lines()) {
        assert_eq!(found, expected);
    }
    assert_eq!(found.lines().count(), expected.lines().count());

    list_is_as_recorded(&client, recorded_list).await;
}

/// The recording of the list ends in the middle of a line.
async fn list_is_as_recorded(client: &Client, recorded: &str) {
    client.post(RUNS, new_run("build-")).await;
    let list = client.get(&format!("{RUNS}?as=partial")).await;
    let found = serde_json::to_string_pretty(&list.body).unwrap();
    let found: Vec<String> = found.lines().map(field).collect();
    let mut whole: Vec<&str> = recorded.lines().collect();
    whole.pop();
    for line in whole {
        assert!(found.contains(&field(line)), "{line} is not in {found:#?}");
    }
}

/// A line of indented JSON, without what differs from server to server.
fn field(line: &str) -> String {
    let line = line.trim().trim_end_matches(',');
    match line.split_once(':') {
        Some((key @ ("\"name\"" | "\"resourceVersion\""), _)) => key.to_owned(),
        _ => line.to_owned(),
    }
}

enum Request {
    Patch(&'static str, Value),
    PatchAt(&'static str, &'static str, Value),
    PatchAbsent(Value),
    Delete(Value),
    DryRun,
}

fn requests(uid: &str, old_revision: &str, revision: &str) -> Vec<(&'static str, Request)> {
    use Request::{Delete, DryRun, Patch, PatchAbsent, PatchAt};
    let no_uid = "00000000-0000-0000-0000-000000000000";
    let start = |uid: &str, status: &str| {
        let patch = json!([
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "test", "path": "/spec/status", "value": status},
            {"op": "remove", "path": "/spec/status"},
        ]);
        Patch(JSON, patch)
    };
    let pending = "PipelineRunPending";
    let running = json!({
        "conditions": [{"reason": "Running", "status": "Unknown", "type": "Succeeded"}],
        "startTime": "2026-11-29T00:00:00Z",
    });
    let applied =
        |spec: Value| json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "spec": spec});
    let apply = "?fieldManager=pac&force=true";
    vec![
        (
            "1 merge, stale resourceVersion",
            Patch(
                MERGE,
                json!({"metadata": {"resourceVersion": old_revision}, "spec": {"status": null}}),
            ),
        ),
        (
            "2 merge, wrong uid",
            Patch(
                MERGE,
                json!({"metadata": {"uid": no_uid}, "spec": {"status": null}}),
            ),
        ),
        (
            "3 merge, wrong uid + right rv",
            Patch(
                MERGE,
                json!({"metadata": {"uid": no_uid, "resourceVersion": revision}}),
            ),
        ),
        ("4 json patch, test uid fails", start(no_uid, pending)),
        ("4b json patch, test status fails", start(uid, "Cancelled")),
        (
            "5 merge label only",
            Patch(MERGE, json!({"metadata": {"labels": {"b": "2"}}})),
        ),
        (
            "6 json patch, right uid + Pending, after unrelated rv bump",
            start(uid, pending),
        ),
        ("7 the same again", start(uid, pending)),
        (
            "8 merge status null again (noop)",
            Patch(MERGE, json!({"spec": {"status": null}})),
        ),
        (
            "9 merge spec.status empty string (as PaC)",
            Patch(MERGE, json!({"spec": {"status": ""}})),
        ),
        (
            "10 status via main resource is ignored",
            Patch(MERGE, json!({"status": running})),
        ),
        (
            "11 status subresource",
            PatchAt("/status", MERGE, json!({"status": running})),
        ),
        (
            "12 unknown field pruned",
            Patch(MERGE, json!({"spec": {"unknown": 1}})),
        ),
        (
            "13 strategic merge on CRD",
            Patch(STRATEGIC, json!({"spec": {}})),
        ),
        (
            "14 SSA spec.status",
            PatchAt(apply, APPLY, applied(json!({"status": pending}))),
        ),
        (
            "15 SSA without it",
            PatchAt(apply, APPLY, applied(json!({}))),
        ),
        (
            "16 delete with wrong uid precondition",
            Delete(json!({"preconditions": {"uid": "x"}})),
        ),
        ("17 patch of absent", PatchAbsent(json!({"spec": {}}))),
        ("18 dry run create", DryRun),
    ]
}

fn new_run(prefix: &str) -> Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": {"generateName": prefix},
        "spec": {"status": "PipelineRunPending", "pipelineRef": {"name": "build"}},
    })
}

fn started_run(prefix: &str) -> Value {
    let mut run = new_run(prefix);
    run["spec"].as_object_mut().unwrap().remove("status");
    run
}

/// An answer as the recording has it.
fn line(answer: &Answer) -> String {
    let generation = answer
        .body
        .pointer("/metadata/generation")
        .and_then(Value::as_u64);
    format!(
        "{} {} {} {} {} rv {} spec.status= {} gen {}",
        answer.code,
        answer.at("/kind"),
        answer.at("/reason"),
        answer.at("/message"),
        answer.at("/metadata/name"),
        answer.at("/metadata/resourceVersion"),
        python(answer.body.pointer("/spec/status")),
        generation.map_or_else(|| "None".to_owned(), |generation| generation.to_string()),
    )
}

/// A value as Python prints it, which made the recording.
fn python(value: Option<&Value>) -> String {
    match value {
        None => "None".to_owned(),
        Some(value) => value.to_string().replace('"', "'").replace("':'", "': '"),
    }
}

fn python_status(object: &Value) -> String {
    let status = object
        .get("status")
        .map(Value::to_string)
        .unwrap_or_default();
    status
        .replace('"', "'")
        .replace("':", "': ")
        .replace("','", "', '")
        .replace("],'", "], '")
}

/// Numbers the revisions in the order in which they first appear: on a real server others write
/// meanwhile. The first line's is left out.
fn revisions(transcript: &str) -> String {
    let mut known: HashMap<String, usize> = HashMap::new();
    let lines = transcript.lines().map(|line| {
        if let Some(created) = line.strip_prefix("created ") {
            return created.rsplit_once(' ').unwrap().0.to_owned();
        }
        let Some((before, after)) = line.split_once(" spec.status= ") else {
            return line.to_owned();
        };
        let (before, revision) = before.rsplit_once(" rv ").unwrap();
        if revision.is_empty() {
            return line.to_owned();
        }
        let next = known.len() + 1;
        let number = *known.entry(revision.to_owned()).or_insert(next);
        format!("{before} rv {number} spec.status= {after}")
    });
    lines.collect::<Vec<_>>().join("\n")
}
