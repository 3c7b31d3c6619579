//! Limits on etcd without this project: its own lock service.

use std::time::Duration;

use async_trait::async_trait;
use pac_core::raw::{PEER_TTL, PEER_WAIT, Peer, RawPlace};
use pac_core::{Error, ErrorKind};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::client::Client;
use crate::client::failure::Failure;

pub(super) const ALL: [Peer; 1] = [Peer {
    name: "lock service",
    counts: false,
}];

/// The lock of one task, on a lease of its own that is kept alive as long as this is there: to the
/// lock service all that one lease asks for is one.
pub(super) struct Lock {
    client: Client,
    name: String,
    lease: i64,
    /// The key that stands for holding the lock.
    held: Option<Vec<u8>>,
    _renewing: JoinSet<()>,
}

impl Lock {
    pub(super) async fn new(client: Client, name: String) -> Result<Self, Failure> {
        let seconds = i64::try_from(PEER_TTL.as_secs()).unwrap_or(i64::MAX);
        let granting = async {
            let (lease, _) = client.grant(seconds).await?;
            Ok((lease, client.keep(lease).await?))
        };
        let granted = timeout(PEER_WAIT, granting).await;
        let (lease, mut keeper) = granted.unwrap_or_else(|_| Err(Failure::unanswered()))?;
        let mut renewing = JoinSet::new();
        renewing.spawn(async move {
            // A lease that cannot be renewed is over, which the next request tells.
            while let Ok(Ok(())) = timeout(PEER_TTL, keeper.renew()).await {
                sleep(PEER_TTL / 3).await;
            }
        });
        Ok(Self {
            client,
            name,
            lease,
            held: None,
            _renewing: renewing,
        })
    }
}

#[async_trait]
impl RawPlace for Lock {
    async fn acquire(&mut self) -> Result<(), Error> {
        let lock = self.client.lock(&self.name, self.lease);
        self.held = Some(within(PEER_WAIT, lock).await?);
        Ok(())
    }

    async fn release(&mut self) -> Result<(), Error> {
        match self.held.take() {
            Some(key) => within(PEER_WAIT, self.client.unlock(key)).await,
            None => Ok(()),
        }
    }
}

async fn within<T>(
    longest: Duration,
    request: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Error> {
    let answer = timeout(longest, request).await;
    let answer = answer.unwrap_or_else(|_| Err(Failure::unanswered()));
    answer.map_err(|failure| Error::new(ErrorKind::Unavailable, "measure", failure.to_string()))
}
