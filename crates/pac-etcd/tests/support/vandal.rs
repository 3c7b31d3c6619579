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
        let head = format!("heads/{repository}");
        let entries = format!("entries/{repository}/");
        let place = match harm {
            Harm::CorruptHead | Harm::NewerHead | Harm::NewerPolicy => head,
            Harm::CorruptEntry | Harm::NewerTerms => entries,
        };
        let key = format!("{}{place}", self.prefix);
        let options = etcd_client::GetOptions::new().with_prefix().with_limit(1);
        let mut found = kv.get(key, Some(options)).await.unwrap().take_kvs();
        let (key, before) = found.pop().unwrap().into_key_value();
        let value = match harm {
            Harm::CorruptHead => "[1,".to_owned(),
            Harm::CorruptEntry => "\u{0}".to_owned(),
            Harm::NewerHead => "[2]".to_owned(),
            Harm::NewerPolicy => with_newer(&before, &["0", "0", "0", "0", "0", "null"], 11),
            Harm::NewerTerms => with_newer(&before, &["null", "null", "null", "0", "false"], 9),
        };
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

/// A record with an object of a newer version as its field number `at`, after those that were left out
/// because they have their `defaults`.
fn with_newer(record: &[u8], defaults: &[&str], at: usize) -> String {
    let mut fields: Vec<serde_json::Value> = serde_json::from_slice(record).unwrap();
    for default in &defaults[defaults.len() - (at - fields.len())..] {
        fields.push(default.parse().unwrap());
    }
    fields.push(serde_json::json!({"colour": "red"}));
    serde_json::to_string(&fields).unwrap()
}
