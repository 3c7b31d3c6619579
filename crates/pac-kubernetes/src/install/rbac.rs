//! The controller's account and what it may do: nothing more than it needs.

use pac_pipelines::vocabulary::PAC_MANAGER;
use serde_json::{Value, json};

use super::manifest::Manifest;
use super::options::{Install, InstallMode};
use super::queues;

const RBAC: &str = "rbac.authorization.k8s.io/v1";
const RBAC_GROUP: &str = "rbac.authorization.k8s.io";

/// Something that the controller may do, in all namespaces or in its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Permission {
    pub(super) group: &'static str,
    pub(super) resource: &'static str,
    /// The one object that it is about; `None` for all of them.
    pub(super) name: Option<&'static str>,
    pub(super) verbs: &'static [&'static str],
}

impl Permission {
    fn rule(self) -> Value {
        let mut rule = json!({
            "apiGroups": [self.group],
            "resources": [self.resource],
            "verbs": self.verbs,
        });
        if let (Some(name), Some(rule)) = (self.name, rule.as_object_mut()) {
            rule.insert("resourceNames".to_owned(), json!([name]));
        }
        rule
    }
}

/// What the controller does in all namespaces.
pub(super) fn cluster_wide(install: &Install) -> Vec<Permission> {
    let runs: &[&str] = match install.mode {
        InstallMode::Takeover | InstallMode::Gate => &["get", "list", "watch", "patch"],
        InstallMode::Observe => &["get", "list", "watch"],
    };
    let of = |group, resource, verbs| Permission {
        group,
        resource,
        name: None,
        verbs,
    };
    let mut permissions = vec![
        of("tekton.dev", "pipelineruns", runs),
        of(PAC_MANAGER, "repositories", &["get", "list", "watch"]),
        of("events.k8s.io", "events", &["create", "patch"]),
    ];
    if install.mode == InstallMode::Gate {
        // Their annotations say which queues there are.
        permissions.push(of("", "namespaces", &["get", "list", "watch"]));
    }
    permissions.extend(install.shows_queues().then_some(queues::PERMISSION));
    permissions
}

/// What the controller does in its own namespace: it reads its settings.
pub(super) fn own_namespace() -> [Permission; 2] {
    let of = |resource, name| Permission {
        group: "",
        resource,
        name: Some(name),
        verbs: &["get", "watch"],
    };
    [
        of("configmaps", Install::CONFIG_MAP),
        of("secrets", Install::SECRET),
    ]
}

/// The account, the two roles, and their bindings.
pub(super) fn manifests(install: &Install) -> Vec<Manifest> {
    let cluster_wide = cluster_wide(install);
    account(install, Install::NAME, &cluster_wide, &own_namespace())
}

/// An account, what it may do everywhere and in its own namespace, and the bindings of both.
pub(super) fn account(
    install: &Install,
    name: &str,
    cluster_wide: &[Permission],
    own_namespace: &[Permission],
) -> Vec<Manifest> {
    let namespace = install.namespace.as_str();
    let rules =
        |permissions: &[Permission]| permissions.iter().map(|one| one.rule()).collect::<Value>();
    let role = |kind| json!({"apiGroup": RBAC_GROUP, "kind": kind, "name": name});
    let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": namespace}]);
    vec![
        Manifest::namespaced("v1", "ServiceAccount", namespace, name),
        Manifest::cluster_wide(RBAC, "ClusterRole", name).with("rules", rules(cluster_wide)),
        Manifest::cluster_wide(RBAC, "ClusterRoleBinding", name)
            .with("roleRef", role("ClusterRole"))
            .with("subjects", subjects.clone()),
        Manifest::namespaced(RBAC, "Role", namespace, name).with("rules", rules(own_namespace)),
        Manifest::namespaced(RBAC, "RoleBinding", namespace, name)
            .with("roleRef", role("Role"))
            .with("subjects", subjects),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(mode: InstallMode, kind: &str) -> Value {
        let manifests = manifests(&Install::default().with_mode(mode));
        let role = manifests.iter().find(|one| one.kind() == kind).unwrap();
        role.as_value()["rules"].clone()
    }

    #[test]
    fn the_controller_may_do_exactly_what_it_needs() {
        assert_eq!(
            rules(InstallMode::Takeover, "ClusterRole"),
            json!([
                {"apiGroups": ["tekton.dev"], "resources": ["pipelineruns"],
                 "verbs": ["get", "list", "watch", "patch"]},
                {"apiGroups": ["pipelinesascode.tekton.dev"], "resources": ["repositories"],
                 "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["events.k8s.io"], "resources": ["events"],
                 "verbs": ["create", "patch"]},
            ])
        );
        assert_eq!(
            rules(InstallMode::Gate, "Role"),
            json!([
                {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "watch"],
                 "resourceNames": ["pipelines-as-code"]},
                {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch"],
                 "resourceNames": ["pac-concurrency-secret"]},
            ])
        );
    }

    #[test]
    fn namespaces_are_read_where_they_may_say_something() {
        let namespaces = json!({"apiGroups": [""], "resources": ["namespaces"],
            "verbs": ["get", "list", "watch"]});
        let is_there = |mode| {
            rules(mode, "ClusterRole")
                .as_array()
                .unwrap()
                .contains(&namespaces)
        };
        assert!(is_there(InstallMode::Gate));
        assert!(!is_there(InstallMode::Takeover) && !is_there(InstallMode::Observe));
    }

    #[test]
    fn an_observer_changes_no_run() {
        let rules = rules(InstallMode::Observe, "ClusterRole");
        assert_eq!(rules[0]["verbs"], json!(["get", "list", "watch"]));
    }

    #[test]
    fn one_that_shows_queues_writes_their_objects_and_reads_none() {
        let install = Install::default().with_queues(true);
        let manifests = manifests(&install);
        let role = manifests.iter().find(|one| one.kind() == "ClusterRole");
        assert_eq!(
            role.unwrap().as_value()["rules"][3],
            json!({"apiGroups": ["concurrency.pipelinesascode.tekton.dev"],
                "resources": ["concurrencyqueues"], "verbs": ["create", "patch"]})
        );
    }

    #[test]
    fn both_roles_are_given_to_the_account_of_the_controller_alone() {
        let install = Install::default().with_namespace("queues");
        for binding in manifests(&install) {
            if let Some(subjects) = binding.as_value().get("subjects") {
                let account = json!([{"kind": "ServiceAccount", "name": Install::NAME, "namespace": "queues"}]);
                assert_eq!(*subjects, account);
                assert_eq!(binding.as_value()["roleRef"]["name"], Install::NAME);
            }
        }
    }
}
