//! CustomResourceDefinitions: each adds a row per served version to the server's table.

use serde_json::{Value, json};

use crate::object::{self, text};
use crate::resource::Resource;
use crate::store::State;

/// Whether the objects of a resource declare resources.
pub(crate) fn declares(resource: &Resource) -> bool {
    resource.plural == "customresourcedefinitions"
}

/// The status of a definition that the server has taken up, which it does at once.
pub(crate) fn established() -> Value {
    let condition = |kind: &str, reason: &str| {
        json!({
            "type": kind,
            "status": "True",
            "reason": reason,
            "message": "",
            "lastTransitionTime": object::now(),
        })
    };
    json!({"conditions": [
        condition("NamesAccepted", "NoConflicts"),
        condition("Established", "InitialNamesAccepted"),
    ]})
}

/// Adds the rows of a definition that was written.
pub(crate) fn declared(state: &mut State, definition: &Value) {
    for row in rows(definition) {
        state.add_resource(row);
    }
}

/// Takes away the rows of a definition that was deleted. The rows of a new server stay.
pub(crate) fn withdrawn(state: &mut State, definition: &Value) {
    for row in rows(definition) {
        state.remove_resource(&row);
    }
}

fn rows(definition: &Value) -> Vec<Resource> {
    let versions = definition.pointer("/spec/versions");
    let versions = versions.and_then(Value::as_array).into_iter().flatten();
    versions
        .filter(|version| version.get("served") == Some(&Value::Bool(true)))
        .map(|version| {
            let mut row = Resource::new(
                text(definition, "/spec/group"),
                text(version, "/name"),
                text(definition, "/spec/names/plural"),
                text(definition, "/spec/names/kind"),
            )
            .custom();
            row.namespaced = text(definition, "/spec/scope") != "Cluster";
            row.status = version.pointer("/subresources/status").is_some();
            row
        })
        .collect()
}
