//! A server that answers from a script, and keeps the requests that came.

use std::io;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use kube::client::Body;
use pac_core::{PipelineRunKey, Uid};
use serde_json::{Value, json};
use tower_test::mock::{Handle, SendResponse, pair};

use crate::client::Client;
use crate::cluster::KubernetesCluster;
use crate::options::KubernetesOptions;

pub(super) const PATH: &str = "/apis/tekton.dev/v1/namespaces/ci/pipelineruns/t-s6szw";
pub(super) const UID: &str = "e102ca01-ea05-4154-b8e8-0bf7bbc2d43f";
const SERVER_REJECTED: &str = "the server rejected our request due to an error in our request";

type Server = Handle<Request<Body>, Response<Body>>;

/// What the server does with one request.
pub(super) enum Answer {
    Status(u16, &'static str, String),
    Object(Value),
    /// Bytes that are no object.
    Text(u16, &'static str),
    ConnectionLost,
    ConnectionRefused,
    /// Nothing, ever.
    Silence,
}

pub(super) fn status(code: u16, reason: &'static str, message: &str) -> Answer {
    Answer::Status(code, reason, message.to_owned())
}

pub(super) fn test_failed() -> Answer {
    status(422, "Invalid", SERVER_REJECTED)
}

pub(super) fn not_found() -> Answer {
    status(
        404,
        "NotFound",
        "pipelineruns.tekton.dev \"t-s6szw\" not found",
    )
}

pub(super) fn conflict() -> Answer {
    let message = "Operation cannot be fulfilled on pipelineruns.tekton.dev \"t-s6szw\": the object \
                   has been modified; please apply your changes to the latest version and try again";
    status(409, "Conflict", message)
}

pub(super) fn wrong_uid() -> Answer {
    let message = "PipelineRun.tekton.dev \"t-s6szw\" is invalid: metadata.uid: Invalid value: \
                   \"00000000-0000-0000-0000-000000000000\": field is immutable";
    status(422, "Invalid", message)
}

/// The run, with this `spec.status` and these further fields.
pub(super) fn run(spec_status: &str, more: &Value) -> Value {
    let mut object = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {"name": "t-s6szw", "namespace": "ci", "uid": UID, "resourceVersion": "228",
            "annotations": {"somebody/else": "x"}},
        "spec": {"pipelineSpec": {"tasks": []}}
    });
    if !spec_status.is_empty() {
        object["spec"]["status"] = spec_status.into();
    }
    json_patch::merge(&mut object, more);
    object
}

pub(super) fn pending() -> Answer {
    Answer::Object(run("PipelineRunPending", &json!({})))
}

/// Runs `call` against a server that answers the requests one after the other, and returns what
/// came of it with the requests that came, as `METHOD path content-type body`.
pub(super) async fn exchange<T>(
    answers: Vec<Answer>,
    call: impl AsyncFnOnce(KubernetesCluster, PipelineRunKey, Uid) -> T,
) -> (T, Vec<String>) {
    let (service, server) = pair::<Request<Body>, Response<Body>>();
    let options = KubernetesOptions::default().with_request_timeout(Duration::from_secs(1));
    let client = Client::new(kube::Client::new(service, "default"), options);
    let server = tokio::spawn(serve(server, answers));
    let cluster = KubernetesCluster::of(client);
    let run = "ci/t-s6szw".parse().unwrap();
    let outcome = call(cluster, run, UID.parse().unwrap()).await;
    (outcome, server.await.unwrap())
}

async fn serve(mut server: Server, answers: Vec<Answer>) -> Vec<String> {
    let mut requests = Vec::new();
    let mut silent = Vec::new();
    for answer in answers {
        let (request, respond) = server.next_request().await.expect("a request was due");
        requests.push(text(request).await);
        if let Some(open) = send(answer, respond) {
            silent.push(open);
        }
    }
    // Nothing is repeated by itself.
    while let Some((request, _)) = server.next_request().await {
        requests.push(format!("unexpected: {}", text(request).await));
    }
    requests
}

async fn text(request: Request<Body>) -> String {
    let (parts, body) = request.into_parts();
    let kind = parts.headers.get("content-type");
    let kind = kind.map(|kind| format!(" {}", kind.to_str().unwrap()));
    let body = body.collect_bytes().await.unwrap();
    let body = String::from_utf8(body.to_vec()).unwrap();
    let line = format!(
        "{} {}{} {body}",
        parts.method,
        parts.uri,
        kind.unwrap_or_default()
    );
    line.trim_end().to_owned()
}

fn send(
    answer: Answer,
    respond: SendResponse<Response<Body>>,
) -> Option<SendResponse<Response<Body>>> {
    let reply = |code: u16, text: String| {
        let mut response = Response::new(Body::from(text.into_bytes()));
        *response.status_mut() = StatusCode::from_u16(code).unwrap();
        response
    };
    match answer {
        Answer::Status(code, reason, message) => {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {},
                "status": "Failure", "message": message, "reason": reason, "code": code});
            respond.send_response(reply(code, status.to_string()));
        }
        Answer::Object(object) => respond.send_response(reply(200, object.to_string())),
        Answer::Text(code, text) => respond.send_response(reply(code, text.to_owned())),
        Answer::ConnectionLost => {
            respond.send_error(io::Error::from(io::ErrorKind::ConnectionReset));
        }
        Answer::ConnectionRefused => {
            respond.send_error(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        Answer::Silence => return Some(respond),
    }
    None
}
