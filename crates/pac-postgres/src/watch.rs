//! Hints: sent on a connection of their own, outside of any durable commit, and received on
//! another.
//!
//! A hint is `c<session>:<revision>:<repository>` (changed by a session, 0 for several), `d` (a
//! session died) or `m` (some were lost); several are separated by spaces. Text that cannot be
//! parsed is passed over. Where notifications do not arrive, as behind a proxy that pools
//! transactions, this process polls the revisions of the repositories that it uses.

mod outbox;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pac_core::driver::Watch;
use pac_core::hints::{Hints, Reached};
use pac_core::{Error, RepositoryKey, Revision, SessionId};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Effect, Session, Sql, Type};
use crate::store::Store;
use outbox::Outbox;

/// An urgent hint, on which a waiter may depend, is sent at once. After a send with hints for
/// several repositories, hints gather for so long before the next: one costs the server about as
/// much as a small commit.
const GATHER: Duration = Duration::from_millis(5);
/// Hints that are not urgent gather for so long.
const GATHER_IDLE: Duration = Duration::from_millis(5);
/// How long this process waits for its own notification before it concludes that none get through.
const SELF_TEST: Duration = Duration::from_secs(2);
/// The time between two polls, where there are no notifications.
const POLL: Duration = Duration::from_millis(250);
/// A repository that this process has not used for so long is polled no more.
const INTEREST: Duration = Duration::from_secs(600);
/// The time between two attempts to connect: at first, and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// The subscribers, and the hints that are to be sent.
#[derive(Debug)]
pub(crate) struct Watches {
    client: Client,
    subscribers: Mutex<Vec<(SessionId, Weak<Hints>)>>,
    outbox: Mutex<Outbox>,
    /// Notified when there is a hint.
    wake: Notify,
    /// Notified when there is an urgent hint.
    hurry: Notify,
    /// The repositories to poll, each with the revision to compare with and the time of its last
    /// use; `None` while there are notifications.
    interest: Mutex<Option<HashMap<RepositoryKey, (Revision, Instant)>>>,
    /// A text that only this process sends, to try whether notifications get through.
    nonce: String,
    /// Notified when the nonce has been received.
    heard: Notify,
}

