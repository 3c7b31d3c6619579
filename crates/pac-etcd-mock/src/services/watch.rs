//! Watches.

use std::sync::Arc;

use etcd_client::proto::{
    PbWatchRequest, PbWatchRequestUnion as Union, PbWatchResponse, PbWatchService,
};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::lease::without_leader;
use crate::operation::Operation;
use crate::server::HAS_ENDED;
use crate::shared::{Shared, status, wants_leader};
use crate::world::refusal::NO_LEADER;
use crate::world::span::Span;
use crate::world::watch::{StreamId, WatchCreate};

/// The service `etcdserverpb.Watch`.
#[derive(Debug)]
pub(super) struct Watch(pub(super) Arc<Shared>);

#[async_trait]
impl PbWatchService for Watch {
    type WatchStream = BoxStream<'static, Result<PbWatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<PbWatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.0.check_leader(request.metadata())?;
        let (stream, notify) = self.0.open_watches();
        let mut watching = Watching {
            leader: wants_leader(request.metadata()).then(|| self.0.leader()),
            shared: Arc::clone(&self.0),
            stream,
            notify,
            progress: progress(&self.0),
            metadata: request.metadata().clone(),
            extensions: request.extensions().clone(),
            requests: request.into_inner(),
            is_half_closed: false,
            has_ended: false,
        };
        // As a server in Go does: the head of the answer leaves with the first response, so that a
        // client that has it knows that its watch is there.
        let first = watching.next().await;
        let others = stream::unfold(watching, |mut watching| async move {
            Some((watching.next().await?, watching))
        });
        let responses = stream::iter(first).chain(others);
        Ok(Response::new(responses.boxed()))
    }
}

fn progress(shared: &Shared) -> Interval {
    let every = shared.progress_interval();
    let mut interval = tokio::time::interval_at(Instant::now() + every, every);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// A stream of watches. Its client drives it: while nothing is taken from it, nothing is read
/// either.
struct Watching {
    shared: Arc<Shared>,
    stream: StreamId,
    notify: Arc<Notify>,
    progress: Interval,
    /// For a client that wants the stream to end when there is no leader.
    leader: Option<watch::Receiver<bool>>,
    metadata: MetadataMap,
    extensions: tonic::codegen::http::Extensions,
    requests: Streaming<PbWatchRequest>,
    is_half_closed: bool,
    has_ended: bool,
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.shared.close_watches(self.stream);
    }
}

impl Watching {
    async fn next(&mut self) -> Option<Result<PbWatchResponse, Status>> {
        if self.has_ended {
            return None;
        }
        let next = self.next_response().await;
        self.has_ended = next.is_err();
        Some(next)
    }

    async fn next_response(&mut self) -> Result<PbWatchResponse, Status> {
        // One request for one response at least, however many events there are.
        if !self.is_half_closed
            && let Some(request) = self.requests.message().now_or_never()
        {
            self.handle(request?).await?;
        }
        loop {
            let stream = self.stream;
            let response = self.shared.with_world(|world| world.next_response(stream));
            if let Some(response) = response {
                if self.is_sent(&response).await {
                    return Ok(response);
                }
                continue;
            }
            tokio::select! {
                request = self.requests.message(), if !self.is_half_closed => {
                    self.handle(request?).await?;
                }
                () = self.notify.notified() => {}
                _ = self.progress.tick() => {
                    self.shared.with_world(|world| world.tell_progress(stream));
                }
                () = without_leader(&mut self.leader) => return Err(status(NO_LEADER)),
                () = self.shared.ended() => return Err(Status::unavailable(HAS_ENDED)),
            }
        }
    }

    /// Whether a response is not lost, once it is time for it.
    async fn is_sent(&self, response: &PbWatchResponse) -> bool {
        if response.events.is_empty() {
            return true;
        }
        let (is_lost, delay) = self.shared.plan.events();
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        !is_lost
    }

    async fn handle(&mut self, request: Option<PbWatchRequest>) -> Result<(), Status> {
        let Some(request) = request else {
            self.is_half_closed = true;
            return Ok(());
        };
        let stream = self.stream;
        match request.request_union {
            Some(Union::CreateRequest(create)) => {
                const NO_PUT: i32 = 0;
                const NO_DELETE: i32 = 1;
                let key = if create.key.is_empty() {
                    &[0]
                } else {
                    create.key.as_slice()
                };
                let asked = WatchCreate {
                    span: Span::of(key, &create.range_end),
                    from: create.start_revision,
                    id: create.watch_id,
                    progress: create.progress_notify,
                    previous: create.prev_kv,
                    fragment: create.fragment,
                    no_put: create.filters.contains(&NO_PUT),
                    no_delete: create.filters.contains(&NO_DELETE),
                };
                self.create(&asked).await
            }
            Some(Union::CancelRequest(cancel)) => {
                self.shared.counters.count(Operation::WatchCancel);
                let watch = cancel.watch_id;
                self.shared
                    .with_world(|world| world.cancel_watch(stream, watch));
                Ok(())
            }
            Some(Union::ProgressRequest(_)) => {
                self.shared.counters.count(Operation::WatchProgress);
                self.shared.with_world(|world| world.ask_progress(stream));
                Ok(())
            }
            None => Ok(()),
        }
    }

    async fn create(&self, asked: &WatchCreate) -> Result<(), Status> {
        let operation = Operation::WatchCreate;
        let shared = &self.shared;
        let under_way = shared.begin_on(operation, false, &self.extensions).await?;
        let call = shared.call(&self.metadata);
        shared.with_world(|world| world.create_watch(&call, self.stream, asked));
        under_way.end().await
    }
}
