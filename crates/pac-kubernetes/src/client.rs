//! The only file that talks to the client library, beside the one that reads the kubeconfig.

use std::fmt;
use std::future::Future;
use std::io;
use std::time::Duration;

use futures_util::stream::{BoxStream, StreamExt};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{NamespaceResourceScope, ObjectList, PartialObjectMeta, Resource};
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event as Change};
use kube::{Api, Config};
use pac_core::{PipelineRunKey, RepositoryKey};
use pac_pipelines::model::ResourceVersion;
use serde_json::Value;
use tokio::time::timeout;

use crate::error::{Failure, FailureKind, KubernetesError, causes, with_causes};
use crate::kubeconfig;
use crate::object::{NamespaceObject, Object, RepositoryObject, RunObject};
use crate::options::KubernetesOptions;
use crate::queue;

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

    /// Makes the object that shows a queue what `object` says (server-side apply), or makes it anew.
    pub(crate) async fn apply_queue(
        &self,
        repository: &RepositoryKey,
        object: &Value,
        deadline: Duration,
    ) -> Result<(), Failure> {
        let (client, resource) = (self.client.clone(), queue::resource());
        let api: Api<DynamicObject> =
            Api::namespaced_with(client, repository.namespace(), &resource);
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(object);
        within(deadline, api.patch(repository.name(), &params, &patch))
            .await
            .map(drop)
    }

    /// Lists the runs of the selection, page by page.
    pub(crate) async fn runs(&self) -> Result<List<RunObject>, Failure> {
        self.list(&self.followed(), self.run_params()).await
    }

    /// Selects the runs that are followed.
    fn run_params(&self) -> ListParams {
        ListParams {
            label_selector: Some(self.options.run_selector.clone()),
            field_selector: self.options.field_selector(),
            ..ListParams::default()
        }
    }

    /// Lists what `keep` makes of the metadata of a namespace's runs of the selection, page by page.
    pub(crate) async fn run_metadata<T>(
        &self,
        namespace: &str,
        keep: impl Fn(ObjectMeta) -> T,
    ) -> Result<Vec<T>, Failure> {
        let api: Api<RunObject> = Api::namespaced(self.client.clone(), namespace);
        let api = &api;
        let page = |params: ListParams| async move { api.list_metadata(&params).await };
        let keep = |run: PartialObjectMeta<RunObject>| keep(run.metadata);
        let list = self.listed(self.run_params(), page, keep);
        Ok(list.await?.items)
    }

    /// Lists the Repositories, page by page: those of all namespaces, since a limit may come from
    /// the global one.
    pub(crate) async fn repositories(&self) -> Result<List<RepositoryObject>, Failure> {
        self.list(&Api::all(self.client.clone()), ListParams::default())
            .await
    }

    /// Lists the Namespaces of what is followed, page by page.
    pub(crate) async fn namespaces(&self) -> Result<List<NamespaceObject>, Failure> {
        let params = ListParams {
            field_selector: self.options.namespace_selector(),
            ..ListParams::default()
        };
        self.list(&Api::all(self.client.clone()), params).await
    }

    /// Lists the runs of the selection, and follows them.
    pub(crate) fn watch_runs(&self) -> Steps<RunObject> {
        let config = self.watch_config(self.options.field_selector());
        let config = config.labels(&self.options.run_selector);
        steps(self.followed(), config, self.options.lanes)
    }

    /// Lists the Repositories of all namespaces, and follows them.
    pub(crate) fn watch_repositories(&self) -> Steps<RepositoryObject> {
        steps(
            Api::all(self.client.clone()),
            self.watch_config(None),
            false,
        )
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

    async fn list<O: Object>(&self, api: &Api<O>, params: ListParams) -> Result<List<O>, Failure> {
        let page = |params: ListParams| async move { api.list(&params).await };
        let pruned = |object| pruned(object, self.options.lanes);
        self.listed(params, page, pruned).await
    }

    /// What `keep` makes of the objects of all pages, which `page` reads one after the other.
    async fn listed<T: Clone, O, F>(
        &self,
        params: ListParams,
        page: impl Fn(ListParams) -> F,
        keep: impl Fn(T) -> O,
    ) -> Result<List<O>, Failure>
    where
        F: Future<Output = Result<ObjectList<T>, kube::Error>>,
    {
        let params = params.limit(self.options.page_size);
        let deadline = self.options.list_timeout;
        let pages = async {
            let mut attempt = 1;
            loop {
                match self.pages(params.clone(), &page, &keep).await {
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

    async fn pages<T: Clone, O, F>(
        &self,
        mut params: ListParams,
        page: impl Fn(ListParams) -> F,
        keep: impl Fn(T) -> O,
    ) -> Result<List<O>, Failure>
    where
        F: Future<Output = Result<ObjectList<T>, kube::Error>>,
    {
        let mut items = Vec::new();
        loop {
            let page = self.request(page(params.clone())).await?;
            items.extend(page.items.into_iter().map(&keep));
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
    let path = options.kubeconfig.as_deref();
    if path.is_none()
        && options.context.is_none()
        && let Ok(config) = Config::incluster()
    {
        return Ok(config);
    }
    let read = kubeconfig::read(path, options.context.as_deref()).await;
    read.map_err(|error| {
        let shown = path.map(|path| path.display().to_string());
        let message = shown.unwrap_or_else(|| {
            "there is no service account of a pod, and no kubeconfig that can be used; name one"
                .to_owned()
        });
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
