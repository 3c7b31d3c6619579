//! The documents by which clients find out what there is.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::resource::Resource;

/// The document at a path, if one is there.
pub(crate) fn document(resources: &[Arc<Resource>], path: &[&str]) -> Option<Value> {
    match *path {
        ["version"] => Some(version()),
        ["api"] => Some(json!({
            "kind": "APIVersions",
            "versions": ["v1"],
            "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => {
            let names: BTreeSet<&str> = resources.iter().map(|row| row.group.as_str()).collect();
            let groups = names.into_iter().filter(|name| !name.is_empty());
            let groups: Vec<Value> = groups.filter_map(|name| group(resources, name)).collect();
            Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}))
        }
        ["apis", name] => {
            let mut group = group(resources, name)?;
            crate::object::as_map(&mut group).insert("kind".to_owned(), json!("APIGroup"));
            crate::object::as_map(&mut group).insert("apiVersion".to_owned(), json!("v1"));
            Some(group)
        }
        ["api", version] => list(resources, "", version),
        ["apis", group, version] => list(resources, group, version),
        _ => None,
    }
}

/// The release whose answers were recorded.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": "v1.36.2",
        "gitCommit": "0000000000000000000000000000000000000000",
        "gitTreeState": "clean",
        "buildDate": "2026-01-01T00:00:00Z",
        "goVersion": "go1.26.0",
        "compiler": "gc",
        "platform": "linux/amd64",
    })
}

fn group(resources: &[Arc<Resource>], name: &str) -> Option<Value> {
    let rows = resources.iter().filter(|row| row.group == name);
    let versions: BTreeSet<&str> = rows.map(|row| row.version.as_str()).collect();
    let versions: Vec<Value> = versions
        .into_iter()
        .map(|version| json!({"groupVersion": format!("{name}/{version}"), "version": version}))
        .collect();
    let preferred = versions.first()?.clone();
    Some(json!({"name": name, "versions": versions, "preferredVersion": preferred}))
}

fn list(resources: &[Arc<Resource>], group: &str, version: &str) -> Option<Value> {
    let rows: Vec<&Arc<Resource>> = resources
        .iter()
        .filter(|row| row.group == group && row.version == version)
        .collect();
    let group_version = rows.first()?.api_version();
    let mut entries = Vec::new();
    for row in rows {
        entries.push(json!({
            "name": row.plural,
            "singularName": row.kind.to_lowercase(),
            "namespaced": row.namespaced,
            "kind": row.kind,
            "verbs": [
                "create", "delete", "deletecollection", "get", "list", "patch", "update", "watch",
            ],
        }));
        if row.status {
            entries.push(json!({
                "name": format!("{}/status", row.plural),
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": row.kind,
                "verbs": ["get", "patch", "update"],
            }));
        }
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": entries,
    }))
}
