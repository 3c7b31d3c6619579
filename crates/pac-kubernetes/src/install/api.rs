//! The API server, for an installation: the one file of it that talks to the client library.

use std::fmt;
use std::time::Duration;

use kube::api::{
    Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
    PropagationPolicy,
};
use kube::config::AuthInfo;
use kube::core::{ApiResource, GroupVersion};
use kube::{Client, Config};
use serde_json::Value;

use super::error::{InstallError, InstallErrorKind};
use super::manifest::Manifest;
use crate::error::with_causes;
use crate::kubeconfig;

/// The name that fields are owned by.
const FIELD_MANAGER: &str = "pac-kubernetes";

/// How long the API server may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(60);

/// How many objects one page of a list has at most.
const PAGE: u32 = 500;

/// A kind of object, as the API addresses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(super) api_version: &'static str,
    pub(super) name: &'static str,
    pub(super) plural: &'static str,
}

const fn kind(api_version: &'static str, name: &'static str, plural: &'static str) -> Kind {
    Kind {
        api_version,
        name,
        plural,
    }
}

pub(super) const POLICY_VERSION: &str = "admissionregistration.k8s.io/v1";
pub(super) const NAMESPACE: Kind = kind("v1", "Namespace", "namespaces");
pub(super) const CONFIG_MAP: Kind = kind("v1", "ConfigMap", "configmaps");
pub(crate) const SECRET: Kind = kind("v1", "Secret", "secrets");
pub(super) const POD: Kind = kind("v1", "Pod", "pods");
pub(super) const DEPLOYMENT: Kind = kind("apps/v1", "Deployment", "deployments");
pub(super) const RUN: Kind = kind("tekton.dev/v1", "PipelineRun", "pipelineruns");
pub(crate) const REPOSITORY: Kind = kind(
    "pipelinesascode.tekton.dev/v1alpha1",
    "Repository",
    "repositories",
);
pub(super) const POLICY: Kind = kind(
    POLICY_VERSION,
    "MutatingAdmissionPolicy",
    "mutatingadmissionpolicies",
);
pub(super) const BINDING: Kind = kind(
    POLICY_VERSION,
    "MutatingAdmissionPolicyBinding",
    "mutatingadmissionpolicybindings",
);
pub(crate) const WEBHOOK_CONFIGURATION: Kind = kind(
    POLICY_VERSION,
    "MutatingWebhookConfiguration",
    "mutatingwebhookconfigurations",
);
pub(super) const ACCESS_REVIEW: Kind = kind(
    "authorization.k8s.io/v1",
    "SubjectAccessReview",
    "subjectaccessreviews",
);
const RBAC_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// Every kind of object that is installed.
const INSTALLED: [Kind; 15] = [
    NAMESPACE,
    CONFIG_MAP,
    DEPLOYMENT,
    POLICY,
    BINDING,
    WEBHOOK_CONFIGURATION,
    SECRET,
    kind("v1", "Service", "services"),
    kind("v1", "ServiceAccount", "serviceaccounts"),
    kind(RBAC_VERSION, "ClusterRole", "clusterroles"),
    kind(RBAC_VERSION, "ClusterRoleBinding", "clusterrolebindings"),
    kind(RBAC_VERSION, "Role", "roles"),
    kind(RBAC_VERSION, "RoleBinding", "rolebindings"),
    kind("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
    kind(
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
    ),
];

/// One object, or all objects of a kind in a namespace or in the cluster.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: Option<&'a str>,
    pub(super) name: &'a str,
}

impl<'a> Place<'a> {
    pub(crate) fn new(kind: Kind, namespace: impl Into<Option<&'a str>>, name: &'a str) -> Self {
        Self {
            kind,
            namespace: namespace.into(),
            name,
        }
    }

    /// An object of a kind that is in no namespace.
    pub(crate) const fn cluster_wide(kind: Kind, name: &'a str) -> Self {
        Self {
            kind,
            namespace: None,
            name,
        }
    }

