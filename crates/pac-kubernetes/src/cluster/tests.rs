//! The requests that are sent, byte for byte, and what each answer to them means. The answers are
//! those that a Kubernetes 1.36 API server gave.

mod server;

use serde_json::json;
use server::Answer::{ConnectionLost, ConnectionRefused, Object as Found, Silence, Text};
use server::{
    Answer, PATH, UID, conflict, exchange, not_found, pending, run, status, test_failed, wrong_uid,
};

use super::*;

async fn start(answers: Vec<Answer>) -> (StartOutcome, Vec<String>) {
    exchange(answers, async |cluster, run, uid| {
        cluster.start(&run, &uid, FencingToken::new(41)).await
    })
    .await
}

fn start_request() -> String {
    format!(
        "PATCH {PATH}?&fieldManager=pac-concurrency application/json-patch+json \
         [{{\"op\":\"test\",\"path\":\"/metadata/uid\",\"value\":\"{UID}\"}},\
         {{\"op\":\"test\",\"path\":\"/spec/status\",\"value\":\"PipelineRunPending\"}},\
         {{\"op\":\"remove\",\"path\":\"/spec/status\"}},\
         {{\"op\":\"add\",\"path\":\"/metadata/annotations/concurrency.pipelinesascode.tekton.dev\
         ~1fencing-token\",\"value\":\"41\"}}]"
    )
}

#[tokio::test(start_paused = true)]
async fn a_start_is_one_conditional_patch() {
    let (outcome, requests) = start(vec![Found(run("", &json!({})))]).await;
    assert_eq!(outcome, StartOutcome::Started);
    assert_eq!(requests, [start_request()]);
}

