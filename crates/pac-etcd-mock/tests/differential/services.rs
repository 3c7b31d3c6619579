//! Locks and elections, which are services of their own, and leases that end by themselves.

use std::io::Write;

use etcd_client::{
    CampaignResponse, Client, Error, EventType, LockOptions, ProclaimOptions, PutOptions,
    ResignOptions, WatchOptions,
};

use super::servers::Kind;

/// The shortest lease that etcd grants, in seconds.
const SHORTEST: i64 = 2;

/// Does the same on both; compares the answers.
pub(crate) fn compare(server: Kind) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let [etcd, mock] = runtime.block_on(async {
        let servers = [server.start().await, Kind::Mock.start().await];
        let [etcd, mock] = servers
            .each_ref()
            .map(|server| transcript(&server.endpoint));
        let (etcd, mock) = tokio::join!(etcd, mock);
        [etcd, mock]
    });
    for (etcd, mock) in etcd.iter().zip(&mock) {
        assert_eq!(etcd, mock);
    }
    assert_eq!(etcd.len(), mock.len());
    let line = format!(
        "{} steps of locks, elections and expiry agree\n",
        etcd.len()
    );
    std::io::stdout().write_all(line.as_bytes()).unwrap();
}

async fn transcript(endpoint: &str) -> Vec<String> {
    let client = Client::connect([endpoint], None).await.unwrap();
    let mut lines = Vec::new();
    locks(&client, &mut lines).await;
    elections(&client, &mut lines).await;
    expiry(&client, &mut lines).await;
    lines
}

async fn locks(client: &Client, lines: &mut Vec<String>) {
    let mut locks = client.lock_client();
    let lease = grant(client, 60).await;
    let id = format!("{lease:x}");
    let options = LockOptions::new().with_lease(lease);
    let held = locks.lock("name", Some(options.clone())).await.unwrap();
    let key = String::from_utf8(held.key().to_vec()).unwrap();
    lines.push(format!(
        "lock {} {:?}",
        key.replace(&id, "ID"),
        revision(held.header())
    ));
    // Whoever has it gets it again.
    let again = locks.lock("name", Some(options)).await;
    lines.push(said(again.map(|again| again.key() == key.as_bytes())));
    // Another waits until it is free.
    let second = grant(client, 60).await;
    let mut others = client.lock_client();
    let waiting = tokio::spawn(async move {
        let options = LockOptions::new().with_lease(second);
        others.lock("name", Some(options)).await
    });
    let mut kv = client.kv_client();
    let all = || etcd_client::GetOptions::new().with_prefix();
    while kv.get("name", Some(all())).await.unwrap().count() < 2 {
        tokio::task::yield_now().await;
    }
    lines.push(said(
        locks
            .unlock(key.clone())
            .await
            .map(|done| revision(done.header())),
    ));
    let waited = waiting.await.unwrap().unwrap();
    lines.push(format!("waited {:?}", revision(waited.header())));
    lines.push(said(
        locks.unlock(key).await.map(|done| revision(done.header())),
    ));
    lines.push(said(
        locks
            .unlock(waited.key())
            .await
            .map(|done| revision(done.header())),
    ));
    let unknown = LockOptions::new().with_lease(77);
    lines.push(said(locks.lock("name", Some(unknown)).await.map(drop)));
}

async fn elections(client: &Client, lines: &mut Vec<String>) {
    let mut elections = client.election_client();
    lines.push(said(elections.leader("race").await.map(drop)));
    let lease = grant(client, 60).await;
    let won: CampaignResponse = elections.campaign("race", "first", lease).await.unwrap();
    let leader = won.leader().unwrap().clone();
    let key = leader
        .key_str()
        .unwrap()
        .replace(&format!("{lease:x}"), "ID");
    let (name, created) = (leader.name_str().unwrap(), leader.rev());
    let is_its = leader.lease() == lease;
    lines.push(format!(
        "campaign {name} {key} {created} {is_its} {:?}",
        revision(won.header())
    ));
    let mut observed = elections.observe("race").await.unwrap();
    let mut look = async || {
        let answer = observed.message().await.unwrap().unwrap();
        let kv = answer.kv().unwrap();
        format!(
            "observed {:?} {} {}",
            kv.value(),
            kv.create_revision(),
            kv.mod_revision()
        )
    };
    lines.push(look().await);
    let options = ProclaimOptions::new().with_leader(leader.clone());
    let proclaimed = elections.proclaim("second", Some(options.clone())).await;
    lines.push(said(proclaimed.map(|done| revision(done.header()))));
    lines.push(look().await);
    let asked = elections.leader("race").await;
    lines.push(said(
        asked.map(|asked| asked.kv().map(|kv| kv.value().to_vec())),
    ));
    let resigned = elections
        .resign(Some(ResignOptions::new().with_leader(leader)))
        .await;
    lines.push(said(resigned.map(|done| revision(done.header()))));
    let late = elections.proclaim("third", Some(options)).await;
    lines.push(said(late.map(drop)));
    lines.push(said(elections.leader("race").await.map(drop)));
}

async fn expiry(client: &Client, lines: &mut Vec<String>) {
    let lease = grant(client, SHORTEST).await;
    let options = WatchOptions::new().with_prefix();
    let mut watch = client
        .watch_client()
        .watch("mortal/", Some(options))
        .await
        .unwrap();
    let mut kv = client.kv_client();
    for key in ["mortal/b", "mortal/a", "mortal/c"] {
        let options = PutOptions::new().with_lease(lease);
        kv.put(key, "", Some(options)).await.unwrap();
    }
    let mut ended = 0;
    while ended < 3 {
        let answer = watch.message().await.unwrap().unwrap();
        for event in answer.events() {
            let (kind, kv) = (event.event_type(), event.kv().unwrap());
            ended += usize::from(kind == EventType::Delete);
            lines.push(format!("{kind:?} {:?} {}", kv.key_str(), kv.mod_revision()));
        }
    }
    let asked = client
        .lease_client()
        .time_to_live(lease, None)
        .await
        .unwrap();
    lines.push(format!("{} {}", asked.ttl(), asked.granted_ttl()));
}

async fn grant(client: &Client, ttl: i64) -> i64 {
    client.lease_client().grant(ttl, None).await.unwrap().id()
}

fn revision(header: Option<&etcd_client::ResponseHeader>) -> Option<i64> {
    header.map(etcd_client::ResponseHeader::revision)
}

fn said<T: std::fmt::Debug>(result: Result<T, Error>) -> String {
    match result {
        Ok(answer) => format!("{answer:?}"),
        Err(Error::GRpcStatus(status)) => format!("{:?}: {}", status.code(), status.message()),
        Err(other) => other.to_string(),
    }
}