    /// Where an installed object is.
    pub(super) fn of(manifest: &'a Manifest) -> Result<Self, InstallError> {
        let mut kinds = INSTALLED.into_iter();
        let found = kinds.find(|kind| {
            kind.name == manifest.kind() && kind.api_version == manifest.api_version()
        });
        let Some(kind) = found else {
            let message = "is of a kind that is not known here; this is a bug";
            return Err(InstallError::new(
                InstallErrorKind::Refused,
                manifest,
                message,
            ));
        };
        Ok(Self::new(kind, manifest.namespace(), manifest.name()))
    }
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name)?;
        match (self.namespace, self.name) {
            (Some(namespace), "") => write!(f, "s of {namespace}"),
            (None, "") => f.write_str("s"),
            (Some(namespace), name) => write!(f, " {namespace}/{name}"),
            (None, name) => write!(f, " {name}"),
        }
    }
}

/// How an object is changed.
#[derive(Debug)]
pub(crate) enum Change {
    /// A JSON patch.
    Json(json_patch::Patch),
    /// A merge patch.
    Merge(Value),
}

/// A connection to the API server of a cluster. It never repeats a request by itself.
#[derive(Clone)]
pub struct ClusterAccess {
    client: Client,
}

impl ClusterAccess {
    /// The cluster of the kubeconfig (`KUBECONFIG`, `~/.kube/config`), in this context or in its
    /// current one; without a context and a kubeconfig, the cluster that this process runs in.
    ///
    /// # Errors
    /// `Config` where no cluster is named, or the kubeconfig cannot be used.
    pub async fn connect(context: Option<&str>) -> Result<Self, InstallError> {
        let config = match kubeconfig::read(None, context).await {
            Ok(config) => Ok(config),
            Err(error) if context.is_some() => Err(with_causes(&error)),
            Err(error) => Config::incluster().map_err(|no_pod| {
                let (error, no_pod) = (with_causes(&error), with_causes(&no_pod));
                format!("{error}; and this process does not run in a pod: {no_pod}")
            }),
        };
        let config = config.map(|mut config| {
            if context.is_none() {
                config.apply_debug_overrides();
            }
            config
        });
        let config = config.map_err(|error| {
            let cure = "name a file in KUBECONFIG, and a context that it has with --context";
            InstallError::new(
                InstallErrorKind::Config,
                "kubeconfig",
                format!("no cluster can be made out of it: {error}; {cure}"),
            )
        })?;
        Self::of(config)
    }

    /// The API server at an address without authentication, as `kubectl proxy` gives it:
    /// `http://127.0.0.1:8001`.
    ///
    /// # Errors
    /// `Config` for what is no address.
    pub fn at(address: &str) -> Result<Self, InstallError> {
        let address = address.parse().map_err(|error| {
            let message = format!("is no address such as http://127.0.0.1:8001: {error}");
            InstallError::new(InstallErrorKind::Config, address, message)
        })?;
        let mut config = Config::new(address);
        config.auth_info = AuthInfo::default();
        Self::of(config)
    }

    fn of(mut config: Config) -> Result<Self, InstallError> {
        // A change whose answer was lost is looked at, not repeated.
        config.default_retry = false;
        config.read_timeout = Some(READ_TIMEOUT);
        let client = Client::try_from(config).map_err(|error| failure("cluster", error))?;
        Ok(Self { client })
    }

    #[cfg(test)]
    pub(super) fn with(client: Client) -> Self {
        Self { client }
    }

    /// The version of the API server.
    pub(super) async fn version(&self) -> Result<String, InstallError> {
        let answer = self.client.apiserver_version().await;
        answer
            .map(|info| info.git_version)
            .map_err(|error| failure("API server", error))
    }

