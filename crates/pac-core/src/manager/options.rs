//! What can be set of a manager.

use std::time::Duration;

use crate::driver::SessionTtl;
use crate::error::{Error, ErrorKind};

/// Settings of a [`ConcurrencyManager`](super::ConcurrencyManager).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManagerOptions {
    /// How long this process counts as alive after it was last heard of. Default: 15 s.
    pub session_ttl: Duration,
    /// How long the slots of its durable runs outlive it. Default: what is usual for the store
    /// ([`Descriptor::lease_ttl`](crate::driver::Descriptor::lease_ttl)), and not below the
    /// session TTL.
    pub lease_ttl: Option<Duration>,
    /// How long a command is tried before it fails. Default: 10 s.
    pub command_timeout: Duration,
    /// How long one request to a store behind a network may take. Default: 5 s.
    pub request_timeout: Duration,
    /// How often waiting runs are looked after although no hint came. Default: 10 s.
    pub poll_interval: Duration,
    /// How often dead sessions are looked for although no hint came. Default: 1 s.
    pub sweep_interval: Duration,
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
        }
    }
}

impl ManagerOptions {
    pub(super) fn ttl(&self, usual: Duration) -> SessionTtl {
        SessionTtl {
            session: self.session_ttl,
            lease: self.lease_ttl.unwrap_or(usual.max(self.session_ttl)),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |message: &'static str| Err(Error::new(ErrorKind::Config, "open", message));
        if self.session_ttl < Duration::from_millis(100) {
            return wrong("the session TTL must be at least 100 ms; usual is 15 s");
        }
        if self.lease_ttl.is_some_and(|lease| lease < self.session_ttl) {
            return wrong("the lease TTL must not be shorter than the session TTL");
        }
        let intervals = [
            self.command_timeout,
            self.request_timeout,
            self.poll_interval,
            self.sweep_interval,
        ];
        if intervals.iter().any(Duration::is_zero) {
            return wrong("timeouts and intervals must be longer than zero");
        }
        Ok(())
    }
}
