//! Answers: from a request on a connection to the response.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::{Value, json};

use crate::call::{Answer, Call, Content, Verb};
use crate::failure::Failure;
use crate::faults::{Fault, Gone, HoldPoint, Lost};
use crate::http::connection::{Connection, Switch};
use crate::http::route::{Route, route};
use crate::http::watch;
use crate::object::as_map;
use crate::resource::Resource;
use crate::server::Shared;

/// A request with a larger body is refused: a real server takes 3 MiB.
const BODY_LIMIT: usize = 3 << 20;

/// Answers one request.
pub(crate) async fn answer(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(Connection(switch)): ConnectInfo<Connection>,
    request: Request,
) -> Response {
    match attempt(&shared, &switch, request).await {
        Ok(response) => response,
        Err(failure) => refused(&failure),
    }
}

async fn attempt(
    shared: &Arc<Shared>,
    switch: &Arc<Switch>,
    request: Request,
) -> Result<Response, Failure> {
    let (head, body) = request.into_parts();
    let resources = shared.lock().resources().to_vec();
    let mut call = match route(&resources, &head.method, &head.uri)? {
        Route::Document(document) => return Ok(json_response(200, &document)),
        Route::Health => return Ok(response(200, "text/plain", Body::from("ok"))),
        Route::Objects(call) => *call,
    };
    let bytes = to_bytes(body, BODY_LIMIT)
        .await
        .map_err(|error| Failure::new(413, "RequestEntityTooLarge", error.to_string()))?;
    if !bytes.is_empty() {
        call.body = serde_json::from_slice(&bytes)
            .map_err(|error| Failure::bad_request(format!("the body is not JSON: {error}")))?;
    }
    call.content_type = media_type(&head.headers);
    let partial = wants_partial(&head.headers);

    shared.log.record(&call);
    shared.faults.hold(HoldPoint::Before, &call).await;
    let fault = shared.faults.take(&call);
    match &fault {
        Some(Fault::Refused(failure)) => return Err(failure.clone()),
        Some(Fault::Gone(form)) => return gone(shared, *form, &call),
        Some(Fault::Lost(_)) | None => {}
    }
    if call.verb == Verb::Watch {
        let body = watch::body(shared, &call, partial, Arc::clone(switch))?;
        return Ok(response(200, "application/json", body));
    }
    let answer = shared.call(&call);
    shared.faults.hold(HoldPoint::After, &call).await;
    match fault {
        Some(Fault::Lost(Lost::Answered(failure))) => return Err(failure),
        // The response that follows cannot be written any more.
        Some(Fault::Lost(Lost::Dropped)) => switch.cut(),
        _ => {}
    }
    let Answer { code, content } = answer?;
    let text = match &content {
        Content::Object(object) if partial => as_partial(object).to_string(),
        Content::Object(object) => object.to_string(),
        Content::List {
            resource,
            metadata,
            items,
        } => list_text(resource, metadata, items, partial),
    };
    Ok(response(code, "application/json", Body::from(text + "\n")))
}

/// The object with nothing but its metadata.
pub(crate) fn as_partial(object: &Value) -> Value {
    if object.get("kind").is_some_and(|kind| kind == "Status") {
        return object.clone();
    }
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": object.get("metadata").cloned().unwrap_or_default(),
    })
}

/// The list as JSON, written without a copy of its items.
fn list_text(resource: &Resource, metadata: &Value, items: &[Arc<Value>], partial: bool) -> String {
    let (kind, version) = if partial {
        (
            "PartialObjectMetadataList".to_owned(),
            "meta.k8s.io/v1".to_owned(),
        )
    } else {
        (format!("{}List", resource.kind), resource.api_version())
    };
    let items = items.iter().map(|item| {
        if partial {
            as_partial(item).to_string()
        } else if resource.custom {
            item.to_string()
        } else {
            without_kind(item).to_string()
        }
    });
    let items = items.collect::<Vec<_>>().join(",");
    format!(
        r#"{{"kind":"{kind}","apiVersion":"{version}","metadata":{metadata},"items":[{items}]}}"#
    )
}

/// Built-in resources leave the kind out of each item of a list.
fn without_kind(item: &Value) -> Value {
    let mut item = item.clone();
    let fields = as_map(&mut item);
    fields.remove("kind");
    fields.remove("apiVersion");
    item
}

fn gone(shared: &Shared, form: Gone, call: &Call) -> Result<Response, Failure> {
    let asked = call.revision()?.unwrap_or_default();
    let failure = Failure::too_old(asked, shared.lock().revision());
    match form {
        Gone::Response => Err(failure),
        Gone::Event => Ok(response(200, "application/json", watch::gone(&failure))),
    }
}

fn refused(failure: &Failure) -> Response {
    let mut response = if failure.plain {
        let body = Body::from(failure.message.clone());
        response(failure.code, "text/plain; charset=utf-8", body)
    } else {
        json_response(failure.code, &failure.status())
    };
    if let Some(seconds) = failure.retry_after {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn json_response(code: u16, body: &Value) -> Response {
    response(code, "application/json", Body::from(format!("{body}\n")))
}

fn response(code: u16, media_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() =
        StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let value = header::HeaderValue::from_static(media_type);
    response.headers_mut().insert(header::CONTENT_TYPE, value);
    response
}

fn media_type(headers: &HeaderMap) -> String {
    let value = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let media_type = value.and_then(|value| value.split(';').next());
    media_type.unwrap_or_default().trim().to_owned()
}

fn wants_partial(headers: &HeaderMap) -> bool {
    headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.contains("as=PartialObjectMetadata"))
}