    /// The plural names of the kinds that are served in this group and version; none where the
    /// group or its version is not served.
    pub(super) async fn served(&self, api_version: &str) -> Result<Vec<String>, InstallError> {
        match self.client.list_api_group_resources(api_version).await {
            Ok(list) => Ok(list.resources.into_iter().map(|one| one.name).collect()),
            Err(error) if is_not_found(&error) => Ok(Vec::new()),
            Err(error) => Err(failure(api_version, error)),
        }
    }

    /// An object; `None` where there is none.
    pub(crate) async fn get(&self, place: Place<'_>) -> Result<Option<Value>, InstallError> {
        let answer = self.api(place).get_opt(place.name).await;
        let object = answer.map_err(|error| failure(place, error))?;
        object.map(|object| value(place, &object)).transpose()
    }

    /// What `keep` makes of all objects of a kind that bear these labels, page by page.
    pub(super) async fn list<T>(
        &self,
        place: Place<'_>,
        labels: &str,
        keep: impl Fn(&Value) -> Option<T>,
    ) -> Result<Vec<T>, InstallError> {
        let mut kept = Vec::new();
        let mut page = ListParams::default().limit(PAGE).labels(labels);
        loop {
            let list = self.api(place).list(&page).await;
            let list = list.map_err(|error| failure(place, error))?;
            for object in &list.items {
                kept.extend(keep(&value(place, object)?));
            }
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page = page.continue_token(&token),
                None => return Ok(kept),
            }
        }
    }

    /// Makes an object what the manifest says (server-side apply), and answers with the whole of
    /// it. Fields that another tool has set otherwise are taken over.
    pub(super) async fn apply(&self, manifest: &Manifest) -> Result<Value, InstallError> {
        let place = Place::of(manifest)?;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(manifest.as_value());
        let answer = self.api(place).patch(place.name, &params, &patch).await;
        value(place, &answer.map_err(|error| failure(place, error))?)
    }

    /// Creates an object, or only asks what would be created.
    pub(super) async fn create(
        &self,
        place: Place<'_>,
        object: Value,
        dry_run: bool,
    ) -> Result<Value, InstallError> {
        let object: DynamicObject = serde_json::from_value(object).map_err(|error| {
            let message = format!("is no object: {error}; this is a bug");
            InstallError::new(InstallErrorKind::Refused, place, message)
        })?;
        let params = PostParams {
            dry_run,
            field_manager: Some(FIELD_MANAGER.to_owned()),
        };
        let answer = self.api(place).create(&params, &object).await;
        value(place, &answer.map_err(|error| failure(place, error))?)
    }

    /// Changes an object, and answers with the whole of it; `None` where there is none.
    pub(crate) async fn change(
        &self,
        place: Place<'_>,
        change: Change,
    ) -> Result<Option<Value>, InstallError> {
        let params = PatchParams::default();
        let api = self.api(place);
        let answer = match change {
            Change::Merge(patch) => api.patch(place.name, &params, &Patch::Merge(patch)).await,
            Change::Json(patch) => {
                let patch = Patch::Json::<()>(patch);
                api.patch(place.name, &params, &patch).await
            }
        };
        match answer {
            Ok(object) => value(place, &object).map(Some),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(failure(place, error)),
        }
    }

    /// Deletes the object of this uid; whether there was one.
    pub(super) async fn delete(&self, place: Place<'_>, uid: &str) -> Result<bool, InstallError> {
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: None,
            }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.api(place).delete(place.name, &params).await {
            Ok(_) => Ok(true),
            Err(error) if is_not_found(&error) => Ok(false),
            Err(error) => Err(failure(place, error)),
        }
    }

    fn api(&self, place: Place<'_>) -> Api<DynamicObject> {
        let (group, version) = place
            .kind
            .api_version
            .rsplit_once('/')
            .unwrap_or(("", place.kind.api_version));
        let resource = ApiResource {
            group: group.to_owned(),
            version: version.to_owned(),
            api_version: GroupVersion::gv(group, version).api_version(),
            kind: place.kind.name.to_owned(),
            plural: place.kind.plural.to_owned(),
        };
        match place.namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &resource),
            None => Api::all_with(self.client.clone(), &resource),
        }
    }
}

