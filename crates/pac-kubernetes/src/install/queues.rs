//! The definition of the objects that show queues, and what the controller may do with them.

use serde_json::{Value, json};

use super::manifest::Manifest;
use super::rbac::Permission;
use crate::queue::{API_VERSION, GROUP, KIND, LIMIT, OLDEST, PLURAL, RUNNING, VERSION, WAITING};

/// The group and version of the objects.
pub(super) const OBJECTS: &str = API_VERSION;

/// The name that the objects are served under.
pub(super) const SERVED: &str = PLURAL;

/// The name of the definition.
pub(super) const DEFINITION: &str = "concurrencyqueues.concurrency.pipelinesascode.tekton.dev";

/// The controller makes the objects and changes them. It never reads them.
pub(super) const PERMISSION: Permission = Permission {
    group: GROUP,
    resource: PLURAL,
    name: None,
    verbs: &["create", "patch"],
};

/// The definition.
pub(super) fn definition() -> Manifest {
    let spec = json!({
        "group": GROUP,
        "names": {
            "kind": KIND,
            "listKind": format!("{KIND}List"),
            "plural": PLURAL,
            "singular": "concurrencyqueue",
            // `cq` is taken by Kueue.
            "shortNames": ["pacq"],
        },
        "scope": "Namespaced",
        "versions": [{
            "name": VERSION,
            "served": true,
            "storage": true,
            "schema": {"openAPIV3Schema": schema()},
            "additionalPrinterColumns": columns(),
        }],
    });
    Manifest::cluster_wide(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        DEFINITION,
    )
    .with("spec", spec)
}

fn columns() -> Value {
    let column = |name: &str, kind: &str, field: &str| json!({"name": name, "type": kind, "jsonPath": format!(".status.{field}")});
    json!([
        column("Limit", "integer", LIMIT),
        column("Running", "integer", RUNNING),
        column("Waiting", "integer", WAITING),
        column("Oldest", "date", OLDEST),
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ])
}

fn schema() -> Value {
    let number = |description: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": description});
    let status = json!({
        "type": "object",
        "description": "The queue as the controller saw it last.",
        "properties": {
            LIMIT: number("How many runs may run at once; absent where there is no limit."),
            RUNNING: number("How many runs hold a slot."),
            WAITING: number("How many runs wait."),
            OLDEST: {
                "type": "string",
                "format": "date-time",
                "description": "Since when the run waits that has waited longest.",
            },
        },
    });
    json!({
        "type": "object",
        "description": "The queue of the Repository of the same name, for people to see. The \
                        controller writes it and never reads it: a change to it changes nothing.",
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "status": status,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_has_the_name_that_the_api_asks_for_and_shows_what_is_written() {
        let definition = definition();
        assert_eq!(definition.name(), format!("{PLURAL}.{GROUP}"));
        let version = &definition.as_value()["spec"]["versions"][0];
        let fields = &version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"];
        let columns = version["additionalPrinterColumns"].as_array().unwrap();
        let shown: Vec<_> = columns
            .iter()
            .filter_map(|column| column["jsonPath"].as_str()?.strip_prefix(".status."))
            .collect();
        assert_eq!(shown, [LIMIT, RUNNING, WAITING, OLDEST]);
        assert!(shown.iter().all(|field| fields[field].is_object()));
    }
}
