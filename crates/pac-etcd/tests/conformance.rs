//! The etcd driver against all cases, on the oldest version that is supported and on a newer
//! one.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use etcd_client::Client;
use pac_conformance::{Fixture, Harm, Time, Vandal};
use pac_core::RepositoryKey;

pac_conformance::conformance!(
    crate::etcd,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "etcd has no time of day that anybody could set",
    }
);

pac_conformance::conformance!(
    crate::newest_etcd,
    time = Real,
    except {
        s41_a_wrong_clock_changes_nothing: "etcd has no time of day that anybody could set",
    }
);

async fn etcd(time: Time) -> Fixture {
    fixture("PAC_TEST_ETCD", time).await
}

async fn newest_etcd(time: Time) -> Fixture {
    fixture("PAC_TEST_ETCD_NEWEST", time).await
}

async fn fixture(server: &str, time: Time) -> Fixture {
    let endpoint = support::variable(server);
    let mut options = support::options([&endpoint]);
    options.retention = support::RETENTION;
    let vandal = EtcdVandal {
        client: support::raw(&endpoint).await,
        prefix: options.prefix.clone(),
        done: Mutex::default(),
    };
    Fixture::over(support::driver(&options).await, time)
        // etcd accepts a TTL of 2 s, but a busy machine may renew too late for it.
        .with_session_ttl(Duration::from_secs(3))
        .with_lease_ttl(Duration::from_secs(10))
        // etcd looks for expired leases twice a second, and revokes them through its log.
        .with_expiry_delay(Duration::from_millis(1_500))
        .with_tolerance(Duration::from_secs(1))
        .with_quiet(Duration::from_millis(300))
        .with_scale(0.1)
        .with_vandal(vandal)
}

/// Writes what this software never writes.
struct EtcdVandal {
    client: Client,
    prefix: String,
    /// The key and the value that were there before the damage.
    done: Mutex<HashMap<RepositoryKey, KeyValue>>,
}

type KeyValue = (Vec<u8>, Vec<u8>);

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
            Harm::CorruptHead => (format!("heads/{repository}"), "{\"version\":1,"),
            Harm::CorruptEntry => (format!("entries/{repository}/"), "\u{0}"),
            Harm::NewerHead => (format!("heads/{repository}"), "{\"version\":2}"),
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
