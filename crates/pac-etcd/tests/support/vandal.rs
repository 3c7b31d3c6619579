//! What writes into the store past the driver.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use async_trait::async_trait;
use etcd_client::Client;
use pac_conformance::{Harm, Vandal};
use pac_core::RepositoryKey;

/// Writes what this software never writes.
pub(crate) struct EtcdVandal {
    client: Client,
    prefix: String,
    /// The key and the value that were there before the damage.
    done: Mutex<HashMap<RepositoryKey, KeyValue>>,
}

type KeyValue = (Vec<u8>, Vec<u8>);

impl EtcdVandal {
    /// One that writes under this prefix.
    pub(crate) fn new(client: Client, prefix: &str) -> Self {
        Self {
            client,
            prefix: prefix.to_owned(),
            done: Mutex::default(),
        }
    }
}

impl fmt::Debug for EtcdVandal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("EtcdVandal")
    }
}

#[async_trait]
impl Vandal for EtcdVandal {
    async fn damage(&self, repository: &RepositoryKey, harm: Harm) {
        let mut kv = self.client.kv_client();
        let (place, value) = match harm {
            Harm::CorruptHead => (format!("heads/{repository}"), "[1,"),
            Harm::CorruptEntry => (format!("entries/{repository}/"), "\u{0}"),
            Harm::NewerHead => (format!("heads/{repository}"), "[2]"),
        };
        let key = format!("{}{place}", self.prefix);
        let options = etcd_client::GetOptions::new().with_prefix().with_limit(1);
        let mut found = kv.get(key, Some(options)).await.unwrap().take_kvs();
        let (key, before) = found.pop().unwrap().into_key_value();
        kv.put(key.clone(), value, None).await.unwrap();
        let mut done = self.done.lock().unwrap();
        done.insert(repository.clone(), (key, before));
    }

    async fn mend(&self, repository: &RepositoryKey) {
        let before = self.done.lock().unwrap().remove(repository);
        let (key, value) = before.unwrap();
        self.client.kv_client().put(key, value, None).await.unwrap();
    }
}
