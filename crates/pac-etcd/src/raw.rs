//! Plain writes and watches of etcd, without the protocol, for `pac bench`.

use std::sync::Arc;

use async_trait::async_trait;
use pac_core::effect::Effect;
use pac_core::raw::{RawListener, RawStore};
use pac_core::{Error, ErrorKind};

use crate::EtcdOptions;
use crate::client::cluster::Cluster;
use crate::client::{Changes, Client, Operation, Transaction};
use crate::keys::Keys;

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
        self.put(format!("{}raw/{writer}", self.keys.prefix()))
            .await
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
        let all = Transaction {
            then: vec![Operation::DeletePrefix(self.keys.prefix().to_owned())],
            ..Transaction::default()
        };
        let cleared = self.cluster.commit(all, "clear", Effect::Write).await;
        cleared.map(drop)
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
