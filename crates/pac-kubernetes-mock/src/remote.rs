//! A server elsewhere: the way to it that a test gives, and what a [`Handle`](crate::Handle) needs of
//! it, so that the stand-ins work beside any cluster.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::runtime::Handle as Runtime;
use tokio::sync::watch;
use tokio::task::{JoinHandle, block_in_place};
use tokio::time::{sleep, timeout};

use crate::call::{Call, Verb};
use crate::failure::Failure;
use crate::object::{self, text};
use crate::resource::Resource;
use crate::selector::Selector;
use crate::store::{DELETED, State};

/// How long a request may take, a watch alone excepted.
const DEADLINE: Duration = Duration::from_secs(30);

/// How long the server keeps a watch open; it is then opened anew where it ended. One whose
/// connection died without a word is known by lasting longer.
const WATCH_SECONDS: u64 = 60;

/// How long to wait before a watch that failed is opened anew.
const AGAIN: Duration = Duration::from_millis(200);

/// How many changes are kept, as of a server in this process.
const HISTORY: usize = 100_000;

/// The resources that the stand-ins follow.
const FOLLOWED: [&str; 2] = ["pipelineruns", "repositories"];

/// Carries requests to a server elsewhere.
#[async_trait]
pub trait Remote: Send + Sync {
    /// Sends a request, and answers with the HTTP status and the body. May be dropped in flight, which
    /// is done after 30 s without an answer.
    ///
    /// # Errors
    /// Why there is no answer.
    async fn send(&self, request: RemoteRequest) -> Result<(u16, Value), String>;

    /// Opens the watch of a path with its query.
    ///
    /// # Errors
    /// Why it is not open.
    async fn watch(&self, path: String) -> Result<Box<dyn RemoteWatch>, String>;
}

/// An open watch.
#[async_trait]
pub trait RemoteWatch: Send {
    /// The next event: its type, such as `ADDED`, and its object. `None` at the end, and for good after
    /// it.
    async fn next(&mut self) -> Option<(String, Value)>;
}

/// One request to a server elsewhere.
#[derive(Debug)]
#[non_exhaustive]
pub struct RemoteRequest {
    /// `GET`, `POST`, `PATCH` or `DELETE`.
    pub method: &'static str,
    /// The path with the query.
    pub path: String,
    /// The media type of the body; empty without one.
    pub content_type: String,
    /// The body; `null` for none.
    pub body: Value,
}

/// A server elsewhere.
pub(crate) struct There {
    remote: Arc<dyn Remote>,
    runtime: Runtime,
    /// The one namespace that is seen; empty for all.
    namespace: String,
    mirror: Arc<Mirror>,
    following: Option<JoinHandle<()>>,
}

impl There {
    /// The server, and the changes in this namespace; nothing is followed without one.
    pub(crate) fn new(remote: Arc<dyn Remote>, namespace: &str) -> Self {
        let mirror = Arc::new(Mirror::new());
        let following = (!namespace.is_empty()).then(|| {
            let (remote, mirror) = (Arc::clone(&remote), Arc::clone(&mirror));
            let namespace = namespace.to_owned();
            tokio::spawn(async move {
                let each = |plural| follow(&*remote, &namespace, plural, &mirror);
                let [runs, repositories] = FOLLOWED.map(each);
                tokio::join!(runs, repositories);
            })
        });
        Self {
            remote,
            runtime: Runtime::current(),
            namespace: namespace.to_owned(),
            mirror,
            following,
        }
    }

    /// What was seen of the followed resources, with revisions of its own, and the table of all
    /// resources.
    pub(crate) fn seen(&self) -> MutexGuard<'_, State> {
        self.mirror.lock()
    }

    /// Tells of each new revision of what is seen.
    pub(crate) fn revisions(&self) -> watch::Receiver<u64> {
        self.mirror.revisions.subscribe()
    }

    /// Does what a call asks for. The thread waits for the answer.
    ///
    /// # Errors
    /// What the server answers, and 503 where it does not.
    pub(crate) fn answer(&self, call: &Call) -> Result<Value, Failure> {
        block_in_place(|| self.runtime.block_on(ask(&*self.remote, call)))
    }

    /// The objects that a label selector selects; of all namespaces there are those of the one that
    /// is seen.
    ///
    /// # Errors
    /// As of [`answer`](Self::answer).
    pub(crate) fn list(&self, mut call: Call, selector: &str) -> Result<Vec<Value>, Failure> {
        if call.namespace.is_empty() && call.resource.namespaced {
            call.namespace.clone_from(&self.namespace);
        }
        if !selector.is_empty() {
            let selector = selector.to_owned();
            call.parameters.insert("labelSelector".to_owned(), selector);
        }
        self.answer(&call).map(items_of)
    }
}

impl Drop for There {
    fn drop(&mut self) {
        if let Some(following) = &self.following {
            following.abort();
        }
    }
}

