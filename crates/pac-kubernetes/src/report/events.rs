//! Making events of notices.

use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use pac_pipelines::{Notice, Noticed, PipelinesController};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::bucket::Bucket;
use super::event::Told;
use super::memory::{Do, Memory};
use super::options::ReportOptions;
use crate::client::Client;
use crate::error::{Failure, FailureKind};

/// How many requests are under way at once at most.
const AT_ONCE: usize = 4;

/// Makes events of what a controller tells, until the controller is gone.
pub(super) async fn report(
    client: &Client,
    options: &ReportOptions,
    controller: &PipelinesController,
) {
    let mut notices = controller.notices();
    let mut bucket = Bucket::new(options.events_per_second);
    let mut memory = Memory::new(options.series_interval);
    let mut writes: FuturesUnordered<BoxFuture<'_, (String, Result<(), Failure>)>> =
        FuturesUnordered::new();
    loop {
        let next = tokio::select! {
            // What piles up meanwhile, piles up in the stream, which drops the oldest.
            next = notices.next(), if writes.len() < AT_ONCE => next,
            Some((name, written)) = writes.next() => {
                if let Err(failure) = written {
                    tracing::warn!(event = %name, error = %failure, "an event is not written");
                    memory.forget(&name);
                }
                continue;
            }
        };
        let notice = match next {
            Some(Noticed::Notice(notice)) => notice,
            Some(Noticed::Missed(missed)) => {
                tracing::warn!(missed, "more has happened than events may be made");
                continue;
            }
            Some(_) => continue,
            None => return,
        };
        let Some(told) = Told::of(&notice) else {
            continue;
        };
        let what = memory.happened(&told.name, Instant::now());
        if what == Do::Nothing {
            continue;
        }
        sleep_until(bucket.next(Instant::now())).await;
        bucket.take(Instant::now());
        let name = told.name.clone();
        writes.push(Box::pin(async move {
            (name, write(client, options, &notice, &told, what).await)
        }));
    }
}

async fn write(
    client: &Client,
    options: &ReportOptions,
    notice: &Notice,
    told: &Told,
    what: Do,
) -> Result<(), Failure> {
    let at = || MicroTime(Timestamp::now());
    if let Do::Count(count) = what {
        let series = json!({"series": {"count": count, "lastObservedTime": at()}});
        let namespace = notice.run.namespace();
        let counted = client.patch_event(namespace, &told.name, series, options.request_timeout);
        match counted.await {
            // The server keeps events for an hour or so: this one begins anew.
            Err(failure) if failure.kind == FailureKind::NotFound => {}
            other => return other,
        }
    }
    let event = told.event(notice, &options.instance, at());
    match client.create_event(&event, options.request_timeout).await {
        // Another controller, or this one before it was started anew, has made it.
        Err(failure) if failure.kind == FailureKind::Conflict => Ok(()),
        other => other,
    }
}
