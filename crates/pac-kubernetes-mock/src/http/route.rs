//! Paths: which request is about what.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::Query;
use axum::http::{Method, Uri};
use serde_json::Value;

use crate::call::{Call, Verb};
use crate::failure::Failure;
use crate::http::discovery;
use crate::resource::Resource;

/// What a path leads to.
#[derive(Debug)]
pub(crate) enum Route {
    /// A fixed document.
    Document(Value),
    /// The text `ok`.
    Health,
    /// Objects.
    Objects(Box<Call>),
}

/// Finds out what a request is about; the body and its type are yet to be put in.
///
/// # Errors
/// 404 for an unknown path, 405 for a method that the path does not have, 400 for a malformed
/// query.
pub(crate) fn route(
    resources: &[Arc<Resource>],
    method: &Method,
    uri: &Uri,
) -> Result<Route, Failure> {
    let segments: Vec<String> = uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .map(decode)
        .collect();
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    if let Some(document) = discovery::document(resources, &segments) {
        return Ok(Route::Document(document));
    }
    let (group, version, rest) = match segments.as_slice() {
        ["readyz" | "livez" | "healthz", ..] => return Ok(Route::Health),
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return Err(Failure::no_such_path()),
    };
    let find = |plural: &str| {
        let mut rows = resources.iter();
        rows.find(|row| row.group == group && row.version == version && row.plural == plural)
            .cloned()
            .ok_or_else(Failure::no_such_path)
    };
    let (namespace, plural, name, part) = match *rest {
        ["namespaces", namespace, plural, ref rest @ ..] if plural != "status" => match *rest {
            [] => (namespace, plural, "", ""),
            [name] => (namespace, plural, name, ""),
            [name, part] => (namespace, plural, name, part),
            _ => return Err(Failure::no_such_path()),
        },
        [plural] => ("", plural, "", ""),
        [plural, name] => ("", plural, name, ""),
        [plural, name, part] => ("", plural, name, part),
        _ => return Err(Failure::no_such_path()),
    };
    let resource = find(plural)?;
    let in_namespace = !namespace.is_empty();
    let misplaced = in_namespace && !resource.namespaced
        || !in_namespace && resource.namespaced && !name.is_empty();
    let status = match part {
        "" => false,
        "status" if resource.status => true,
        _ => return Err(Failure::no_such_path()),
    };
    if misplaced {
        return Err(Failure::no_such_path());
    }
    let Query(parameters) = Query::<HashMap<String, String>>::try_from_uri(uri)
        .map_err(|error| Failure::bad_request(error.to_string()))?;
    let watch = parameters
        .get("watch")
        .is_some_and(|value| value == "true" || value == "1");
    let everywhere = resource.namespaced && !in_namespace;
    let verb = verb(method, !name.is_empty(), watch, status, everywhere)?;
    let mut call = Call::new(verb, resource, namespace, name);
    call.status = status;
    call.parameters = parameters;
    Ok(Route::Objects(Box::new(call)))
}

fn verb(
    method: &Method,
    one: bool,
    watch: bool,
    status: bool,
    everywhere: bool,
) -> Result<Verb, Failure> {
    Ok(match (method.as_str(), one) {
        ("GET", false) if watch => Verb::Watch,
        ("GET", false) => Verb::List,
        ("GET", true) => Verb::Get,
        ("POST", false) if !everywhere => Verb::Create,
        ("PUT", true) => Verb::Update,
        ("PATCH", true) => Verb::Patch,
        ("DELETE", true) if !status => Verb::Delete,
        ("DELETE", false) if !everywhere => Verb::DeleteCollection,
        _ => return Err(Failure::not_allowed()),
    })
}

/// The segment without its percent signs.
fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let escaped = after
            .get(..2)
            .filter(|_| first == b'%')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(escaped.unwrap_or(first));
        rest = match escaped {
            Some(_) => after.get(2..).unwrap_or_default(),
            None => after,
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
