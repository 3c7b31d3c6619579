//! Hints: sent outside of any durable commit, and received, on the connection that is always there.
//!
//! A hint is `c<session>:<revision>:<repository>` (changed by a session, 0 for several; `s…` where
//! runs could start), `d` (a session died) or `m` (some were lost); several are separated by spaces. Text that cannot be
//! parsed is passed over. Where notifications do not arrive, as behind a proxy that pools
//! transactions, this process polls the revisions of the repositories that it uses.

mod outbox;

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pac_core::driver::Watch;
use pac_core::hints::{Hints, Reached, Subscribers};
use pac_core::pauses::jittered;
use pac_core::{Error, ErrorKind, RepositoryKey, Revision, SessionId};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Effect, Row, Sql, Type};
use crate::record::cell;
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
/// How long a watch that is opened waits for the connection that hears.
const HEARD_WITHIN: Duration = Duration::from_secs(4);
/// How long hints that were refused wait before they are sent again.
const REFUSED: Duration = Duration::from_millis(200);

/// The subscribers, and the hints that are to be sent.
#[derive(Debug)]
pub(crate) struct Watches {
    client: Client,
    subscribers: Mutex<Subscribers>,
    outbox: Mutex<Outbox>,
    /// Notified when there is a hint.
    wake: Notify,
    /// Notified when there is an urgent hint.
    hurry: Notify,
    /// `None` while there are notifications.
    interest: Mutex<Option<Interest>>,
    /// A text that only this process sends, to try whether notifications get through.
    nonce: String,
    /// Notified when the nonce has been received.
    heard: Notify,
    /// Held while hints are sent: one that is taken later is sent later.
    sending: tokio::sync::Mutex<()>,
    /// Why changes cannot be found at the moment, if they cannot.
    trouble: Mutex<Option<String>>,
}

