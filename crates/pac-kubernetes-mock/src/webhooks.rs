//! Mutating webhooks: the server calls those of the MutatingWebhookConfigurations over HTTPS, as a
//! real one does, where a test says at which address a Service is.
//!
//! Selectors and rules are looked at, conditions in CEL are not: what a webhook is asked too often
//! is what a real server before 1.30 asks.

mod https;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::call::{Answer, Call, Content, Verb};
use crate::failure::Failure;
use crate::object::{self, text};
use crate::selector::Selector;
use crate::server::Shared;
use crate::store::State;

/// The label of each namespace with its name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";

/// How often a change is asked about again, since the object was changed meanwhile.
const ATTEMPTS: u32 = 10;

/// Where the Services of webhooks are.
#[derive(Debug, Default)]
pub(crate) struct Webhooks {
    services: Mutex<HashMap<(String, String), SocketAddr>>,
}

impl Webhooks {
    pub(crate) fn set(&self, namespace: &str, name: &str, address: Option<SocketAddr>) {
        let key = (namespace.to_owned(), name.to_owned());
        let mut services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        match address {
            Some(address) => services.insert(key, address),
            None => services.remove(&key),
        };
    }

    fn address(&self, namespace: &str, name: &str) -> Option<SocketAddr> {
        let key = (namespace.to_owned(), name.to_owned());
        let services = self.services.lock().unwrap_or_else(PoisonError::into_inner);
        services.get(&key).copied()
    }
}

/// Does what a call asks for, after the webhooks that it concerns have changed the object.
///
/// # Errors
/// As of the verb; and the refusal of a webhook, or its failure by its failure policy.
pub(crate) fn call(shared: &Shared, call: &Call) -> Result<Answer, Failure> {
    if !call.verb.writes() || call.status {
        return shared.perform(call);
    }
    for _ in 1..ATTEMPTS {
        let asked = Asked::about(&shared.lock(), call);
        if asked.webhooks.is_empty() {
            return shared.perform(call);
        }
        let admitted = asked.admit(shared, call)?;
        match shared.perform(&admitted) {
            // Another one has changed it while the webhooks were asked.
            Err(failure)
                if failure.code == 409
                    && admitted.verb == Verb::Update
                    && call.verb == Verb::Patch => {}
            answer => return answer,
        }
    }
    shared.perform(call)
}

/// What webhooks are asked about a write.
struct Asked {
    webhooks: Vec<Value>,
    /// The object as it is; absent when it is made.
    old: Option<Arc<Value>>,
    namespace: Value,
}

impl Asked {
    fn about(state: &State, call: &Call) -> Self {
        let operation = match call.verb {
            Verb::Create => "CREATE",
            Verb::Update | Verb::Patch => "UPDATE",
            _ => "",
        };
        let find = |plural: &str, name: &str| {
            let resource = state.resource_named(plural).ok()?;
            state.find(&resource, "", name)
        };
        let mut asked = Self {
            webhooks: Vec::new(),
            old: state.find(&call.resource, &call.namespace, &call.name),
            namespace: find("namespaces", &call.namespace)
                .map_or(Value::Null, Arc::unwrap_or_clone),
        };
        if operation.is_empty() {
            return asked;
        }
        let Ok(configurations) = state.resource_named("mutatingwebhookconfigurations") else {
            return asked;
        };
        for configuration in state.select(&configurations, "", &Selector::default()) {
            let webhooks = configuration.get("webhooks").and_then(Value::as_array);
            let concerned = webhooks.into_iter().flatten().filter(|webhook| {
                let rules = webhook.get("rules").and_then(Value::as_array);
                let mut rules = rules.into_iter().flatten();
                rules.any(|rule| {
                    let has = |field: &str, wanted: &str| {
                        let all = rule.get(field).and_then(Value::as_array);
                        let mut all = all.into_iter().flatten().filter_map(Value::as_str);
                        all.any(|one| one == wanted || one == "*")
                    };
                    has("apiGroups", &call.resource.group)
                        && has("apiVersions", &call.resource.version)
                        && has("resources", &call.resource.plural)
                        && has("operations", operation)
                })
            });
            asked.webhooks.extend(concerned.cloned());
        }
        asked
    }

    /// The call with the object that the webhooks leave.
    fn admit(&self, shared: &Shared, call: &Call) -> Result<Call, Failure> {
        let mut dry = call.clone();
        dry.parameters.insert("dryRun".to_owned(), "All".to_owned());
        let Content::Object(object) = shared.perform(&dry)?.content else {
            return Ok(call.clone());
        };
        let mut object = Arc::unwrap_or_clone(object);
        for webhook in &self.webhooks {
            if self.is_selected(webhook, &object) {
                self.ask(shared, webhook, call, &mut object)?;
            }
        }
        let mut admitted = call.clone();
        if call.verb != Verb::Create {
            admitted.verb = Verb::Update;
            admitted.content_type = "application/json".to_owned();
        }
        admitted.body = object;
        Ok(admitted)
    }