#[tokio::test(start_paused = true)]
async fn after_a_patch_that_failed_a_read_decides() {
    let other = json!({"metadata": {"uid": "00000000-0000-0000-0000-000000000000"}});
    let condition = |reason: &str, status: &str| {
        json!({"status": {"startTime": "2026-11-29T00:00:00Z", "conditions": [
            {"type": "Succeeded", "status": status, "reason": reason}]}})
    };
    let token = json!({"metadata": {"annotations": {pac_pipelines::vocabulary::TOKEN: "41"}}});
    let refused: [fn() -> Answer; 5] = [
        test_failed,
        not_found,
        conflict,
        || {
            status(
                429,
                "TooManyRequests",
                "the server has received too many requests",
            )
        },
        || status(403, "Forbidden", "pipelineruns.tekton.dev is forbidden"),
    ];
    let lost: [fn() -> Answer; 7] = [
        || status(500, "InternalError", "etcdserver: request timed out"),
        || {
            status(
                504,
                "Timeout",
                "Timeout: request did not complete within the allotted timeout",
            )
        },
        || status(503, "ServiceUnavailable", "apiserver is shutting down"),
        || Text(502, "<html>Bad Gateway</html>"),
        || Text(200, "no object"),
        || ConnectionLost,
        || Silence,
    ];
    for (found, after_refusal, after_loss) in [
        (
            pending as fn() -> Answer,
            StartOutcome::StillPending,
            StartOutcome::Unknown,
        ),
        (not_found, StartOutcome::Gone, StartOutcome::Gone),
        (
            || ConnectionLost,
            StartOutcome::Unknown,
            StartOutcome::Unknown,
        ),
        (
            || status(500, "InternalError", "etcdserver: leader changed"),
            StartOutcome::Unknown,
            StartOutcome::Unknown,
        ),
        // The API itself is not there, which says nothing about the run.
        (
            || Text(404, "404 page not found"),
            StartOutcome::Unknown,
            StartOutcome::Unknown,
        ),
    ] {
        for (answers, expected) in [(&refused[..], after_refusal), (&lost[..], after_loss)] {
            for answer in answers {
                let (outcome, requests) = start(vec![answer(), found()]).await;
                assert_eq!(outcome, expected, "{requests:?}");
                assert_eq!(requests, [start_request(), format!("GET {PATH}")]);
            }
        }
    }
    for (object, expected) in [
        (run("PipelineRunPending", &other), StartOutcome::Gone),
        (run("", &json!({})), StartOutcome::AlreadyStarted),
        (run("", &token), StartOutcome::AlreadyStarted),
        (
            run("", &condition("Succeeded", "True")),
            StartOutcome::AlreadyStarted,
        ),
        (
            run("Cancelled", &condition("Running", "Unknown")),
            StartOutcome::AlreadyStarted,
        ),
        (
            run("CancelledRunFinally", &token),
            StartOutcome::AlreadyStarted,
        ),
        (
            run("CancelledRunFinally", &json!({})),
            StartOutcome::Cancelled,
        ),
        (
            run("StoppedRunFinally", &json!({})),
            StartOutcome::Cancelled,
        ),
        (
            run("Cancelled", &condition("Cancelled", "False")),
            StartOutcome::Cancelled,
        ),
        (
            run("", &json!({"spec": {"status": 5}})),
            StartOutcome::Unknown,
        ),
    ] {
        for answer in refused.iter().chain(&lost) {
            let (outcome, _) = start(vec![answer(), Found(object.clone())]).await;
            assert_eq!(outcome, expected, "{object}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_was_certainly_not_a_start() {
    let (outcome, _) = start(vec![ConnectionRefused, pending()]).await;
    assert_eq!(outcome, StartOutcome::StillPending);
    let (outcome, _) = start(vec![ConnectionRefused, ConnectionRefused]).await;
    assert_eq!(outcome, StartOutcome::Unknown);
}

#[tokio::test(start_paused = true)]
async fn a_run_without_annotations_gets_the_map_at_the_version_that_was_read() {
    let bare = || {
        Found(run(
            "PipelineRunPending",
            &json!({"metadata": {"annotations": null}}),
        ))
    };
    let (outcome, requests) = start(vec![test_failed(), bare(), pending()]).await;
    assert_eq!(outcome, StartOutcome::Started);
    assert_eq!(
        requests[2],
        format!(
            "PATCH {PATH}?&fieldManager=pac-concurrency application/json-patch+json \
             [{{\"op\":\"test\",\"path\":\"/metadata/resourceVersion\",\"value\":\"228\"}},\
             {{\"op\":\"test\",\"path\":\"/metadata/uid\",\"value\":\"{UID}\"}},\
             {{\"op\":\"test\",\"path\":\"/spec/status\",\"value\":\"PipelineRunPending\"}},\
             {{\"op\":\"remove\",\"path\":\"/spec/status\"}},\
             {{\"op\":\"add\",\"path\":\"/metadata/annotations\",\"value\":\
             {{\"concurrency.pipelinesascode.tekton.dev/fencing-token\":\"41\"}}}}]"
        )
    );
    let (outcome, _) = start(vec![test_failed(), bare(), test_failed(), pending()]).await;
    assert_eq!(outcome, StartOutcome::StillPending);
    let (outcome, _) = start(vec![test_failed(), bare(), ConnectionLost, bare()]).await;
    assert_eq!(outcome, StartOutcome::Unknown);
    // After a lost answer nothing is sent again, whatever is read.
    let (outcome, _) = start(vec![ConnectionLost, bare()]).await;
    assert_eq!(outcome, StartOutcome::Unknown);
}

async fn hold(answers: Vec<Answer>) -> (Result<HoldOutcome, ClusterErrorKind>, Vec<String>) {
    exchange(answers, async |cluster, run, uid| {
        cluster.hold(&run, &uid).await.map_err(|error| error.kind())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_hold_is_conditional_on_the_state_that_was_read() {
    let free = || Found(run("", &json!({})));
    let (outcome, requests) = hold(vec![free(), pending()]).await;
    assert_eq!(outcome, Ok(HoldOutcome::Held));
    let patch = format!(
        "PATCH {PATH}?&fieldManager=pac-concurrency application/merge-patch+json \
         {{\"metadata\":{{\"annotations\":{{\"concurrency.pipelinesascode.tekton.dev/held\":\
         \"true\"}},\"resourceVersion\":\"228\",\"uid\":\"{UID}\"}},\"spec\":{{\"status\":\
         \"PipelineRunPending\"}}}}"
    );
    assert_eq!(requests, [format!("GET {PATH}"), patch]);
    let other = Found(run("", &json!({"metadata": {"uid": "other"}})));
    let refusal = || {
        status(
            400,
            "BadRequest",
            "validation failed: Invalid value: PipelineRun",
        )
    };
    for (answers, expected) in [
        (vec![not_found()], Ok(HoldOutcome::Gone)),
        (vec![other], Ok(HoldOutcome::Gone)),
        (vec![started()], Ok(HoldOutcome::TooLate)),
        (
            vec![Found(run("Cancelled", &json!({})))],
            Ok(HoldOutcome::TooLate),
        ),
        (
            vec![free(), conflict(), started()],
            Ok(HoldOutcome::TooLate),
        ),
        (
            vec![free(), conflict(), free(), pending()],
            Ok(HoldOutcome::Held),
        ),
        (vec![free(), refusal(), started()], Ok(HoldOutcome::TooLate)),
        (
            vec![free(), refusal(), free(), refusal()],
            Err(ClusterErrorKind::Refused),
        ),
        (
            vec![free(), ConnectionLost],
            Err(ClusterErrorKind::Indeterminate),
        ),
        (vec![free(), Silence], Err(ClusterErrorKind::Indeterminate)),
        (
            vec![free(), ConnectionRefused],
            Err(ClusterErrorKind::Unavailable),
        ),
        (vec![ConnectionLost], Err(ClusterErrorKind::Unavailable)),
    ] {
        let (outcome, requests) = hold(answers).await;
        assert_eq!(outcome, expected, "{requests:?}");
    }
}

/// A run that Tekton has begun with.
fn started() -> Answer {
    Found(run(
        "",
        &json!({"status": {"startTime": "2026-11-29T00:00:00Z"}}),
    ))
}

async fn end(
    form: SpecStatus,
    answers: Vec<Answer>,
) -> (Result<EndOutcome, ClusterErrorKind>, Vec<String>) {
    exchange(answers, async |cluster, run, uid| {
        let ended = cluster.request_end(&run, &uid, form).await;
        ended.map_err(|error| error.kind())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn an_end_is_asked_for_once_and_spares_the_finally_tasks_of_what_never_ran() {
    let graceful = || Found(run("CancelledRunFinally", &json!({})));
    let (outcome, requests) = end(SpecStatus::Cancelled, vec![graceful(), pending()]).await;
    assert_eq!(outcome, Ok(EndOutcome::Requested));
    let patch = format!(
        "PATCH {PATH}?&fieldManager=pac-concurrency application/merge-patch+json \
         {{\"metadata\":{{\"resourceVersion\":\"228\",\"uid\":\"{UID}\"}},\"spec\":{{\"status\":\
         \"Cancelled\"}}}}"
    );
    assert_eq!(requests, [format!("GET {PATH}"), patch]);
    let done = json!({"status": {"conditions": [{"type": "Succeeded", "status": "False"}]}});
    let (stop, at_once) = (SpecStatus::StoppedRunFinally, SpecStatus::Cancelled);
    for (form, answers, expected) in [
        (&stop, vec![graceful()], Ok(EndOutcome::Requested)),
        // It has started since it was looked at: its `finally` tasks are to run.
        (&at_once, vec![started()], Ok(EndOutcome::Runs)),
        (
            &at_once,
            vec![pending(), conflict(), started()],
            Ok(EndOutcome::Runs),
        ),
        (&stop, vec![Found(run("", &done))], Ok(EndOutcome::Done)),
        (&stop, vec![not_found()], Ok(EndOutcome::Gone)),
        (
            &stop,
            vec![pending(), not_found(), not_found()],
            Ok(EndOutcome::Gone),
        ),
        (
            &stop,
            vec![pending(), conflict(), pending(), pending()],
            Ok(EndOutcome::Requested),
        ),
        (
            &stop,
            vec![pending(), ConnectionLost],
            Err(ClusterErrorKind::Indeterminate),
        ),
    ] {
        let (outcome, requests) = end(form.clone(), answers).await;
        assert_eq!(outcome, expected, "{requests:?}");
    }
    let busy = (0..ATTEMPTS)
        .flat_map(|_| [pending(), conflict()])
        .collect();
    let (outcome, _) = end(SpecStatus::Cancelled, busy).await;
    assert_eq!(outcome, Err(ClusterErrorKind::Conflict));
}

async fn annotate(
    answers: Vec<Answer>,
) -> (Result<Option<RunView>, ClusterErrorKind>, Vec<String>) {
    exchange(answers, async |cluster, run, uid| {
        let marks = [
            (pac_pipelines::vocabulary::STATE, Some("queued")),
            ("x/y", None),
        ];
        let answer = cluster.annotate(&run, &uid, &marks).await;
        answer.map_err(|error| error.kind())
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn annotations_are_written_by_one_patch_that_names_the_uid() {
    let (outcome, requests) = annotate(vec![pending()]).await;
    assert_eq!(outcome.unwrap().unwrap().spec_status, SpecStatus::Pending);
    let patch = format!(
        "PATCH {PATH}?&fieldManager=pac-concurrency application/merge-patch+json \
         {{\"metadata\":{{\"annotations\":{{\"pipelinesascode.tekton.dev/state\":\"queued\",\
         \"x/y\":null}},\"uid\":\"{UID}\"}}}}"
    );
    assert_eq!(requests, [patch]);
    let other = Found(run("", &json!({"metadata": {"uid": "other"}})));
    for (answers, expected) in [
        (vec![not_found()], Ok(None)),
        (vec![wrong_uid(), other], Ok(None)),
        (vec![wrong_uid(), pending()], Err(ClusterErrorKind::Refused)),
        (
            vec![status(504, "Timeout", "context deadline exceeded")],
            Err(ClusterErrorKind::Indeterminate),
        ),
        (vec![ConnectionLost], Err(ClusterErrorKind::Indeterminate)),
        (vec![ConnectionRefused], Err(ClusterErrorKind::Unavailable)),
    ] {
        let (outcome, requests) = annotate(answers).await;
        assert_eq!(outcome, expected, "{requests:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_tells_an_absent_run_from_an_api_that_is_absent() {
    let read = async |answer| {
        let call = async |cluster: KubernetesCluster, run, _| {
            let found = cluster.read(&run).await;
            found.map_err(|error| error.to_string())
        };
        exchange(vec![answer], call).await.0
    };
    assert_eq!(read(not_found()).await, Ok(None));
    assert!(read(pending()).await.unwrap().is_some());
    let absent = read(Text(404, "404 page not found")).await.unwrap_err();
    assert!(
        absent.starts_with("read: refused (ci/t-s6szw): 404"),
        "{absent}"
    );
    let broken = read(Found(run("", &json!({"spec": {"status": 5}})))).await;
    assert!(broken.unwrap_err().contains("spec.status: must be a text"));
}
