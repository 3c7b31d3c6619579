//! What can be set of a manager.

use std::time::Duration;

use crate::driver::SessionTtl;
use crate::error::{Error, ErrorKind};
use crate::identity::SessionIdentity;

/// No duration of a manager may be longer: nothing that a manager does takes so long, and sums
/// of such durations stay within what every clock can tell.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Settings of a [`ConcurrencyManager`](super::ConcurrencyManager): the default ones, changed
/// by `with_…`. [`open`](super::ConcurrencyManager::open) refuses those that make no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ManagerOptions {
    /// How long this process counts as alive after it was last heard of: 100 ms to
    /// [24 hours](Self::LONGEST_SESSION_TTL). Default: 15 s.
    pub session_ttl: Duration,
    /// How long the slots of its durable runs outlive it: not below the session TTL, at most 30
    /// days. Default: what is usual for the store
    /// ([`Descriptor::lease_ttl`](crate::driver::Descriptor::lease_ttl)), and not below the
    /// session TTL.
    pub lease_ttl: Option<Duration>,
    /// How long a call may take, counted from when it was made, before it fails: above zero, at
    /// most 30 days. Default: 10 s.
    pub command_timeout: Duration,
    /// How long one request to a store behind a network may take: above zero, at most 30 days.
    /// Default: 5 s.
    pub request_timeout: Duration,
    /// How often waiting runs are looked after although no hint came: above zero, at most 30
    /// days. Default: 10 s.
    pub poll_interval: Duration,
    /// How often dead sessions are looked for although no hint came: above zero, at most 30
    /// days. Default: 1 s.
    pub sweep_interval: Duration,
    /// Where the session is kept alive. Default: on a thread for a store behind a network, else
    /// in a task.
    pub keep_alive_on: Option<KeepAliveOn>,
    /// Who holds the sessions of this manager, for the people who look at the store. Default: the
    /// running process, see [`SessionIdentity::of_this_process`].
    pub identity: Option<SessionIdentity>,
}

/// Where a session is kept alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeepAliveOn {
    /// On a thread of its own, with a runtime of its own: no load of the application can starve
    /// it.
    Thread,
    /// In a task of the runtime that the manager was opened on: for tests, whose paused time
    /// ends at their own runtime.
    Task,
}

impl Default for ManagerOptions {
    fn default() -> Self {
        Self {
            session_ttl: Duration::from_secs(15),
            lease_ttl: None,
            command_timeout: Duration::from_secs(10),
            request_timeout: Duration::from_secs(5),
            poll_interval: Duration::from_secs(10),
            sweep_interval: Duration::from_secs(1),
            keep_alive_on: None,
            identity: None,
        }
    }
}

impl ManagerOptions {
    /// The shortest session TTL: 100 ms. A shorter one is over before a busy process can renew it.
    pub const SHORTEST_SESSION_TTL: Duration = Duration::from_millis(100);

    /// The longest session TTL: 24 hours. A process that dies without a word holds its slots for
    /// so long, and all that wait for them; what takes so long to be noticed is noticed by a
    /// person before. No outage of a store that a holder has to survive is longer.
    pub const LONGEST_SESSION_TTL: Duration = Duration::from_secs(24 * 60 * 60);

    /// The same with another [`session_ttl`](Self::session_ttl).
    #[must_use]
    pub fn with_session_ttl(self, session_ttl: Duration) -> Self {
        Self {
            session_ttl,
            ..self
        }
    }

    /// The same with another [`lease_ttl`](Self::lease_ttl).
    #[must_use]
    pub fn with_lease_ttl(self, lease_ttl: Duration) -> Self {
        Self {
            lease_ttl: Some(lease_ttl),
            ..self
        }
    }

    /// The same with another [`command_timeout`](Self::command_timeout).
    #[must_use]
    pub fn with_command_timeout(self, command_timeout: Duration) -> Self {
        Self {
            command_timeout,
            ..self
        }
    }

    /// The same with another [`request_timeout`](Self::request_timeout).
    #[must_use]
    pub fn with_request_timeout(self, request_timeout: Duration) -> Self {
        Self {
            request_timeout,
            ..self
        }
    }

    /// The same with another [`poll_interval`](Self::poll_interval).
    #[must_use]
    pub fn with_poll_interval(self, poll_interval: Duration) -> Self {
        Self {
            poll_interval,
            ..self
        }
    }

    /// The same with another [`sweep_interval`](Self::sweep_interval).
    #[must_use]
    pub fn with_sweep_interval(self, sweep_interval: Duration) -> Self {
        Self {
            sweep_interval,
            ..self
        }
    }

    /// The same with another [`keep_alive_on`](Self::keep_alive_on).
    #[must_use]
    pub fn with_keep_alive_on(self, on: KeepAliveOn) -> Self {
        Self {
            keep_alive_on: Some(on),
            ..self
        }
    }

    /// The same with another [`identity`](Self::identity).
    #[must_use]
    pub fn with_identity(self, identity: SessionIdentity) -> Self {
        Self {
            identity: Some(identity),
            ..self
        }
    }

    pub(super) fn ttl(&self, usual: Duration) -> SessionTtl {
        SessionTtl::new(
            self.session_ttl,
            self.lease_ttl.unwrap_or(usual.max(self.session_ttl)),
        )
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |message: String| Err(Error::new(ErrorKind::Config, "open", message));
        for (name, value) in [
            ("session TTL", Some(self.session_ttl)),
            ("lease TTL", self.lease_ttl),
            ("command timeout", Some(self.command_timeout)),
            ("request timeout", Some(self.request_timeout)),
            ("poll interval", Some(self.poll_interval)),
            ("sweep interval", Some(self.sweep_interval)),
        ] {
            if value.is_some_and(|value| value.is_zero()) {
                return wrong(format!("the {name} must be longer than zero"));
            }
            if value.is_some_and(|value| value > LONGEST) {
                return wrong(format!("the {name} must not be longer than 30 days"));
            }
        }
        if self.session_ttl > Self::LONGEST_SESSION_TTL {
            return wrong(
                "the session TTL must not be longer than 24 hours: the slots of a process that \
                 dies are held for so long; usual is 15 s"
                    .to_owned(),
            );
        }
        if self.session_ttl < Self::SHORTEST_SESSION_TTL {
            return wrong("the session TTL must be at least 100 ms; usual is 15 s".to_owned());
        }
        if self.lease_ttl.is_some_and(|lease| lease < self.session_ttl) {
            return wrong("the lease TTL must not be shorter than the session TTL".to_owned());
        }
        Ok(())
    }
}
