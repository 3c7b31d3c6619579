//! What a manager does of its own accord: it listens, polls in case it did not hear, and sees
//! to the runs of sessions that died.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBuilder};
use tokio::time::{Instant, sleep, sleep_until};

use super::lane::Duty;
use super::repository::Repository;
use super::shared::Shared;
use crate::driver::{ListFilter, Watch, WatchEvent};
use crate::error::Error;
use crate::protocol::{Command, Death};
use crate::value::SessionId;

const RECONNECT: ExponentialBuilder = ExponentialBuilder::new()
    .with_min_delay(Duration::from_millis(50))
    .with_max_delay(LONGEST_RECONNECT)
    .with_jitter()
    .without_max_times();
const LONGEST_RECONNECT: Duration = Duration::from_secs(5);

/// Repositories looked at in one request to a server.
const PAGE: usize = 500;

/// A page is worth its price if it saves this many reads on average.
const PER_PAGE: usize = 50;

/// Runs a part of the manager that never ends by itself: when it does, by a panic, the manager
/// says so instead of pretending.
pub(super) async fn vital(shared: Arc<Shared>, part: &'static str, work: impl Future<Output = ()>) {
    struct Alarm(Arc<Shared>, &'static str);
    impl Drop for Alarm {
        fn drop(&mut self) {
            self.0.end(self.1);
        }
    }
    let _alarm = Alarm(shared, part);
    work.await;
}

pub(super) fn boxed(
    work: impl Future<Output = ()> + Send + 'static,
) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(work)
}

/// Passes hints on, and opens the watch anew whenever it breaks.
pub(super) async fn listen(shared: Arc<Shared>, mut watch: Box<dyn Watch>) {
    loop {
        match watch.next().await {
            Ok(event) => hint(&shared, event),
            Err(error) => {
                watch = reconnect(&shared, error).await;
                hint(&shared, WatchEvent::Missed);
            }
        }
    }
}

async fn reconnect(shared: &Shared, mut error: Error) -> Box<dyn Watch> {
    let mut backoff = RECONNECT.build();
    loop {
        tracing::warn!(%error, "the watch is broken; polling until it is back");
        shared.pulse.watching(Some(error.to_string()));
        sleep(backoff.next().unwrap_or(LONGEST_RECONNECT)).await;
        match shared.driver.watch(shared.session.id()).await {
            Ok(watch) => {
                shared.pulse.watching(None);
                return watch;
            }
            Err(again) => error = again,
        }
    }
}

fn hint(shared: &Arc<Shared>, event: WatchEvent) {
    match event {
        WatchEvent::Changed {
            repository,
            revision,
            snapshot,
        } => {
            let Some(repository) = shared.repositories.get(&repository).map(|r| Arc::clone(&r))
            else {
                return;
            };
            if repository.hinted(shared, revision, snapshot.as_ref()) {
                shared.attend(Duty::new(repository));
            }
        }
        WatchEvent::SessionDied => shared.death.notify_one(),
        WatchEvent::Missed => {
            for repository in shared.known_repositories() {
                shared.look_again(&repository);
            }
            shared.death.notify_one();
        }
    }
}

/// The back-stop: reads again what somebody waits for, in case a hint was lost.
pub(super) async fn poll(shared: Arc<Shared>) {
    loop {
        sleep(jittered(shared.options.poll_interval)).await;
        let mut repositories = shared.known_repositories();
        repositories.retain(|repository| repository.desk().is_of_interest());
        look_at(&shared, repositories).await;
        // Nobody can come by one that is not held elsewhere while the map is held.
        shared
            .repositories
            .retain(|_, known| Arc::strong_count(known) > 1 || !known.desk().is_idle());
    }
}

/// Has repositories read again. Of many, only those that have changed: pages of heads tell
/// which, unless those in between are so many that this would cost more than it saves.
async fn look_at(shared: &Arc<Shared>, mut repositories: Vec<Arc<Repository>>) {
    let pages = repositories.len() / PER_PAGE;
    let most = page(shared);
    repositories.sort_unstable_by(|a, b| a.key().cmp(b.key()));
    let mut left = repositories.into_iter().peekable();
    for _ in 0..pages {
        let Some(first) = left.next() else {
            return;
        };
        shared.look_again(&first);
        let list = shared.driver.list(ListFilter::All, Some(first.key()), most);
        let page = match shared.read(list, "poll").await {
            Ok(page) => page,
            Err(error) => {
                tracing::warn!(%error, "could not list repositories; reading each of them");
                break;
            }
        };
        let last = page
            .last()
            .map(|(key, _)| key)
            .filter(|_| page.len() >= most);
        while let Some(next) = left.next_if(|next| last.is_none_or(|last| next.key() <= last)) {
            let at = page.binary_search_by(|(key, _)| key.cmp(next.key()));
            match at.ok().and_then(|at| page.get(at)) {
                Some((_, head)) => shared.look_if_behind(&next, head.revision),
                None => shared.look_again(&next),
            }
        }
    }
    left.for_each(|repository| shared.look_again(&repository));
}

