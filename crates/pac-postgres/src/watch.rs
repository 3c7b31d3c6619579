//! Hints: sent by a connection of their own, outside of any durable commit, and heard by another.
//!
//! A hint is `c<session>:<revision>:<repository>` (changed by a session, 0 for several), `d` (a
//! session died) or `m` (some were lost); several are separated by spaces. What cannot be
//! understood is no hint. Where notifications do not arrive, as behind a proxy that pools
//! transactions, the revisions of the repositories that this process deals with are polled.

mod outbox;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use pac_core::driver::Watch;
use pac_core::hints::Hints;
use pac_core::{Error, RepositoryKey, Revision, SessionId};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Effect, Session, Sql, Type};
use crate::store::Store;
use outbox::Outbox;

/// A hint that somebody may wait for leaves at once. Where more than one came while another was
/// on its way, they gather for so long before the next leave: a hint costs the server about as
/// much as a small commit.
const GATHER: Duration = Duration::from_millis(5);
/// What nobody waits for, but somebody may look at, gathers for so long.
const GATHER_IDLE: Duration = Duration::from_millis(5);
/// How long a hint to oneself may take before it counts as not getting through.
const SELF_TEST: Duration = Duration::from_secs(2);
/// Between two polls, where there are no notifications.
const POLL: Duration = Duration::from_millis(250);
/// A repository that was not dealt with for so long is polled no more.
const INTEREST: Duration = Duration::from_secs(600);
/// Between two attempts to connect: at first, and at most.
const RECONNECT: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));

/// Who listens, and what is to be told.
#[derive(Debug)]
pub(crate) struct Watches {
    client: Client,
    subscribers: Mutex<Vec<(SessionId, Weak<Hints>)>>,
    outbox: Mutex<Outbox>,
    wake: Notify,
    /// There is an urgent one.
    hurry: Notify,
    /// What a poll compares with; only while there are no notifications.
    interest: Mutex<Option<HashMap<RepositoryKey, (Revision, Instant)>>>,
    /// A word that only this process has sent, and that it has been heard.
    nonce: String,
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

    /// A session has changed a repository.
    pub(crate) fn changed(
        &self,
        by: SessionId,
        repository: &RepositoryKey,
        revision: Revision,
        urgent: bool,
    ) {
        self.dealt_with(repository, revision);
        self.may_have_changed(by, repository, revision, urgent);
    }

    /// The same, if the request has arrived whose answer did not.
    pub(crate) fn may_have_changed(
        &self,
        by: SessionId,
        repository: &RepositoryKey,
        revision: Revision,
        urgent: bool,
    ) {
        locked(&self.outbox).changed(by, repository, revision, urgent);
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

    /// Somebody in this process knows a repository at a revision. Others may know an earlier one:
    /// only a poll, which tells all of them, moves on.
    pub(crate) fn dealt_with(&self, repository: &RepositoryKey, revision: Revision) {
        if let Some(interest) = &mut *locked(&self.interest) {
            let now = Instant::now();
            let known = interest
                .entry(repository.clone())
                .or_insert((revision, now));
            known.1 = now;
        }
    }

    /// Sends hints on, for ever.
    pub(crate) async fn notify(self: Arc<Self>) {
        let mut session = None;
        loop {
            self.wake.notified().await;
            // A permit that was left over gathers less, and no harm is done.
            let urgent = locked(&self.outbox).is_urgent();
            if !urgent {
                let _ = timeout(GATHER_IDLE, self.hurry.notified()).await;
            }
            let mut backoff = RECONNECT.0;
            loop {
                // Taken anew each time: what could not be sent has become one hint that is.
                let (crowd, payloads) = {
                    let mut outbox = locked(&self.outbox);
                    // What is not urgent has gathered, and will again.
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
        // Nothing waits for the disk because of a hint.
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

    /// Listens, and tries whether hints get through. What listens, if they do.
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

    /// Goes on listening, for ever.
    pub(crate) async fn keep_listening(self: Arc<Self>, mut session: Session) {
        loop {
            // A peer that has gone without a word is found by the keep-alive of TCP.
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
                Some(outbox::Hint::Changed(by, repository, revision)) => {
                    self.tell_others(by, |hints| hints.changed(&repository, revision));
                }
                Some(outbox::Hint::SessionDied) => self.tell(Hints::session_died),
                Some(outbox::Hint::Missed) => self.tell(Hints::missed),
                None => {}
            }
        }
    }

    /// Polls instead, for ever.
    pub(crate) async fn poll(self: Arc<Self>, store: Arc<Store>) {
        *locked(&self.interest) = Some(HashMap::new());
        loop {
            sleep(jittered(POLL)).await;
            // Nobody hears them outside of this process.
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
            // One that was removed is at a later revision than any it had.
            let now = found.get(key.as_str()).copied();
            let changed = now.is_some_and(|now| now > before);
            if changed || now.is_none() {
                let now = now.unwrap_or(before.next());
                self.tell(|hints| hints.changed(&key, now));
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
    // A half-made hint is still a hint.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn jittered(interval: Duration) -> Duration {
    interval.mul_f64(0.8 + 0.4 * fastrand::f64())
}
