//! One world, and the way of every request through it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tonic::codegen::http::Extensions;
use tonic::metadata::MetadataMap;
use tonic::{Code as GrpcCode, Request, Response, Status};

use crate::connection::Line;
use crate::counters::Counters;
use crate::faults::Fault;
use crate::faults::plan::{Plan, Point};
use crate::operation::Operation;
use crate::world::members::About;
use crate::world::refusal::{Answer, Code, NO_LEADER, Refusal, TIMED_OUT};
use crate::world::watch::StreamId;
use crate::world::{Call, Limits, World};

/// How long etcd tries to do a request: 5 s, and two election timeouts of a second
/// (`ServerConfig.ReqTimeout`).
const REQUEST_TIMEOUT: Duration = Duration::from_secs(7);

/// What all services of one server share.
pub(crate) struct Shared {
    world: Mutex<World>,
    began: Instant,
    /// How far its clock has jumped ahead.
    ahead: Mutex<Duration>,
    streams: Mutex<HashMap<StreamId, Arc<Notify>>>,
    /// Another lease may be the next to end.
    leases_changed: Notify,
    leader: watch::Sender<bool>,
    has_ended: AtomicBool,
    pub(crate) counters: Counters,
    pub(crate) plan: Plan,
    progress_interval: Duration,
    /// Changes when all connections are to be cut.
    pub(crate) cuts: watch::Sender<u64>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared")
    }
}

impl Shared {
    pub(crate) fn new(
        limits: Limits,
        about: About,
        progress_interval: Duration,
        seed: u64,
    ) -> Self {
        Self {
            world: Mutex::new(World::new(limits, about, seed)),
            began: Instant::now(),
            ahead: Mutex::default(),
            streams: Mutex::default(),
            leases_changed: Notify::new(),
            leader: watch::Sender::new(true),
            has_ended: AtomicBool::new(false),
            counters: Counters::default(),
            plan: Plan::default(),
            progress_interval,
            cuts: watch::Sender::new(0),
        }
    }