/// What to poll for.
#[derive(Debug, Default)]
struct Interest {
    /// The repositories, each with the revision to compare with and the time of its last use.
    known: HashMap<RepositoryKey, (Revision, Instant)>,
    /// There are more than at the last poll.
    has_grown: bool,
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
            sending: tokio::sync::Mutex::default(),
            trouble: Mutex::default(),
        }
    }

    /// Adds a subscriber, once changes can be heard of.
    pub(crate) async fn subscribe(&self, session: SessionId) -> Result<Box<dyn Watch>, Error> {
        if self.polls() {
            if let Some(trouble) = locked(&self.trouble).clone() {
                return Err(Error::new(ErrorKind::Unavailable, "watch", trouble));
            }
        } else if timeout(HEARD_WITHIN, self.client.link().up())
            .await
            .is_err()
        {
            let trouble = locked(&self.trouble).clone();
            let message = trouble.unwrap_or_else(|| "there is no connection yet".to_owned());
            return Err(Error::new(ErrorKind::Unavailable, "watch", message));
        }
        Ok(locked(&self.subscribers).subscribe(session))
    }

    /// Changes cannot be heard of, for this reason: every subscriber is told once, and has to
    /// subscribe again.
    pub(crate) fn broken(&self, why: &Error) {
        *locked(&self.trouble) = Some(why.to_string());
        locked(&self.subscribers).break_off(why);
    }

    /// Changes can be heard of again, and some were not.
    pub(crate) fn missed(&self) {
        *locked(&self.trouble) = None;
        self.tell(Hints::missed);
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
            let known = interest.known.entry(repository.clone());
            interest.has_grown |= matches!(known, Entry::Vacant(_));
            known.or_insert((revision, now)).1 = now;
        }
    }

    /// Sends the hints of the outbox, for ever.
    pub(crate) async fn notify(&self) {
        loop {
            self.wake.notified().await;
            // A permit of `hurry` that was left over ends this wait early, which does no harm.
            let urgent = locked(&self.outbox).is_urgent();
            if !urgent {
                let _ = timeout(GATHER_IDLE, self.hurry.notified()).await;
            }
            loop {
                match self.send().await {
                    // Hints that are not urgent have gathered before this, and will again.
                    Ok(crowd) if crowd => break sleep(GATHER).await,
                    Ok(_) => break,
                    Err(error) => {
                        tracing::debug!(%error, "hints could not be sent; trying again");
                        sleep(jittered(REFUSED)).await;
                        self.client.link().up().await;
                    }
                }
            }
        }
    }

    /// Sends the hints of the outbox, after those that are on their way. True when there were urgent
    /// ones for several repositories. When it fails, they have become one: that some were lost.
    ///
    /// Cancel-safe: hints that were on their way then become that one, too.
    pub(crate) async fn send(&self) -> Result<bool, Error> {
        let _sending = self.sending.lock().await;
        let (crowd, payloads) = {
            let mut outbox = locked(&self.outbox);
            (outbox.is_urgent() && outbox.holds_several(), outbox.take())
        };
        if payloads.is_empty() {
            return Ok(false);
        }
        if self.polls() {
            // They reach the subscribers of this process alone.
            payloads.iter().for_each(|payload| self.hear(payload));
            return Ok(false);
        }
        let taken = Taken(Some(self));
        self.send_payloads(&payloads).await?;
        taken.arrived();
        Ok(crowd)
    }

    async fn send_payloads(&self, payloads: &[String]) -> Result<(), Error> {
        let Some(session) = self.client.link().session() else {
            let message = "there is no connection to send hints on";
            return Err(Error::new(ErrorKind::Unavailable, "notify", message));
        };
        // A hint need not be durable, so this does not wait for the disk.
        let sql = "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), \
                   pg_catalog.pg_notify($1, hint) FROM pg_catalog.unnest($2) hint";
        let channel = &self.client.options().schema;
        let params = [
            (channel as _, Type::TEXT),
            (&payloads as _, Type::TEXT_ARRAY),
        ];
        let sent = session.query("notify", Effect::Write, Sql::Often(sql), &params);
        sent.await.map(drop)
    }

    /// What the connection does with what it hears.
    pub(crate) fn hears(self: &Arc<Self>) -> impl Fn(&str) + Send + 'static {
        let watches = Arc::downgrade(self);
        move |payload: &str| {
            if let Some(watches) = watches.upgrade() {
                watches.hear(payload);
            }
        }
    }

    /// The statement after which a connection hears.
    pub(crate) fn listen(&self) -> String {
        format!("LISTEN {}", self.client.schema())
    }

    /// Listens, and tries whether notifications get through: from another connection, because a
    /// proxy may hand one to whoever sends the next statement.
    pub(crate) async fn try_to_listen(&self) -> Result<bool, Error> {
        let Some(session) = self.client.link().session() else {
            let message = "the connection was lost while the driver was opened; try again";
            return Err(Error::new(ErrorKind::Unavailable, "listen", message));
        };
        session.batch("listen", &self.listen()).await?;
        let (channel, word) = (&self.client.options().schema, &self.nonce);
        let params = [(channel as _, Type::TEXT), (word as _, Type::TEXT)];
        self.client
            .query(
                "notify",
                Effect::Write,
                "SELECT pg_catalog.pg_notify($1, $2)",
                &params,
            )
            .await?;
        Ok(timeout(SELF_TEST, self.heard.notified()).await.is_ok())
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

    /// From now on changes are found by polling.
    pub(crate) fn poll_from_now_on(&self) {
        *locked(&self.interest) = Some(Interest::default());
    }

    fn polls(&self) -> bool {
        locked(&self.interest).is_some()
    }

    /// Polls for changes in place of notifications, for ever.
    pub(crate) async fn poll(&self) {
        let mut seen = String::new();
        loop {
            sleep(jittered(POLL)).await;
            // Sends nothing that could fail.
            let _ = self.send().await;
            match self.look(&mut seen).await {
                Ok(()) => *locked(&self.trouble) = None,
                Err(error) => {
                    if locked(&self.trouble).is_none() {
                        tracing::warn!(%error, "could not poll for changes; trying again");
                    }
                    self.broken(&error);
                }
            }
        }
    }

    /// Looks at the revisions of what is of interest, unless nothing has been committed to the
    /// database since the last look, as of which the snapshot `seen` was.
    async fn look(&self, seen: &mut String) -> Result<(), Error> {
        let (known, has_grown) = self.interesting();
        if known.is_empty() {
            return Ok(());
        }
        let sql = "SELECT pg_catalog.pg_current_snapshot()::text";
        let rows = self.client.query("poll", Effect::Read, sql, &[]).await?;
        let now = rows.first().map_or(Ok(String::new()), |row| cell(row, 0))?;
        if now == *seen && !has_grown {
            return Ok(());
        }
        let names: Vec<_> = known.keys().map(RepositoryKey::as_str).collect();
        let found = self.revisions(&names).await.inspect_err(|_| seen.clear())?;
        self.compare(known, &found);
        *seen = now;
        Ok(())
    }

    /// The revisions of those of the named repositories that exist.
    async fn revisions(&self, names: &[&str]) -> Result<Vec<(String, Revision)>, Error> {
        let sql = format!(
            "SELECT repository, revision FROM {}.repositories WHERE repository = ANY ($1)",
            self.client.schema()
        );
        let params = [(&names as _, Type::TEXT_ARRAY)];
        let rows = self.client.query("poll", Effect::Read, &sql, &params);
        let read = |row: &Row| {
            let revision = u64::try_from(cell::<i64>(row, 1)?).unwrap_or(0);
            Ok((cell(row, 0)?, Revision::new(revision)))
        };
        rows.await?.iter().map(read).collect()
    }

    /// The repositories to look at, and whether there are more than at the last look.
    fn interesting(&self) -> (HashMap<RepositoryKey, Revision>, bool) {
        let mut interest = locked(&self.interest);
        let Some(interest) = &mut *interest else {
            return (HashMap::new(), false);
        };
        interest.known.retain(|_, (_, at)| at.elapsed() < INTEREST);
        let known = interest
            .known
            .iter()
            .map(|(key, (revision, _))| (key.clone(), *revision));
        (known.collect(), std::mem::take(&mut interest.has_grown))
    }

    fn compare(&self, known: HashMap<RepositoryKey, Revision>, found: &[(String, Revision)]) {
        let found: HashMap<&str, Revision> = found
            .iter()
            .map(|(name, revision)| (name.as_str(), *revision))
            .collect();
        for (key, before) in known {
            // A repository that was removed counts as at a later revision than any it had.
            let now = found.get(key.as_str()).copied();
            match now {
                // What was known before the question is there, unless the store went back in time.
                Some(now) if now < before => self.tell(Hints::missed),
                Some(now) if now == before => {}
                now => {
                    let now = now.unwrap_or(before.next());
                    self.tell(|hints| hints.changed(&key, Reached::revision(now)));
                }
            }
            if let Some(interest) = &mut *locked(&self.interest) {
                match (now, interest.known.get_mut(&key)) {
                    (Some(now), Some(known)) if now < before => known.0 = now,
                    (Some(now), Some(known)) => known.0 = now.max(known.0),
                    (None, _) => drop(interest.known.remove(&key)),
                    (_, None) => {}
                }
            }
        }
    }

    fn tell(&self, hint: impl Fn(&Hints)) {
        locked(&self.subscribers).tell(hint);
    }

    fn tell_others(&self, by: SessionId, hint: impl Fn(&Hints)) {
        locked(&self.subscribers).tell_others(by, hint);
    }
}

/// Hints that were taken out to be sent. Unless they [arrived](Self::arrived), others are to be told
/// that some were lost.
struct Taken<'a>(Option<&'a Watches>);

impl Taken<'_> {
    fn arrived(mut self) {
        self.0 = None;
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(watches) = self.0 {
            locked(&watches.outbox).missed();
            watches.wake(true);
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // After a panic the hints may be incomplete, but they can still be used.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
