//! What the server answers instead of an object: `Status` objects, worded as a real API server
//! words them.

use serde_json::{Value, json};

use crate::resource::Resource;

/// An error of the API: its HTTP status, and the `Status` object in the body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
#[non_exhaustive]
pub struct Failure {
    /// The HTTP status.
    pub code: u16,
    /// The machine-readable reason, such as `Conflict`; empty where a real server gives none.
    pub reason: String,
    /// The message, word for word that of a real server where one was recorded.
    pub message: String,
    /// The `details` of the `Status`; `null` for none.
    pub details: Value,
    /// The seconds in a `Retry-After` header.
    pub retry_after: Option<u32>,
    /// Whether the body is the message as plain text, as the server's outer filters answer.
    pub plain: bool,
}

impl Failure {
    /// An error with a `Status` as its body.
    pub fn new(code: u16, reason: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason: reason.to_owned(),
            message: message.into(),
            details: Value::Null,
            retry_after: None,
            plain: false,
        }
    }

    /// 404: there is no such object.
    pub fn not_found(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" not found", resource.qualified_plural());
        Self::new(404, "NotFound", message).about(resource, &resource.plural, name)
    }

    /// 404 as plain text: there is no such path.
    pub fn no_such_path() -> Self {
        let mut failure = Self::new(404, "", "404 page not found\n");
        failure.plain = true;
        failure
    }

    /// 409: an object of this name exists.
    pub fn already_exists(resource: &Resource, name: &str) -> Self {
        let message = format!("{} \"{name}\" already exists", resource.qualified_plural());
        Self::new(409, "AlreadyExists", message).about(resource, &resource.plural, name)
    }

    /// 409: the object is not what the request expects.
    pub fn conflict(resource: &Resource, named: &str, name: &str, why: &str) -> Self {
        let qualified = if resource.group.is_empty() {
            named.to_owned()
        } else {
            format!("{named}.{}", resource.group)
        };
        let message = format!("Operation cannot be fulfilled on {qualified} \"{name}\": {why}");
        Self::new(409, "Conflict", message).about(resource, named, name)
    }

    /// 409: the request's resourceVersion is not the object's.
    pub fn modified(resource: &Resource, name: &str) -> Self {
        let why = "the object has been modified; \
                   please apply your changes to the latest version and try again";
        Self::conflict(resource, &resource.plural, name, why)
    }

    /// 422: a field has a value that it must not have.
    pub fn invalid(resource: &Resource, name: &str, field: &str, value: &str, rule: &str) -> Self {
        let problem = format!("Invalid value: \"{value}\": {rule}");
        let kind = resource.qualified_kind();
        let message = format!("{kind} \"{name}\" is invalid: {field}: {problem}");
        let mut failure = Self::new(422, "Invalid", message).about(resource, &resource.kind, name);
        if let Some(details) = failure.details.as_object_mut() {
            let cause =
                json!([{"reason": "FieldValueInvalid", "message": problem, "field": field}]);
            details.insert("causes".to_owned(), cause);
        }
        failure
    }

    /// 422: a JSON patch whose `test` failed, or whose path does not exist. The server says no more.
    pub fn unprocessable() -> Self {
        let message = "the server rejected our request due to an error in our request";
        Self::new(422, "Invalid", message).with_details(json!({}))
    }

    /// 415: a patch of a type that the resource does not take.
    pub fn unsupported_patch(resource: &Resource) -> Self {
        let strategic = if resource.custom {
            ""
        } else {
            "application/strategic-merge-patch+json, "
        };
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json-patch+json, application/merge-patch+json, \
             {strategic}application/apply-patch+yaml"
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 400: the request makes no sense.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 405: the path has no such verb.
    pub fn not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message).with_details(json!({}))
    }

    /// 410: the history does not reach back to `asked`.
    pub fn too_old(asked: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {asked} ({oldest})");
        Self::new(410, "Expired", message)
    }

    /// 410: the pages that the token belongs to are no longer kept.
    pub fn continue_expired() -> Self {
        let message = "The provided continue parameter is too old to display a consistent list \
                       result. You must start a new list without the continue parameter.";
        Self::new(410, "Expired", message)
    }

    /// 504: the request names a revision that does not exist yet.
    pub fn too_large(asked: u64, current: u64) -> Self {
        let message = format!("Timeout: Too large resource version: {asked}, current: {current}");
        let cause = json!([{
            "reason": "ResourceVersionTooLarge",
            "message": "Too large resource version",
        }]);
        Self::new(504, "Timeout", message)
            .with_details(json!({"causes": cause, "retryAfterSeconds": 1}))
    }

    /// The `Status` object.
    #[must_use]
    pub fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code,
        });
        if let Some(fields) = status.as_object_mut() {
            if !self.reason.is_empty() {
                fields.insert("reason".to_owned(), json!(self.reason));
            }
            if !self.details.is_null() {
                fields.insert("details".to_owned(), self.details.clone());
            }
        }
        status
    }

    pub(crate) fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    fn about(self, resource: &Resource, kind: &str, name: &str) -> Self {
        let mut details = json!({"name": name, "kind": kind});
        if let Some(fields) = details.as_object_mut()
            && !resource.group.is_empty()
        {
            fields.insert("group".to_owned(), json!(resource.group));
        }
        self.with_details(details)
    }
}
