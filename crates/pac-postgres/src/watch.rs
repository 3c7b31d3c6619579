//! Hints: sent outside of any durable commit, and received, on the connection that is always there.
//!
//! Anybody may send notifications and hear them, so what is sent is [sealed](seal). A hint in it
//! is `c<session>:<revision>:<repository>` (changed by a session, 0 for several; `s…` where
//! runs could start), `d` (a session died) or `m` (some were lost); several are separated by spaces. Text that cannot be
//! parsed is passed over. Where notifications do not arrive, as behind a proxy that pools
//! transactions, this process polls the revisions of the repositories that it uses.

mod floods;
#[cfg(test)]
mod fuzz;
mod outbox;
mod poll;
mod seal;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use pac_core::driver::{Finding, Watch};
use pac_core::hints::{Hints, Reached, Subscribers};
use pac_core::pauses::jittered;
use pac_core::{Error, ErrorKind, RepositoryKey, SessionId};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::client::{Client, Effect, Session, Sql, Type};
use crate::record::cell;
use floods::{Asked, Foreign, Looks};
use outbox::Outbox;
use poll::Interest;
use seal::Seal;

/// An urgent hint, on which a waiter may depend, is sent at once. After a send with hints for
/// several repositories, hints gather for so long before the next: one costs the server about as
/// much as a small commit.
const GATHER: Duration = Duration::from_millis(5);
/// Hints that are not urgent gather for so long.
const GATHER_IDLE: Duration = Duration::from_millis(5);
/// How long this process waits for its own notification before it concludes that none get through.
const SELF_TEST: Duration = Duration::from_secs(2);
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
    /// `None` until the key has been read, and nothing is heard until then.
    seal: Mutex<Option<Seal>>,
    /// What hints ask for that concerns the whole store.
    looks: Looks,
    foreign: Foreign,
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

impl Watches {
    pub(crate) fn new(client: Client) -> Self {
        Self {
            client,
            subscribers: Mutex::default(),
            outbox: Mutex::default(),
            seal: Mutex::default(),
            looks: Looks::default(),
            foreign: Foreign::default(),
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
        let (crowd, texts) = {
            let mut outbox = locked(&self.outbox);
            (outbox.is_urgent() && outbox.holds_several(), outbox.take())
        };
        if texts.is_empty() {
            return Ok(false);
        }
        if self.polls() {
            // They reach the subscribers of this process alone.
            texts.iter().for_each(|text| self.take_in(text));
            return Ok(false);
        }
        let taken = Taken(Some(self));
        self.send_texts(&texts).await?;
        taken.arrived();
        Ok(crowd)
    }

    async fn send_texts(&self, texts: &[String]) -> Result<(), Error> {
        let Some(session) = self.client.link().session() else {
            let message = "there is no connection to send hints on";
            return Err(Error::new(ErrorKind::Unavailable, "notify", message));
        };
        let payloads = texts.iter().map(|text| self.sealed(text));
        let payloads = payloads.collect::<Result<Vec<_>, _>>()?;
        // A hint need not be durable, so this does not wait for the disk.
        let sql = "SELECT pg_catalog.set_config('synchronous_commit', 'off', true), \
                     pg_catalog.pg_notify($1, hint) \
                   FROM pg_catalog.unnest($2) hint";
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

    /// Listens, and tries whether notifications get through: from another connection, because a
    /// proxy may hand one to whoever sends the next statement.
    pub(crate) async fn try_to_listen(&self) -> Result<bool, Error> {
        let Some(session) = self.client.link().session() else {
            let message = "the connection was lost while the driver was opened; try again";
            return Err(Error::new(ErrorKind::Unavailable, "listen", message));
        };
        self.start_to_hear(&session).await?;
        let (channel, word) = (&self.client.options().schema, self.sealed(&self.nonce)?);
        let params = [(channel as _, Type::TEXT), (&word as _, Type::TEXT)];
        let sql = "SELECT pg_catalog.pg_notify($1, $2)";
        self.client
            .query("notify", Effect::Write, sql, &params)
            .await?;
        Ok(timeout(SELF_TEST, self.heard.notified()).await.is_ok())
    }

    /// Reads the key of the store, which may have been given another one, and listens.
    pub(crate) async fn start_to_hear(&self, session: &Session) -> Result<(), Error> {
        let sql = format!("SELECT hints FROM {}.secrets", self.client.schema());
        let rows = session.query("listen", Effect::Read, &sql, &[]).await?;
        let key = rows.first().map(|row| cell::<&[u8]>(row, 0)).transpose()?;
        let usable = {
            let mut seal = locked(&self.seal);
            match (&mut *seal, key) {
                (Some(seal), Some(key)) => seal.renew(key).is_some(),
                (new, Some(key)) => {
                    *new = Seal::new(key);
                    new.is_some()
                }
                (_, None) => false,
            }
        };
        if !usable {
            let message = format!(
                "{}.secrets does not hold the one row with a key of 32 bytes for hints: restore it \
                 from a backup, or write 32 random bytes into it and restart all processes",
                self.client.schema()
            );
            return Err(Error::new(ErrorKind::Corrupt, "listen", message));
        }
        let listen = format!("LISTEN {}", self.client.schema());
        session.batch("listen", &listen).await
    }

    fn sealed(&self, text: &str) -> Result<String, Error> {
        let mut seal = locked(&self.seal);
        let payload = seal.as_mut().and_then(|seal| seal.seal(text));
        payload.ok_or_else(|| {
            let message = "a hint could not be sealed: the system gives no random bytes";
            Error::new(ErrorKind::Internal, "notify", message)
        })
    }

    /// Whether foreign notifications have arrived, for `pac doctor`.
    pub(crate) fn foreign(&self) -> Option<Finding> {
        let (text, cure) = self.foreign.told()?;
        Some(Finding::warning(text, cure))
    }

    fn hear(&self, payload: &str) {
        let opened = locked(&self.seal).as_mut().map(|seal| seal.open(payload));
        match opened {
            Some(Some(text)) => self.take_in(&text),
            Some(None) => self.foreign.arrived(&self.client.options().schema),
            None => {}
        }
    }

    /// Tells the subscribers what hints say.
    fn take_in(&self, text: &str) {
        if text == self.nonce {
            self.heard.notify_one();
        }
        for hint in text.split(' ') {
            match outbox::parse(hint) {
                Some(outbox::Hint::Changed(by, repository, reached)) => {
                    self.tell_others(by, |hints| hints.changed(&repository, reached));
                }
                Some(outbox::Hint::SessionDied) => self.looks.session_died(),
                Some(outbox::Hint::Missed) => self.looks.missed(),
                None => {}
            }
        }
    }

    /// Tells the subscribers of hints that concern the whole store, not too often, for ever.
    pub(crate) async fn pass_on_looks(&self) {
        let tell = |asked: Asked| {
            if asked.missed {
                self.tell(Hints::missed);
            }
            if asked.session_died {
                self.tell(Hints::session_died);
            }
        };
        self.looks.pass_on(tell).await;
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