    fn is_selected(&self, webhook: &Value, object: &Value) -> bool {
        let selects = |field: &str, object: &Value| match webhook.get(field) {
            Some(selector) => label_selector(selector).is_ok_and(|found| found.matches(object)),
            None => true,
        };
        let mut namespace = self.namespace.clone();
        let name = json!(object::name(&namespace));
        object::metadata_fields(&mut namespace, "labels").insert(NAMESPACE_NAME.to_owned(), name);
        let old = self.old.as_deref();
        selects("namespaceSelector", &namespace)
            && (selects("objectSelector", object)
                || old.is_some_and(|old| selects("objectSelector", old)))
    }

    /// Asks one webhook, and does to the object what it says.
    fn ask(
        &self,
        shared: &Shared,
        webhook: &Value,
        call: &Call,
        object: &mut Value,
    ) -> Result<(), Failure> {
        let name = text(webhook, "/name");
        let answered = self
            .send(shared, webhook, call, object)
            .and_then(|response| Ok((apply(&response, object)?, response)));
        match answered {
            Ok((true, _)) => Ok(()),
            Ok((false, response)) => {
                let code = response.pointer("/status/code").and_then(Value::as_u64);
                let code = code.and_then(|code| u16::try_from(code).ok());
                let said = text(&response, "/status/message");
                let message = format!("admission webhook \"{name}\" denied the request: {said}");
                let reason = text(&response, "/status/reason");
                Err(Failure::new(code.unwrap_or(403), reason, message))
            }
            Err(_) if text(webhook, "/failurePolicy") == "Ignore" => Ok(()),
            Err(error) => {
                let message = format!(
                    "Internal error occurred: failed calling webhook \"{name}\": failed to call \
                     webhook: {error}"
                );
                Err(Failure::new(500, "InternalError", message))
            }
        }
    }

    /// The `response` of the review.
    fn send(
        &self,
        shared: &Shared,
        webhook: &Value,
        call: &Call,
        object: &Value,
    ) -> Result<Value, String> {
        let service = |field: &str| text(webhook, &format!("/clientConfig/service/{field}"));
        let (namespace, name) = (service("namespace"), service("name"));
        let Some(address) = shared.webhooks.address(namespace, name) else {
            return Err(format!("service \"{name}\" not found"));
        };
        let uid = object::new_uid();
        let resource = &call.resource;
        let review = json!({
            "kind": "AdmissionReview",
            "apiVersion": "admission.k8s.io/v1",
            "request": {
                "uid": uid,
                "kind": {
                    "group": resource.group, "version": resource.version, "kind": resource.kind,
                },
                "resource": {
                    "group": resource.group, "version": resource.version,
                    "resource": resource.plural,
                },
                "name": object::name(object),
                "namespace": call.namespace,
                "operation": if call.verb == Verb::Create { "CREATE" } else { "UPDATE" },
                "object": object,
                "oldObject": self.old.as_deref(),
                "dryRun": call.dry_run(),
            },
        });
        let timeout = webhook.get("timeoutSeconds").and_then(Value::as_u64);
        let target = https::Target {
            address,
            server: format!("{name}.{namespace}.svc"),
            path: service("path").to_owned(),
            authorities: STANDARD
                .decode(text(webhook, "/clientConfig/caBundle"))
                .map_err(|error| format!("the caBundle: {error}"))?,
            timeout: Duration::from_secs(timeout.unwrap_or(10)),
        };
        let answer = https::post(&target, &review.to_string())?;
        let mut answer: Value = serde_json::from_str(&answer)
            .map_err(|error| format!("the answer is not JSON: {error}"))?;
        if text(&answer, "/response/uid") != uid {
            return Err(format!("expected response.uid={uid}"));
        }
        Ok(answer
            .get_mut("response")
            .map(Value::take)
            .unwrap_or_default())
    }
}

/// Does the patch of a response; whether the request is allowed.
fn apply(response: &Value, object: &mut Value) -> Result<bool, String> {
    if response.get("allowed").and_then(Value::as_bool) != Some(true) {
        return Ok(false);
    }
    let patch = text(response, "/patch");
    if !patch.is_empty() {
        let patch = STANDARD.decode(patch).map_err(|error| error.to_string())?;
        let patch: json_patch::Patch =
            serde_json::from_slice(&patch).map_err(|error| error.to_string())?;
        json_patch::patch(object, &patch).map_err(|error| error.to_string())?;
    }
    Ok(true)
}

/// The selector that a LabelSelector means.
fn label_selector(selector: &Value) -> Result<Selector, Failure> {
    let mut parts = Vec::new();
    let labels = selector.get("matchLabels").and_then(Value::as_object);
    for (key, value) in labels.into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str().unwrap_or_default()));
    }
    let expressions = selector.get("matchExpressions").and_then(Value::as_array);
    for expression in expressions.into_iter().flatten() {
        let key = text(expression, "/key");
        let values = expression.get("values").and_then(Value::as_array);
        let values: Vec<&str> = values
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let values = values.join(",");
        parts.push(match text(expression, "/operator") {
            "In" => format!("{key} in ({values})"),
            "NotIn" => format!("{key} notin ({values})"),
            "Exists" => key.to_owned(),
            _ => format!("!{key}"),
        });
    }
    Selector::parse(&parts.join(","), "")
}