/// Ends or disowns the runs of dead sessions.
pub(super) async fn sweep(shared: Arc<Shared>) {
    // A session is here from the moment on at which somebody sees to it.
    let seen_to = Arc::new(Mutex::new(HashMap::new()));
    loop {
        let next = Instant::now() + jittered(shared.options.sweep_interval);
        tokio::select! {
            () = sleep_until(next) => {}
            () = shared.death.notified() => {}
        }
        match shared.read(shared.driver.dead_sessions(), "sweep").await {
            Ok(dead) => see_to(&shared, &seen_to, dead),
            Err(error) => {
                tracing::warn!(%error, "could not look for dead sessions; trying again");
            }
        }
    }
}

type SeenTo = Mutex<HashMap<SessionId, Death>>;

/// Each in a task of its own: one that cannot be seen to does not hold up the others.
fn see_to(shared: &Arc<Shared>, seen_to: &Arc<SeenTo>, dead: Vec<(SessionId, Death)>) {
    let mut seen = seen_to.lock().unwrap_or_else(PoisonError::into_inner);
    seen.retain(|session, _| dead.iter().any(|(other, _)| other == session));
    for (session, death) in dead {
        if seen.insert(session, death) == Some(death) {
            continue;
        }
        let (shared, seen_to) = (Arc::clone(shared), Arc::clone(seen_to));
        Arc::clone(&shared).spawn(async move {
            if let Err(error) = bury(&shared, session, death, "sweep").await {
                tracing::warn!(%session, %error, "could not see to a dead session; trying again");
                let mut seen = seen_to.lock().unwrap_or_else(PoisonError::into_inner);
                seen.remove(&session);
            }
        });
    }
}

/// Has the death of a session recorded in every repository in which it has entries.
pub(super) async fn bury(
    shared: &Arc<Shared>,
    session: SessionId,
    death: Death,
    operation: &'static str,
) -> Result<(), Error> {
    let left = shared.driver.repositories_of(session);
    let mut answers = Vec::new();
    for key in shared.read(left, operation).await? {
        let repository = shared.repository(&key);
        let mut desk = repository.desk();
        if !desk.dead.contains(&session) {
            desk.dead.push(session);
        }
        drop(desk);
        answers.push(shared.submit(&repository, Command::Expire { session, death }));
    }
    let mut failed = None;
    for answer in answers {
        let answer = answer
            .await
            .unwrap_or_else(|_| Err(shared.closed(operation)));
        failed = answer.err().or(failed);
    }
    failed.map_or(Ok(()), Err)
}

/// Looks for runs without an owner that could start, in the name of a manager that takes them:
/// whoever has disowned them may not have been one.
pub(super) async fn adopt(shared: Arc<Shared>) {
    loop {
        tokio::select! {
            () = sleep(jittered(shared.options.poll_interval)) => {}
            () = shared.grants.opened() => {}
        }
        if shared.grants.is_read()
            && let Err(error) = promote_all(&shared).await
        {
            tracing::warn!(%error, "could not look for runs without an owner; trying again");
        }
    }
}

async fn promote_all(shared: &Arc<Shared>) -> Result<(), Error> {
    let most = page(shared);
    let mut after = None;
    loop {
        let page = shared
            .driver
            .list(ListFilter::Startable, after.as_ref(), most);
        let page = shared.read(page, "list").await?;
        for (key, _) in &page {
            shared.send(&shared.repository(key), Command::Promote);
        }
        if page.len() < most {
            return Ok(());
        }
        after = page.into_iter().next_back().map(|(key, _)| key);
    }
}

/// A store in this process has no requests to be kept short, and looks through all its
/// repositories for every page.
fn page(shared: &Shared) -> usize {
    if shared.descriptor.remote {
        PAGE
    } else {
        usize::MAX
    }
}

/// Up to a fifth more or less, so that controllers started together do not poll together.
fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}
