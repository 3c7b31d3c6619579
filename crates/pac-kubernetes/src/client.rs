//! The only file that talks to the client library.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use k8s_openapi::api::events::v1::Event;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{NamespaceResourceScope, Resource};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as Change};
use kube::{Api, Config};
use pac_core::PipelineRunKey;
use pac_pipelines::model::ResourceVersion;
use serde_json::Value;
use tokio::time::timeout;

use crate::error::{Failure, FailureKind, KubernetesError, causes, with_causes};
use crate::object::{NamespaceObject, Object, RepositoryObject, RunObject};
use crate::options::KubernetesOptions;

/// The name under which the API server keeps what this software has written.
const FIELD_MANAGER: &str = "pac-concurrency";

/// How long opening a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a list is begun anew because its place has become too old meanwhile.
const LIST_ATTEMPTS: u32 = 3;

/// The requests that are made to the API. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Client {
    client: kube::Client,
    options: KubernetesOptions,
}

/// What a watch of one kind says. It never ends: what breaks is an error, and is opened anew.
#[derive(Debug)]
pub(crate) enum Step<O> {
    /// All objects follow.
    Begun,
    /// One of all objects.
    Listed(O),
    /// Those were all objects; from now on changes follow.
    Complete,
    /// An object was created or changed.
    Applied(O),
    /// An object was deleted, or the selection does not have it any more.
    Left(O),
}

/// All objects of a kind, and the version that the list is of.
pub(crate) struct List<O> {
    pub(crate) items: Vec<O>,
    pub(crate) version: Option<ResourceVersion>,
}

pub(crate) type Steps<O> = BoxStream<'static, Result<Step<O>, Failure>>;

impl Client {
    /// Reads how the cluster is reached. Opens no connection.
    pub(crate) async fn connect(options: KubernetesOptions) -> Result<Self, KubernetesError> {
        let mut config = config(&options).await?;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // A write that was done and answered by 504 must not be sent again.
        config.default_retry = false;
        // A connection that says nothing for longer than a watch lasts is dead.
        config.read_timeout = Some(options.watch_timeout + CONNECT_TIMEOUT);
        config.reset_reader_on_write = true;
        let client = kube::Client::try_from(config).map_err(|error| {
            KubernetesError::new("client", "the cluster's address or credentials", error)
        })?;
        Ok(Self::new(client, options))
    }

    pub(crate) fn new(client: kube::Client, options: KubernetesOptions) -> Self {
        Self { client, options }
    }

    pub(crate) fn options(&self) -> &KubernetesOptions {
        &self.options
    }