    /// Nothing more is done.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::Relaxed)
    }

    /// Waits for the end of the server, for what no connection ends. Cancel-safe.
    pub(crate) async fn ended(&self) {
        // All connections are cut at the end, after it was noted.
        let mut cuts = self.cuts.subscribe();
        while !self.has_ended() {
            if cuts.changed().await.is_err() {
                return;
            }
        }
    }

    /// Does one request.
    ///
    /// Cancel-safe: the request is done at one point, or not at all.
    pub(crate) async fn serve<Asked, Answered>(
        &self,
        operation: Operation,
        needs_leader: bool,
        request: Request<Asked>,
        work: impl FnOnce(&mut World, &Call, Asked) -> Answer<Answered>,
    ) -> Result<Response<Answered>, Status> {
        let under_way = self.begin(operation, needs_leader, &request).await?;
        let call = self.call(request.metadata());
        let answer = self.with_world(|world| work(world, &call, request.into_inner()));
        under_way.end().await?;
        answer.map(Response::new).map_err(status)
    }

    /// The way of a request up to the point at which it is done.
    ///
    /// # Errors
    /// What is answered instead.
    pub(crate) async fn begin<Asked>(
        &self,
        operation: Operation,
        needs_leader: bool,
        request: &Request<Asked>,
    ) -> Result<UnderWay, Status> {
        self.count(operation);
        self.check_leader(request.metadata())?;
        self.go_on(operation, needs_leader, request.extensions())
            .await
    }

    /// As [`begin`](Self::begin), for one of the requests on a stream.
    pub(crate) async fn begin_on(
        &self,
        operation: Operation,
        needs_leader: bool,
        stream: &Extensions,
    ) -> Result<UnderWay, Status> {
        self.count(operation);
        self.go_on(operation, needs_leader, stream).await
    }

    fn count(&self, operation: Operation) {
        tracing::trace!(?operation, "request");
        self.counters.count(operation);
    }

    async fn go_on(
        &self,
        operation: Operation,
        needs_leader: bool,
        stream: &Extensions,
    ) -> Result<UnderWay, Status> {
        let fault = self.plan.take(operation);
        let under_way = UnderWay(fault.map(|fault| (fault, Line::of(stream))));
        if let UnderWay(Some((fault, line))) = &under_way {
            fault.happen(Point::Before, line).await?;
        }
        if needs_leader {
            self.await_leader().await?;
        }
        Ok(under_way)
    }

    /// Does something to the world, and wakes all that are concerned by it.
    pub(crate) fn with_world<T>(&self, work: impl FnOnce(&mut World) -> T) -> T {
        let (done, owed) = {
            let mut world = self.world();
            (work(&mut world), world.take_owed())
        };
        if owed.leases {
            self.leases_changed.notify_one();
        }
        if !owed.streams.is_empty() {
            let streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
            for stream in owed.streams {
                if let Some(notify) = streams.get(&stream) {
                    notify.notify_one();
                }
            }
        }
        done
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a request comes with.
    pub(crate) fn call(&self, metadata: &MetadataMap) -> Call {
        // Older clients send the one, newer ones the other.
        let token = metadata
            .get("token")
            .or_else(|| metadata.get("authorization"));
        Call {
            now: self.now(),
            token: token.map(|token| String::from_utf8_lossy(token.as_bytes()).into_owned()),
        }
    }

    /// The time since the world began, by its own clock.
    pub(crate) fn now(&self) -> Duration {
        let ahead = *self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        self.began.elapsed().saturating_add(ahead)
    }

    /// The same call, as of now: for what has waited.
    pub(crate) fn renewed(&self, call: &Call) -> Call {
        Call {
            now: self.now(),
            token: call.token.clone(),
        }
    }

    pub(crate) fn jump(&self, by: Duration) {
        {
            let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
            *ahead = ahead.saturating_add(by);
        }
        // At once: the next request may come before the task that ends leases has its turn.
        let now = self.now();
        self.with_world(|world| world.expire(now));
        self.leases_changed.notify_one();
    }

    /// Opens a stream of watches. It is to be closed.
    pub(crate) fn open_watches(&self) -> (StreamId, Arc<Notify>) {
        let stream = self.world().open_watches();
        let notify = Arc::new(Notify::new());
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.insert(stream, Arc::clone(&notify));
        (stream, notify)
    }

    pub(crate) fn close_watches(&self, stream: StreamId) {
        self.world().close_watches(stream);
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        streams.remove(&stream);
    }

    /// A request that wants a leader is refused at once when there is none.
    pub(crate) fn check_leader(&self, metadata: &MetadataMap) -> Result<(), Status> {
        if wants_leader(metadata) && !*self.leader.borrow() {
            return Err(status(NO_LEADER));
        }
        Ok(())
    }

    /// How often a watch is told its progress, if it wants that and nothing else is to be told.
    pub(crate) fn progress_interval(&self) -> Duration {
        self.progress_interval
    }

    /// Follows whether there is a leader.
    pub(crate) fn leader(&self) -> watch::Receiver<bool> {
        self.leader.subscribe()
    }

    pub(crate) fn set_leader(&self, has_leader: bool) {
        let now = self.now();
        self.with_world(|world| world.set_leader(has_leader, now));
        self.leader.send_replace(has_leader);
        self.leases_changed.notify_one();
    }

    /// Waits for a leader, as long as etcd does.
    async fn await_leader(&self) -> Result<(), Status> {
        if *self.leader.borrow() {
            return Ok(());
        }
        let mut leader = self.leader.subscribe();
        let elected = leader.wait_for(|has_leader| *has_leader);
        match tokio::time::timeout(REQUEST_TIMEOUT, elected).await {
            Ok(_) => Ok(()),
            Err(_) => Err(status(TIMED_OUT)),
        }
    }

    /// Ends leases as their time comes. Never returns.
    pub(crate) async fn end_leases(&self) {
        loop {
            let now = self.now();
            let next = self.with_world(|world| {
                world.expire(now);
                world.next_expiry()
            });
            let changed = self.leases_changed.notified();
            match next {
                // A lease ends at its end, not before: the timer may be early by its resolution.
                Some(next) => {
                    let left = next.saturating_sub(now);
                    let _ = tokio::time::timeout(left, changed).await;
                }
                None => changed.await,
            }
        }
    }
}

/// A request that is done, and not answered yet: what goes wrong with it, and its connection.
#[derive(Debug)]
pub(crate) struct UnderWay(Option<(Fault, Line)>);

impl UnderWay {
    /// The way of a request after the point at which it was done.
    pub(crate) async fn end(self) -> Result<(), Status> {
        match self.0 {
            Some((fault, line)) => fault.happen(Point::After, &line).await,
            None => Ok(()),
        }
    }
}

/// Whether the client would rather be refused than wait for a leader.
pub(crate) fn wants_leader(metadata: &MetadataMap) -> bool {
    metadata
        .get("hasleader")
        .is_some_and(|wants| wants == "true")
}

/// How gRPC says it.
pub(crate) fn status(refusal: Refusal) -> Status {
    let code = match refusal.code {
        Code::Unknown => GrpcCode::Unknown,
        Code::InvalidArgument => GrpcCode::InvalidArgument,
        Code::NotFound => GrpcCode::NotFound,
        Code::PermissionDenied => GrpcCode::PermissionDenied,
        Code::ResourceExhausted => GrpcCode::ResourceExhausted,
        Code::FailedPrecondition => GrpcCode::FailedPrecondition,
        Code::OutOfRange => GrpcCode::OutOfRange,
        Code::Unavailable => GrpcCode::Unavailable,
        Code::Unauthenticated => GrpcCode::Unauthenticated,
    };
    Status::new(code, refusal.text)
}