impl fmt::Debug for ClusterAccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterAccess").finish_non_exhaustive()
    }
}

fn value(place: Place<'_>, object: &DynamicObject) -> Result<Value, InstallError> {
    serde_json::to_value(object).map_err(|error| {
        let message = format!("the API server's answer is no object: {error}");
        InstallError::new(InstallErrorKind::Unavailable, place, message)
    })
}

fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Maps every error of the client library.
fn failure(subject: impl fmt::Display, error: kube::Error) -> InstallError {
    let (kind, message) = match error {
        kube::Error::Api(status) => {
            let said = match (status.message.trim(), status.reason.trim()) {
                ("", "") => format!("status {}", status.code),
                ("", reason) => reason.to_owned(),
                (message, _) => message.to_owned(),
            };
            match status.code {
                401 => (
                    InstallErrorKind::Unauthorised,
                    format!("the API server does not know this account: {said}; log in again"),
                ),
                403 => (
                    InstallErrorKind::Unauthorised,
                    format!(
                        "the API server does not allow this account that: {said}; use one of an administrator of the cluster"
                    ),
                ),
                404 => (
                    InstallErrorKind::Refused,
                    format!(
                        "the API server has no such kind, or no such namespace: {said}; install what serves it first"
                    ),
                ),
                code if code >= 500 || code == 429 || code == 408 => (
                    InstallErrorKind::Unavailable,
                    format!(
                        "the API server could not do it in time: {said}; run the command again, which goes on where it stopped"
                    ),
                ),
                _ => (
                    InstallErrorKind::Refused,
                    format!("the API server refuses it: {said}"),
                ),
            }
        }
        kube::Error::Auth(error) => (
            InstallErrorKind::Unauthorised,
            format!("no credentials can be had: {error}; log in again"),
        ),
        error => (
            InstallErrorKind::Unavailable,
            format!(
                "the API server cannot be used: {}; is it up, and the right one?",
                with_causes(&error)
            ),
        ),
    };
    InstallError::new(kind, subject, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::install::Install;

    #[test]
    fn every_installed_object_has_its_place() {
        for manifest in Install::default().with_cancel_at_once(true).manifests() {
            assert_eq!(
                Place::of(&manifest).unwrap().to_string(),
                manifest.to_string()
            );
        }
    }

    #[test]
    fn a_failure_names_the_object_the_rule_and_the_cure() {
        for (code, kind, cure) in [
            (401, InstallErrorKind::Unauthorised, "log in again"),
            (403, InstallErrorKind::Unauthorised, "administrator"),
            (404, InstallErrorKind::Refused, "install what serves it"),
            (422, InstallErrorKind::Refused, "refuses it: because"),
            (429, InstallErrorKind::Unavailable, "run the command again"),
            (504, InstallErrorKind::Unavailable, "run the command again"),
        ] {
            let mut status = kube::core::Status::failure("because", "Reason");
            status.code = code;
            let error = failure("Role ci/x", kube::Error::Api(status.boxed()));
            assert_eq!(error.kind(), kind, "{code}");
            let text = error.to_string();
            assert!(
                text.starts_with("Role ci/x: ") && text.contains(cure),
                "{text}"
            );
            assert!(text.contains("because"), "{text}");
        }
    }

    #[tokio::test]
    async fn an_address_that_nothing_answers_is_unavailable() {
        let access = ClusterAccess::at("http://127.0.0.1:1").unwrap();
        let error = access.version().await.unwrap_err();
        assert_eq!(error.kind(), InstallErrorKind::Unavailable, "{error}");
        assert!(
            error.to_string().contains("127.0.0.1:1") || error.to_string().contains("refused"),
            "{error}"
        );
        assert!(ClusterAccess::at("no address").is_err());
    }
}