    /// Reads a run, past all caches.
    pub(crate) async fn get(&self, run: &PipelineRunKey) -> Result<Option<RunObject>, Failure> {
        match self.request(self.run_api(run).get(run.name())).await {
            Ok(object) => Ok(Some(object)),
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Sends a JSON patch of a run, once.
    pub(crate) async fn patch(
        &self,
        run: &PipelineRunKey,
        patch: json_patch::Patch,
    ) -> Result<RunObject, Failure> {
        self.send(run, Patch::Json::<()>(patch)).await
    }

    /// Sends a merge patch of a run, once.
    pub(crate) async fn merge(
        &self,
        run: &PipelineRunKey,
        patch: Value,
    ) -> Result<RunObject, Failure> {
        self.send(run, Patch::Merge(patch)).await
    }

    /// Makes an event in the namespace that it names.
    pub(crate) async fn create_event(
        &self,
        event: &Event,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        within(deadline, api.create(&params, event)).await.map(drop)
    }

    /// Sends a merge patch of an event, once.
    pub(crate) async fn patch_event(
        &self,
        namespace: &str,
        name: &str,
        patch: Value,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(patch);
        within(deadline, api.patch(name, &params, &patch))
            .await
            .map(drop)
    }

    /// Lists the runs of the selection, page by page.
    pub(crate) async fn runs(&self) -> Result<List<RunObject>, Failure> {
        let fields = self.options.field_selector();
        self.list(&self.followed(), Some(&self.options.run_selector), fields)
            .await
    }

    /// Lists the Repositories, page by page.
    pub(crate) async fn repositories(&self) -> Result<List<RepositoryObject>, Failure> {
        self.list(&self.followed(), None, self.options.field_selector())
            .await
    }

    /// Lists the Namespaces of what is followed, page by page.
    pub(crate) async fn namespaces(&self) -> Result<List<NamespaceObject>, Failure> {
        let api = Api::all(self.client.clone());
        let fields = self.options.namespace_selector();
        self.list(&api, None, fields).await
    }

    /// Lists the runs of the selection, and follows them.
    pub(crate) fn watch_runs(&self) -> Steps<RunObject> {
        let config = self.watch_config(self.options.field_selector());
        let config = config.labels(&self.options.run_selector);
        steps(self.followed(), config, self.options.lanes)
    }

    /// Lists the Repositories, and follows them.
    pub(crate) fn watch_repositories(&self) -> Steps<RepositoryObject> {
        let config = self.watch_config(self.options.field_selector());
        steps(self.followed(), config, false)
    }

    /// Lists the Namespaces of what is followed, and follows them; nothing without lanes.
    pub(crate) fn watch_namespaces(&self) -> Option<Steps<NamespaceObject>> {
        let config = self.watch_config(self.options.namespace_selector());
        let api = Api::all(self.client.clone());
        self.options.lanes.then(|| steps(api, config, false))
    }

    async fn send<P: serde::Serialize + fmt::Debug>(
        &self,
        run: &PipelineRunKey,
        patch: Patch<P>,
    ) -> Result<RunObject, Failure> {
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let api = self.run_api(run);
        self.request(api.patch(run.name(), &params, &patch)).await
    }

    /// A request within its deadline.
    async fn request<T>(
        &self,
        request: impl Future<Output = Result<T, kube::Error>>,
    ) -> Result<T, Failure> {
        within(self.options.request_timeout, request).await
    }

    async fn list<O: Object>(
        &self,
        api: &Api<O>,
        selector: Option<&str>,
        fields: Option<String>,
    ) -> Result<List<O>, Failure> {
        let deadline = self.options.list_timeout;
        let pages = async {
            let mut attempt = 1;
            loop {
                match self.pages(api, selector, fields.as_ref()).await {
                    Err(failure)
                        if failure.kind == FailureKind::Expired && attempt < LIST_ATTEMPTS =>
                    {
                        attempt += 1;
                    }
                    answer => return answer,
                }
            }
        };
        let answer = timeout(deadline, pages).await;
        answer.map_err(|_| Failure::late(deadline))?
    }

    async fn pages<O: Object>(
        &self,
        api: &Api<O>,
        selector: Option<&str>,
        fields: Option<&String>,
    ) -> Result<List<O>, Failure> {
        let mut params = ListParams {
            label_selector: selector.map(str::to_owned),
            field_selector: fields.cloned(),
            limit: Some(self.options.page_size),
            ..ListParams::default()
        };
        let mut items = Vec::new();
        loop {
            let page = self.request(api.list(&params)).await?;
            let pruned = |object| pruned(object, self.options.lanes);
            items.extend(page.items.into_iter().map(pruned));
            let next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                let version = page.metadata.resource_version;
                return Ok(List {
                    items,
                    version: version.as_deref().and_then(ResourceVersion::parse),
                });
            }
            params.continue_token = next;
        }
    }

    fn watch_config(&self, fields: Option<String>) -> watcher::Config {
        let seconds = self.options.watch_timeout.as_secs().max(1);
        let config = watcher::Config::default()
            .timeout(u32::try_from(seconds).unwrap_or(u32::MAX))
            .page_size(self.options.page_size);
        match fields {
            Some(selector) => config.fields(&selector),
            None => config,
        }
    }

    fn run_api(&self, run: &PipelineRunKey) -> Api<RunObject> {
        Api::namespaced(self.client.clone(), run.namespace())
    }

    fn followed<O: Object + Resource<Scope = NamespaceResourceScope>>(&self) -> Api<O> {
        match &self.options.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// A request within a deadline.
async fn within<T>(
    deadline: Duration,
    request: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    let answer = timeout(deadline, request).await;
    answer
        .map_err(|_| Failure::late(deadline))?
        .map_err(failure)
}

/// Where the cluster is and how to prove who asks.
async fn config(options: &KubernetesOptions) -> Result<Config, KubernetesError> {
    let chosen = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    if let Some(path) = &options.kubeconfig {
        let shown = path.display().to_string();
        let file = Kubeconfig::read_from(path)
            .map_err(|error| KubernetesError::new("kubeconfig", shown.clone(), error))?;
        return Config::from_custom_kubeconfig(file, &chosen)
            .await
            .map_err(|error| KubernetesError::new("kubeconfig", shown, error));
    }
    if options.context.is_none()
        && let Ok(config) = Config::incluster()
    {
        return Ok(config);
    }
    Config::from_kubeconfig(&chosen).await.map_err(|error| {
        let message = "there is no service account of a pod, and no kubeconfig that can be used; \
                       name one";
        KubernetesError::new("kubeconfig", message, error)
    })
}

fn steps<O: Object>(api: Api<O>, config: watcher::Config, lanes: bool) -> Steps<O> {
    let pruned = move |object| pruned(object, lanes);
    let events = watcher::watcher(api, config).default_backoff();
    let steps = events.map(move |event| {
        event.map_err(watch_failure).map(|event| match event {
            Change::Init => Step::Begun,
            Change::InitApply(object) => Step::Listed(pruned(object)),
            Change::InitDone => Step::Complete,
            Change::Apply(object) => Step::Applied(pruned(object)),
            Change::Delete(object) => Step::Left(pruned(object)),
        })
    });
    steps.boxed()
}

fn pruned<O: Object>(mut object: O, lanes: bool) -> O {
    object.prune(lanes);
    object
}

fn watch_failure(error: watcher::Error) -> Failure {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => failure(error),
        watcher::Error::WatchError(status) => failure(kube::Error::Api(status)),
        watcher::Error::NoResourceVersion => {
            Failure::new(FailureKind::Refused, "the API does not say its versions")
        }
    }
}

/// What an error of the library means.
fn failure(error: kube::Error) -> Failure {
    if let kube::Error::Api(status) = &error {
        let message = format!("{} {}: {}", status.code, status.reason, status.message);
        let kind = match status.code {
            // Also said of an API that is not there at all, which says nothing about an object.
            404 if status.reason == "NotFound" => FailureKind::NotFound,
            409 => FailureKind::Conflict,
            410 => FailureKind::Expired,
            429 => FailureKind::Unavailable,
            // 408: the server gave up waiting.
            400..=407 | 411..=499 => FailureKind::Refused,
            _ => FailureKind::Lost,
        };
        return Failure::new(kind, message);
    }
    let kind = match &error {
        kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => FailureKind::Refused,
        // It comes before the request is sent.
        kube::Error::Auth(_) => FailureKind::Unavailable,
        error if was_refused_a_connection(error) => FailureKind::Unavailable,
        _ => FailureKind::Lost,
    };
    Failure::new(kind, with_causes(&error)).caused_by(error)
}

/// Whether the server's address refused the connection, so that nothing was sent.
fn was_refused_a_connection(error: &kube::Error) -> bool {
    causes(error).any(|cause| {
        let cause = cause.downcast_ref::<io::Error>();
        cause.is_some_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
    })
}