impl Watches {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            subscribers: Mutex::default(),
            outbox: Mutex::default(),
            wake: Notify::new(),
            hurry: Notify::new(),
            interest: Mutex::default(),
            nonce: format!("t{:016x}", fastrand::u64(..)),
            heard: Notify::new(),
        }
    }

    pub(crate) fn subscribe(&self, session: SessionId) -> Box<dyn Watch> {
        let hints = Arc::<Hints>::default();
        let mut subscribers = locked(&self.subscribers);
        subscribers.retain(|(_, known)| known.strong_count() > 0);
        subscribers.push((session, Arc::downgrade(&hints)));
        hints.watch()
    }

    /// Notes that a session has changed a repository.
    pub(crate) fn changed(
        &self,
        by: SessionId,
        repository: &RepositoryKey,
        reached: Reached,
        urgent: bool,
    ) {
        self.dealt_with(repository, reached.revision);
        self.may_have_changed(by, repository, reached, urgent);
    }

    /// The same for a commit whose answer did not come, and which may not have happened.
    pub(crate) fn may_have_changed(
        &self,
        by: SessionId,
        repository: &RepositoryKey,
        reached: Reached,
        urgent: bool,
    ) {
        // A run that could start waits for the manager that hears of it.
        let urgent = urgent || reached.startable;
        locked(&self.outbox).changed(by, repository, reached, urgent);
        self.wake(urgent);
    }

    pub(crate) fn session_died(&self) {
        locked(&self.outbox).session_died();
        self.wake(true);
    }

    fn wake(&self, urgent: bool) {
        self.wake.notify_one();
        if urgent {
            self.hurry.notify_one();
        }
    }

    /// Notes that this process uses a repository, which one of its managers knows at a revision.
    /// Other managers may know an earlier one, so only a poll, which tells all of them, raises the
    /// revision to compare with.
    pub(crate) fn dealt_with(&self, repository: &RepositoryKey, revision: Revision) {
        if let Some(interest) = &mut *locked(&self.interest) {
            let now = Instant::now();
            let known = interest
                .entry(repository.clone())
                .or_insert((revision, now));
            known.1 = now;
        }
    }

    /// Sends the hints of the outbox, for ever.
    pub(crate) async fn notify(self: Arc<Self>) {
        let mut session = None;
        loop {
            self.wake.notified().await;
            // A permit of `hurry` that was left over ends this wait early, which does no harm.
            let urgent = locked(&self.outbox).is_urgent();
            if !urgent {
                let _ = timeout(GATHER_IDLE, self.hurry.notified()).await;
            }
            let mut backoff = RECONNECT.0;
            loop {
                // Taken anew for each attempt: hints that could not be sent have become one, `m`.
                let (crowd, payloads) = {
                    let mut outbox = locked(&self.outbox);
                    // Hints that are not urgent have gathered before this, and will again.
                    (outbox.is_urgent() && outbox.holds_several(), outbox.take())
                };
                match self.send(&mut session, &payloads).await {
                    Ok(()) if crowd => break sleep(GATHER).await,
                    Ok(()) => break,
                    Err(error) => {
                        tracing::warn!(%error, "hints could not be sent; trying again");
                        locked(&self.outbox).missed();
                        sleep(jittered(backoff)).await;
                        backoff = (backoff * 2).min(RECONNECT.1);
                    }
                }
            }
        }
    }

    async fn send(&self, kept: &mut Option<Session>, payloads: &[String]) -> Result<(), Error> {
        if payloads.is_empty() {
            return Ok(());
        }
        let session = match kept.take().filter(|session| !session.is_closed()) {
            Some(session) => session,
            None => self.client.connect("notify").await?,
        };
        // A hint need not be durable, so this does not wait for the disk.
        let sql = "SELECT set_config('synchronous_commit', 'off', true), pg_notify($1, hint) \
                   FROM unnest($2) hint";
        let channel = self.client.schema();
        let params = [
            (&channel as _, Type::TEXT),
            (&payloads as _, Type::TEXT_ARRAY),
        ];
        session
            .query("notify", Effect::Write, Sql::Often(sql), &params)
            .await?;
        *kept = Some(session);
        Ok(())
    }

    /// Listens, and tries whether notifications get through. Returns the connection that listens if
    /// they do.
    pub(crate) async fn try_to_listen(self: &Arc<Self>) -> Result<Option<Session>, Error> {
        let session = self.listen().await?;
        let (channel, word) = (self.client.schema(), &self.nonce);
        let params = [(&channel as _, Type::TEXT), (word as _, Type::TEXT)];
        self.client
            .query("notify", Effect::Write, "SELECT pg_notify($1, $2)", &params)
            .await?;
        let heard = timeout(SELF_TEST, self.heard.notified()).await.is_ok();
        Ok(heard.then_some(session))
    }

    async fn listen(self: &Arc<Self>) -> Result<Session, Error> {
        let watches = Arc::downgrade(self);
        let heard = move |payload: &str| {
            if let Some(watches) = watches.upgrade() {
                watches.hear(payload);
            }
        };
        self.client.listen(self.client.schema(), heard).await
    }

    /// Listens for ever, on a new connection when the old one is lost.
    pub(crate) async fn keep_listening(self: Arc<Self>, mut session: Session) {
        loop {
            // The keep-alive of TCP finds out when the server is gone without closing the
            // connection.
            session.closed().await;
            let mut backoff = RECONNECT.0;
            session = loop {
                match self.listen().await {
                    Ok(session) => break session,
                    Err(error) => {
                        tracing::warn!(%error, "hints cannot be heard; trying again");
                        sleep(jittered(backoff)).await;
                        backoff = (backoff * 2).min(RECONNECT.1);
                    }
                }
            };
            self.tell(Hints::missed);
        }
    }

    fn hear(&self, payload: &str) {
        if payload == self.nonce {
            self.heard.notify_one();
        }
        for hint in payload.split(' ') {
            match outbox::parse(hint) {
                Some(outbox::Hint::Changed(by, repository, reached)) => {
                    self.tell_others(by, |hints| hints.changed(&repository, reached));
                }
                Some(outbox::Hint::SessionDied) => self.tell(Hints::session_died),
                Some(outbox::Hint::Missed) => self.tell(Hints::missed),
                None => {}
            }
        }
    }

    /// Polls for changes in place of notifications, for ever.
    pub(crate) async fn poll(self: Arc<Self>, store: Arc<Store>) {
        *locked(&self.interest) = Some(HashMap::new());
        loop {
            sleep(jittered(POLL)).await;
            // The hints of this process reach its own subscribers alone.
            let own = locked(&self.outbox).take();
            own.iter().for_each(|payload| self.hear(payload));
            let known = self.interesting();
            if known.is_empty() {
                continue;
            }
            let names: Vec<_> = known.keys().map(RepositoryKey::as_str).collect();
            match store.revisions(&names).await {
                Ok(found) => self.compare(known, &found),
                Err(error) => tracing::warn!(%error, "could not poll for changes; trying again"),
            }
        }
    }

    fn interesting(&self) -> HashMap<RepositoryKey, Revision> {
        let mut interest = locked(&self.interest);
        let Some(interest) = &mut *interest else {
            return HashMap::new();
        };
        interest.retain(|_, (_, at)| at.elapsed() < INTEREST);
        let known = interest
            .iter()
            .map(|(key, (revision, _))| (key.clone(), *revision));
        known.collect()
    }

    fn compare(&self, known: HashMap<RepositoryKey, Revision>, found: &[(String, Revision)]) {
        let found: HashMap<&str, Revision> = found
            .iter()
            .map(|(name, revision)| (name.as_str(), *revision))
            .collect();
        for (key, before) in known {
            // A repository that was removed counts as at a later revision than any it had.
            let now = found.get(key.as_str()).copied();
            let changed = now.is_some_and(|now| now > before);
            if changed || now.is_none() {
                let now = now.unwrap_or(before.next());
                self.tell(|hints| hints.changed(&key, Reached::revision(now)));
            }
            if let Some(interest) = &mut *locked(&self.interest) {
                match (now, interest.get_mut(&key)) {
                    (Some(now), Some(known)) => known.0 = now.max(known.0),
                    (None, _) => drop(interest.remove(&key)),
                    (_, None) => {}
                }
            }
        }
    }

    fn tell(&self, hint: impl Fn(&Hints)) {
        self.tell_others(SessionId::new(0), hint);
    }

    fn tell_others(&self, by: SessionId, hint: impl Fn(&Hints)) {
        for (session, hints) in &*locked(&self.subscribers) {
            if *session != by
                && let Some(hints) = hints.upgrade()
            {
                hint(&hints);
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic the hints may be incomplete, but they can still be used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}