/// What was seen of a server elsewhere.
struct Mirror {
    state: Mutex<State>,
    revisions: watch::Sender<u64>,
}

impl Mirror {
    fn new() -> Self {
        let state = State::new(HISTORY);
        Self {
            revisions: watch::Sender::new(state.revision()),
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn resource(&self, plural: &str) -> Result<Arc<Resource>, Failure> {
        self.lock().resource_named(plural)
    }

    /// Takes a whole list. In which order things have come to it is not known, so that whatever reads
    /// the history has to list, too; but for the first list, which only adds.
    fn take_all(&self, resource: &Resource, namespace: &str, objects: Vec<Value>) {
        let names: BTreeSet<String> = objects
            .iter()
            .map(|object| object::name(object).to_owned())
            .collect();
        let mut state = self.lock();
        let known = state.select(resource, namespace, &Selector::default());
        for gone in &known {
            if !names.contains(object::name(gone)) {
                state.remove(resource, gone, Value::clone(gone));
            }
        }
        for object in objects {
            keep(&mut state, resource, object);
        }
        if !known.is_empty() {
            state.compact();
        }
        self.tell(state);
    }

    fn take(&self, resource: &Resource, kind: &str, object: Value) {
        let mut state = self.lock();
        let known = state.find(resource, object::namespace(&object), object::name(&object));
        match (kind, known) {
            (DELETED, Some(known)) => drop(state.remove(resource, &known, object)),
            (DELETED, None) => {}
            _ => keep(&mut state, resource, object),
        }
        self.tell(state);
    }

    fn tell(&self, state: MutexGuard<'_, State>) {
        let revision = state.revision();
        drop(state);
        self.revisions.send_replace(revision);
    }
}

fn keep(state: &mut State, resource: &Resource, object: Value) {
    let known = state.find(resource, object::namespace(&object), object::name(&object));
    state.commit(resource, known, object);
}

/// Lists a resource, and follows its changes, for ever.
async fn follow(remote: &dyn Remote, namespace: &str, plural: &str, mirror: &Mirror) {
    let Ok(resource) = mirror.resource(plural) else {
        return;
    };
    let mut call = Call::new(Verb::List, Arc::clone(&resource), namespace, "");
    loop {
        if let Ok(list) = ask(remote, &call).await {
            let mut after = text(&list, "/metadata/resourceVersion").to_owned();
            mirror.take_all(&resource, namespace, items_of(list));
            call.verb = Verb::Watch;
            while let Some(last) = watch_once(remote, &call, &after, mirror).await {
                after = last;
            }
            call.verb = Verb::List;
        }
        sleep(AGAIN).await;
    }
}

/// Follows the changes after a revision until the watch ends by itself; the last revision that was
/// seen, or `None` where a list is needed.
async fn watch_once(
    remote: &dyn Remote,
    call: &Call,
    after: &str,
    mirror: &Mirror,
) -> Option<String> {
    let path = format!(
        "{}?watch=true&resourceVersion={after}&timeoutSeconds={WATCH_SECONDS}",
        path(call)
    );
    let mut after = after.to_owned();
    let whole = async {
        let mut watch = remote.watch(path).await.ok()?;
        while let Some((kind, object)) = watch.next().await {
            if kind == "ERROR" {
                return None;
            }
            object::resource_version(&object).clone_into(&mut after);
            mirror.take(&call.resource, &kind, object);
        }
        Some(after)
    };
    let longest = Duration::from_secs(WATCH_SECONDS) + DEADLINE;
    timeout(longest, whole).await.ok().flatten()
}

async fn ask(remote: &dyn Remote, call: &Call) -> Result<Value, Failure> {
    let unavailable = |why: String| Failure::new(503, "ServiceUnavailable", why);
    let answer = timeout(DEADLINE, remote.send(request_of(call))).await;
    let answer = answer.map_err(|_| unavailable("no answer in time".to_owned()))?;
    match answer.map_err(unavailable)? {
        (200..300, body) => Ok(body),
        (code, body) => Err(Failure::new(
            code,
            text(&body, "/reason"),
            text(&body, "/message"),
        )),
    }
}

fn request_of(call: &Call) -> RemoteRequest {
    let (method, content_type) = match call.verb {
        Verb::Create => ("POST", "application/json"),
        Verb::Patch => ("PATCH", call.content_type.as_str()),
        Verb::Delete => ("DELETE", ""),
        _ => ("GET", ""),
    };
    let mut body = call.body.clone();
    if call.verb == Verb::Create {
        let fields = object::as_map(&mut body);
        fields.insert("apiVersion".to_owned(), json!(call.resource.api_version()));
        fields.insert("kind".to_owned(), json!(call.resource.kind));
    }
    let mut path = path(call);
    let selector = call.parameter("labelSelector");
    if !selector.is_empty() {
        let bytes = selector.bytes().map(|byte| format!("%{byte:02X}"));
        path.push_str(&format!("?labelSelector={}", bytes.collect::<String>()));
    }
    RemoteRequest {
        method,
        path,
        content_type: content_type.to_owned(),
        body,
    }
}

/// The path without the query. Names need no escapes.
fn path(call: &Call) -> String {
    let resource = &call.resource;
    let mut path = match resource.group.as_str() {
        "" => format!("/api/{}", resource.version),
        group => format!("/apis/{group}/{}", resource.version),
    };
    if resource.namespaced && !call.namespace.is_empty() {
        path.push_str(&format!("/namespaces/{}", call.namespace));
    }
    path.push_str(&format!("/{}", resource.plural));
    if !call.name.is_empty() {
        path.push_str(&format!("/{}", call.name));
    }
    if call.status {
        path.push_str("/status");
    }
    path
}

fn items_of(mut list: Value) -> Vec<Value> {
    match list.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) => items,
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::future::pending;

    use tokio::sync::Semaphore;

    use super::*;
    use crate::Handle;

    type Events = VecDeque<(&'static str, Value)>;

    /// Answers about runs with what is written in it, one after the other; a watch once it is let go.
    struct Script {
        lists: Mutex<VecDeque<Value>>,
        watches: Mutex<VecDeque<Events>>,
        /// Nothing is answered before there is a permit.
        begin: Semaphore,
        go: Semaphore,
        asked: Mutex<Vec<String>>,
    }

    #[async_trait]
    impl Remote for Script {
        async fn send(&self, request: RemoteRequest) -> Result<(u16, Value), String> {
            if !request.path.contains("pipelineruns") {
                return Ok((404, json!({"reason": "NotFound", "message": "not here"})));
            }
            let _begun = self.begin.acquire().await.unwrap();
            let list = self.lists.lock().unwrap().pop_front();
            list.map(|list| (200, list)).ok_or("away".to_owned())
        }

        async fn watch(&self, path: String) -> Result<Box<dyn RemoteWatch>, String> {
            self.asked.lock().unwrap().push(path);
            self.go.acquire().await.unwrap().forget();
            let events = self.watches.lock().unwrap().pop_front();
            match events {
                Some(events) => Ok(Box::new(Scripted(events))),
                None => pending().await,
            }
        }
    }

    struct Scripted(Events);

    #[async_trait]
    impl RemoteWatch for Scripted {
        async fn next(&mut self) -> Option<(String, Value)> {
            let (kind, object) = self.0.pop_front()?;
            Some((kind.to_owned(), object))
        }
    }

    fn run(name: &str, version: u64) -> Value {
        let version = version.to_string();
        json!({"metadata": {"namespace": "ci", "name": name, "resourceVersion": version}})
    }

    fn list(version: &str, items: &[Value]) -> Value {
        json!({"metadata": {"resourceVersion": version}, "items": items})
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_history_tells_changes_in_their_order_until_a_list_has_to_fill_a_gap() {
        let script = Arc::new(Script {
            lists: Mutex::new(VecDeque::from([
                list("5", &[run("a", 4)]),
                list("20", &[run("c", 15)]),
            ])),
            watches: Mutex::new(VecDeque::from([
                Events::from([("ADDED", run("b", 6)), ("MODIFIED", run("a", 7))]),
                Events::from([("DELETED", run("a", 9))]),
                Events::from([("ERROR", Value::Null)]),
            ])),
            begin: Semaphore::new(0),
            go: Semaphore::new(2),
            asked: Mutex::default(),
        });
        let objects = Handle::remote(Arc::clone(&script) as Arc<dyn Remote>, "ci");
        let before = objects.revision();
        let mut revisions = objects.revisions();
        script.begin.add_permits(1);
        revisions.wait_for(|now| *now >= before + 4).await.unwrap();
        let history = objects.history("pipelineruns", before).unwrap();
        let history: Vec<_> = history
            .iter()
            .map(|written| (object::name(&written.object), written.deleted))
            .collect();
        assert_eq!(
            history,
            [("a", false), ("b", false), ("a", false), ("a", true)]
        );

        script.go.add_permits(1);
        revisions.wait_for(|now| *now > before + 4).await.unwrap();
        let gone = objects.history("pipelineruns", before + 3).unwrap_err();
        assert_eq!(gone.code, 410);
        let asked = script.asked.lock().unwrap().clone();
        let path = "/apis/tekton.dev/v1/namespaces/ci/pipelineruns?watch=true&resourceVersion=";
        for (at, version) in [5, 7, 9].iter().enumerate() {
            let expected = format!("{path}{version}&");
            assert!(asked[at].starts_with(&expected), "{}", asked[at]);
        }
        let failure = |resource: &str| objects.list(resource, "", "").unwrap_err();
        assert_eq!(failure("repositories").message, "not here");
        assert_eq!(failure("pipelineruns").code, 503);
    }
}
