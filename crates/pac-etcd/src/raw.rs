//! Plain writes and watches of etcd, without the protocol, for `pac bench`.

mod peers;

use std::sync::Arc;

use async_trait::async_trait;
use pac_core::effect::Effect;
use pac_core::raw::{Gauges, Peer, RawListener, RawPlace, RawStore};
use pac_core::{Error, ErrorKind};

use crate::EtcdOptions;
use crate::client::cluster::Cluster;
use crate::client::failure::Failure;
use crate::client::{Changes, Client, Operation, Range, Transaction};
use crate::keys::{Keys, after, end_of};
use crate::store::paced::{Pace, STEP};
use crate::store::pages::Pages;

/// About as long as the record of a run.
const VALUE: [u8; 200] = [b'x'; 200];

/// Puts and watches of one client.
#[derive(Debug)]
pub struct RawEtcd {
    cluster: Cluster,
    keys: Keys,
}

impl RawEtcd {
    /// Checks the options; the first request connects.
    ///
    /// # Errors
    /// `Config` when options contradict each other or a file cannot be read.
    pub async fn connect(options: &EtcdOptions) -> Result<Self, Error> {
        Ok(Self {
            keys: Keys::new(&options.prefix)?,
            cluster: Cluster::new(Arc::new(options.checked().await?)),
        })
    }

    fn key_of(&self, writer: usize) -> String {
        format!("{}raw/{writer}", self.keys.prefix())
    }

    /// The lock service keeps its queue below this and a slash.
    fn lock_name(&self) -> String {
        format!("{}raw-lock", self.keys.prefix())
    }

    fn announcements(&self) -> String {
        format!("{}raw-announcements", self.keys.prefix())
    }

    async fn put(&self, key: String) -> Result<(), Error> {
        let put = |client: Client| {
            let key = key.clone();
            async move { client.put(key, VALUE.to_vec()).await }
        };
        let written = self.cluster.call(Effect::Write, put).await;
        written.map_err(|failure| failed(&failure))
    }
}

#[async_trait]
impl RawStore for RawEtcd {
    async fn server(&self) -> Result<String, Error> {
        let standing = self.cluster.standing().await;
        standing
            .map(|standing| format!("etcd {}", standing.version))
            .map_err(|failure| failed(&failure))
    }

    async fn write(&self, writer: usize) -> Result<(), Error> {
        self.put(self.key_of(writer)).await
    }

    async fn read(&self, writer: usize) -> Result<(), Error> {
        let range = Range {
            key: self.key_of(writer).into_bytes(),
            ..Range::default()
        };
        self.cluster.range(range, "measure").await.map(drop)
    }

    async fn gauges(&self) -> Result<Gauges, Error> {
        let standing = self.cluster.standing().await;
        let standing = standing.map_err(|failure| failed(&failure))?;
        Ok(Gauges {
            stored: Some(standing.in_use),
            ..Gauges::default()
        })
    }

    async fn announce(&self) -> Result<(), Error> {
        self.put(self.announcements()).await
    }

    async fn listen(&self) -> Result<Box<dyn RawListener>, Error> {
        let key = self.announcements();
        let watch = |client: Client| {
            let key = key.clone();
            // The character after the slash of what would come below it.
            let end = format!("{key}0");
            async move { client.watch((key, end), 0).await }
        };
        let changes = self.cluster.call(Effect::Read, watch).await;
        let mut changes = changes.map_err(|failure| failed(&failure))?;
        // The first answer says that the server has set up the watch.
        changes.next().await.map_err(|failure| failed(&failure))?;
        Ok(Box::new(Listener(changes)))
    }

    async fn clear(&self) -> Result<(), Error> {
        self.delete_all()
            .await
            .map_err(|failure| failure.error("clear", Effect::Write))
    }

    fn peers(&self) -> &'static [Peer] {
        &peers::ALL
    }

    async fn prepare(&self, _: Peer, _: u32) -> Result<(), Error> {
        // A process that has ended stays in the queue until its leases are over.
        let queued = Transaction {
            then: vec![Operation::delete_under(format!("{}/", self.lock_name()))],
            ..Transaction::default()
        };
        let deleted = self.cluster.commit(queued, "measure", Effect::Write).await;
        deleted.map(drop)
    }

    async fn place(&self, _: Peer, _: u32) -> Result<Box<dyn RawPlace>, Error> {
        let client = self.cluster.member(self.cluster.current()).await;
        let client = client.map_err(|failure| failed(&failure))?;
        let lock = peers::Lock::new(client, self.lock_name()).await;
        let lock = lock.map_err(|failure| failed(&failure))?;
        Ok(Box::new(lock))
    }
}

impl RawEtcd {
    /// In steps, with two requests for each. Interrupted at any point, it can be called again.
    async fn delete_all(&self) -> Result<(), Failure> {
        let prefix = self.keys.prefix();
        let range = Range {
            key: prefix.to_owned().into_bytes(),
            end: end_of(prefix),
            limit: STEP,
            keys_only: true,
            ..Range::default()
        };
        let mut pages = Pages::of(&self.cluster, range);
        while let Some(page) = pages.next().await? {
            let (Some(first), Some(last)) = (page.entries.first(), page.entries.last()) else {
                return Ok(());
            };
            let pace = Pace::begin();
            let deletion = Transaction {
                then: vec![Operation::DeleteRange(first.key.clone(), after(&last.key))],
                ..Transaction::default()
            };
            self.cluster.transact(&deletion, Effect::Write).await?;
            pace.keep(page.entries.len()).await;
        }
        Ok(())
    }
}

struct Listener(Changes);

#[async_trait]
impl RawListener for Listener {
    async fn heard(&mut self) -> Result<(), Error> {
        loop {
            let batch = self.0.next().await.map_err(|failure| failed(&failure))?;
            if !batch.changes.is_empty() {
                return Ok(());
            }
        }
    }
}

fn failed(failure: &impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, "measure", failure.to_string())
}
