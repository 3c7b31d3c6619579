//! The only file that talks to the client library: one member, its requests and its streams.

pub(crate) mod cluster;
pub(crate) mod failure;
mod open;
mod signs;
mod tls;

use etcd_client as etcd;

use self::failure::{Cause, Failure};
pub(crate) use self::open::{SILENCE, Standing};
use crate::keys::end_of;

/// The largest answer that is accepted, in bytes. Requests ask for pages that stay far below.
const MAX_ANSWER: usize = 64 * 1024 * 1024;

/// A key with its value and the revisions of its creation and of its last write.
#[derive(Debug, Clone)]
pub(crate) struct KeyValue {
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
    pub(crate) created: i64,
    pub(crate) modified: i64,
    /// The lease that the key is on; 0: none.
    pub(crate) lease: i64,
}

/// A condition of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Compare {
    /// The key was last written at this revision; 0: it does not exist.
    ModifiedAt(String, i64),
    /// The key exists.
    Exists(String),
    /// The key does not exist.
    Absent(String),
    /// The key exists, and its value comes after this one, byte by byte.
    ValueAfter(String, Vec<u8>),
    /// The key exists, and its value comes before this one.
    ValueBefore(String, Vec<u8>),
    /// The key was created at this revision or before; also true when it does not exist.
    CreatedBy(String, i64),
}

/// Which keys to read, and how much of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Range {
    /// Not always text: a foreign key is passed by its bytes.
    pub(crate) key: Vec<u8>,
    /// Up to this key, exclusive; the key alone when empty.
    pub(crate) end: String,
    /// 0: all.
    pub(crate) limit: usize,
    /// As of this revision; 0: now.
    pub(crate) at: i64,
    /// Only keys written at this revision or later; 0: all. Makes the server look at the whole
    /// range.
    pub(crate) modified_from: i64,
    pub(crate) keys_only: bool,
    /// No keys, only how many there are.
    pub(crate) count_only: bool,
}

/// One step of a transaction.
#[derive(Debug, Clone)]
pub(crate) enum Operation {
    Get(Range),
    Put {
        key: String,
        value: Vec<u8>,
        /// 0: none.
        lease: i64,
    },
    Delete(String),
    /// All keys from the first one up to the end, exclusive.
    DeleteRange(Vec<u8>, Vec<u8>),
    Transaction(Transaction),
}

impl Operation {
    /// Deletes all keys that start with `prefix`, which ends with a slash.
    pub(crate) fn delete_under(prefix: String) -> Self {
        let end = end_of(&prefix).into_bytes();
        Self::DeleteRange(prefix.into_bytes(), end)
    }
}

/// Runs `then` if all conditions of `when` hold, else `otherwise`: all of the steps or none.
#[derive(Debug, Clone, Default)]
pub(crate) struct Transaction {
    pub(crate) when: Vec<Compare>,
    pub(crate) then: Vec<Operation>,
    pub(crate) otherwise: Vec<Operation>,
}

/// The result of a transaction.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The store's revision after the transaction, at which its writes were made. 0 for a nested
    /// one.
    pub(crate) revision: i64,
    pub(crate) succeeded: bool,
    pub(crate) steps: Vec<Step>,
}

/// The result of one step.
#[derive(Debug)]
pub(crate) enum Step {
    Got(Page),
    Written,
    Transaction(Answer),
}

/// One page of a range.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub(crate) revision: i64,
    pub(crate) entries: Vec<KeyValue>,
    /// How many keys the whole range has, those of other pages too.
    pub(crate) count: usize,
    pub(crate) more: bool,
}

/// The client of one member of the cluster. Connects with the first request, and again after the
/// connection is lost.
#[derive(Clone)]
pub(crate) struct Client(etcd::Client);

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    pub(crate) async fn range(&self, range: Range) -> Result<Page, Failure> {
        let mut kv = self.0.kv_client().max_decoding_message_size(MAX_ANSWER);
        let (key, options) = get_options(range);
        kv.get(key, Some(options)).await.map(page).map_err(failed)
    }

    pub(crate) async fn commit(&self, transaction: &Transaction) -> Result<Answer, Failure> {
        let mut kv = self.0.kv_client().max_decoding_message_size(MAX_ANSWER);
        let answered = kv.txn(request(transaction)).await;
        Ok(answer(&answered.map_err(failed)?))
    }

    /// One write by itself.
    #[cfg(feature = "bench")]
    pub(crate) async fn put(&self, key: String, value: Vec<u8>) -> Result<(), Failure> {
        let written = self.0.kv_client().put(key, value, None).await;
        written.map(drop).map_err(failed)
    }

    /// Waits for a lock of etcd's own lock service, as long as the lease lives. Returns the key
    /// that stands for holding it.
    #[cfg(feature = "bench")]
    pub(crate) async fn lock(&self, name: &str, lease: i64) -> Result<Vec<u8>, Failure> {
        let options = etcd::LockOptions::new().with_lease(lease);
        let held = self.0.lock_client().lock(name, Some(options)).await;
        held.map(|held| held.key().to_vec()).map_err(failed)
    }

    /// Gives a lock back, by its key.
    #[cfg(feature = "bench")]
    pub(crate) async fn unlock(&self, key: Vec<u8>) -> Result<(), Failure> {
        let unlocked = self.0.lock_client().unlock(key).await;
        unlocked.map(drop).map_err(failed)
    }

    /// Grants a lease of this many seconds, or more if the server's minimum is higher. Returns its
    /// id and its TTL in seconds.
    pub(crate) async fn grant(&self, seconds: i64) -> Result<(i64, i64), Failure> {
        let granted = self.0.lease_client().grant(seconds, None).await;
        granted.map(|l| (l.id(), l.ttl())).map_err(failed)
    }

    /// The TTL with which a lease was granted, in seconds; `NoLease` when it is over.
    pub(crate) async fn granted_ttl(&self, lease: i64) -> Result<i64, Failure> {
        let told = self.0.lease_client().time_to_live(lease, None).await;
        let told = told.map_err(failed)?;
        if told.ttl() > 0 && told.granted_ttl() > 0 {
            Ok(told.granted_ttl())
        } else {
            Err(no_lease())
        }
    }

    /// How much longer a lease lasts, in seconds; `NoLease` when it is over.
    pub(crate) async fn time_left(&self, lease: i64) -> Result<i64, Failure> {
        let left = self.0.lease_client().time_to_live(lease, None).await;
        match left.map_err(failed)?.ttl() {
            ttl if ttl > 0 => Ok(ttl),
            _ => Err(no_lease()),
        }
    }

    /// Makes the server forget what was overwritten or deleted before a revision. Reads and watches
    /// from before it fail then.
    pub(crate) async fn compact(&self, revision: i64) -> Result<(), Failure> {
        let compacted = self.0.kv_client().compact(revision, None).await;
        compacted.map(drop).map_err(failed)
    }

    /// Ends a lease at once.
    pub(crate) async fn revoke(&self, lease: i64) -> Result<(), Failure> {
        let revoked = self.0.lease_client().revoke(lease).await;
        revoked.map(drop).map_err(failed)
    }

    /// Renews a lease, and opens the stream to go on renewing it. `NoLease` when it is over.
    pub(crate) async fn keep(&self, lease: i64) -> Result<Keeper, Failure> {
        let opened = self.0.lease_client().keep_alive(lease).await;
        let (keeper, answers) = opened.map_err(failed)?;
        Ok(Keeper { keeper, answers })
    }

    /// Follows all keys of a range, up to its end, from a revision on; from now on if that is 0.
    pub(crate) async fn watch(
        &self,
        (start, end): (String, String),
        from: i64,
    ) -> Result<Changes, Failure> {
        let options = etcd::WatchOptions::new()
            .with_range(end)
            .with_progress_notify()
            .with_start_revision(from);
        let mut watch = self.0.watch_client().max_decoding_message_size(MAX_ANSWER);
        let stream = watch.watch(start, Some(options)).await.map_err(failed)?;
        Ok(Changes { stream, from })
    }
}

/// The stream that renews a lease.
pub(crate) struct Keeper {
    keeper: etcd::LeaseKeeper,
    answers: etcd::LeaseKeepAliveStream,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Keeper").field(&self.keeper.id()).finish()
    }
}

impl Keeper {
    /// Renews the lease. The keeper must not be used again after an error, or after this future was
    /// dropped: the late answer would be taken for the answer to the next renewal.
    pub(crate) async fn renew(&mut self) -> Result<(), Failure> {
        self.keeper.keep_alive().await.map_err(failed)?;
        match self.answers.message().await.map_err(failed)? {
            Some(answer) if answer.ttl() > 0 => Ok(()),
            Some(_) => Err(no_lease()),
            None => Err(ended()),
        }
    }
}

/// The stream of changes.
pub(crate) struct Changes {
    stream: etcd::WatchStream,
    from: i64,
}

/// Changes, complete up to a revision.
#[derive(Debug)]
pub(crate) struct Batch {
    /// The stream has told every change up to this revision, and at it.
    pub(crate) revision: i64,
    pub(crate) changes: Vec<Change>,
}

/// One key was written or deleted.
#[derive(Debug)]
pub(crate) struct Change {
    /// At this revision.
    pub(crate) revision: i64,
    pub(crate) key: Vec<u8>,
    /// `None`: deleted.
    pub(crate) value: Option<Vec<u8>>,
}

impl Changes {
    /// Waits for the next changes. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Result<Batch, Failure> {
        let response = self.stream.message().await.map_err(failed)?;
        let response = response.ok_or_else(ended)?;
        if response.compact_revision() > 0 {
            let reason = "the revision to go on from was compacted";
            return Err(Failure::new(Cause::Compacted, reason));
        }
        if response.canceled() {
            return Err(cancelled(response.cancel_reason()));
        }
        let told = |event: &etcd::Event| {
            let kv = event.kv()?;
            let put = event.event_type() == etcd::EventType::Put;
            Some(Change {
                revision: kv.mod_revision(),
                key: kv.key().to_vec(),
                value: put.then(|| kv.value().to_vec()),
            })
        };
        let changes: Vec<_> = response.events().iter().filter_map(told).collect();
        // A member that lags behind may send changes from before the revision that was asked for,
        // and its first answer carries its own, older revision.
        let from = self.from;
        let revision = match changes.last() {
            Some(last) => last.revision,
            None if response.created() => 0,
            None => response.header().map_or(0, etcd::ResponseHeader::revision),
        };
        self.from = from.max(revision.saturating_add(1));
        Ok(Batch {
            revision: self.from - 1,
            changes: changes.into_iter().filter(|c| c.revision >= from).collect(),
        })
    }
}

fn request(transaction: &Transaction) -> etcd::Txn {
    let operations = |operations: &[Operation]| -> Vec<_> {
        let operations = operations.iter().map(operation);
        operations.collect()
    };
    let when: Vec<_> = transaction.when.iter().map(compare).collect();
    etcd::Txn::new()
        .when(when)
        .and_then(operations(&transaction.then))
        .or_else(operations(&transaction.otherwise))
}

fn compare(compare: &Compare) -> etcd::Compare {
    use etcd::CompareOp::{Equal, Greater, Less};
    match compare {
        Compare::ModifiedAt(key, revision) => {
            etcd::Compare::mod_revision(key.as_str(), Equal, *revision)
        }
        Compare::ValueAfter(key, value) => {
            etcd::Compare::value(key.as_str(), Greater, value.as_slice())
        }
        Compare::ValueBefore(key, value) => {
            etcd::Compare::value(key.as_str(), Less, value.as_slice())
        }
        Compare::Exists(key) => etcd::Compare::create_revision(key.as_str(), Greater, 0),
        Compare::Absent(key) => etcd::Compare::create_revision(key.as_str(), Equal, 0),
        Compare::CreatedBy(key, revision) => {
            etcd::Compare::create_revision(key.as_str(), Less, revision.saturating_add(1))
        }
    }
}

fn operation(operation: &Operation) -> etcd::TxnOp {
    match operation {
        Operation::Get(range) => {
            let (key, options) = get_options(range.clone());
            etcd::TxnOp::get(key, Some(options))
        }
        Operation::Put { key, value, lease } => {
            let options = etcd::PutOptions::new().with_lease(*lease);
            etcd::TxnOp::put(key.as_str(), value.as_slice(), Some(options))
        }
        Operation::Delete(key) => etcd::TxnOp::delete(key.as_str(), None),
        Operation::DeleteRange(start, end) => {
            let options = etcd::DeleteOptions::new().with_range(end.as_slice());
            etcd::TxnOp::delete(start.as_slice(), Some(options))
        }
        Operation::Transaction(nested) => etcd::TxnOp::txn(request(nested)),
    }
}

fn get_options(range: Range) -> (Vec<u8>, etcd::GetOptions) {
    let limit = i64::try_from(range.limit).unwrap_or(i64::MAX);
    let mut options = etcd::GetOptions::new()
        .with_limit(limit)
        .with_revision(range.at)
        .with_min_mod_revision(range.modified_from);
    if !range.end.is_empty() {
        options = options.with_range(range.end);
    }
    if range.keys_only {
        options = options.with_keys_only();
    }
    if range.count_only {
        options = options.with_count_only();
    }
    (range.key, options)
}

fn answer(answered: &etcd::TxnResponse) -> Answer {
    let steps = answered.op_responses().into_iter().map(|step| match step {
        etcd::TxnOpResponse::Get(got) => Step::Got(page(got)),
        etcd::TxnOpResponse::Put(_) | etcd::TxnOpResponse::Delete(_) => Step::Written,
        etcd::TxnOpResponse::Txn(nested) => Step::Transaction(answer(&nested)),
    });
    Answer {
        revision: answered.header().map_or(0, etcd::ResponseHeader::revision),
        succeeded: answered.succeeded(),
        steps: steps.collect(),
    }
}

fn page(mut got: etcd::GetResponse) -> Page {
    let entries = got.take_kvs().into_iter().map(|kv| {
        let (created, modified) = (kv.create_revision(), kv.mod_revision());
        let lease = kv.lease();
        let (key, value) = kv.into_key_value();
        KeyValue {
            key,
            value,
            created,
            modified,
            lease,
        }
    });
    Page {
        entries: entries.collect(),
        revision: got.header().map_or(0, etcd::ResponseHeader::revision),
        count: usize::try_from(got.count()).unwrap_or(0),
        more: got.more(),
    }
}

/// What an error of the library means.
fn failed(error: etcd::Error) -> Failure {
    match error {
        etcd::Error::GRpcStatus(status) => {
            let source = std::error::Error::source(&status);
            Failure::of_status(status.code(), status.message(), source)
        }
        etcd::Error::LeaseKeepAliveError(reason) if reason.contains("not found") => no_lease(),
        // The TLS settings are unusable, as with a file that holds no certificate: no request was
        // sent.
        etcd::Error::TransportError(error) => {
            let source: &dyn std::error::Error = &error;
            let source = source.source().map(ToString::to_string);
            let detail = source.unwrap_or_else(|| error.to_string());
            Failure::new(Cause::Tls(tls::Problem::Files), detail)
        }
        etcd::Error::InvalidArgs(reason) => Failure::new(Cause::Other, reason),
        etcd::Error::InvalidUri(error) => Failure::new(Cause::Unreachable, error.to_string()),
        other => Failure::new(Cause::Unanswered, other.to_string()),
    }
}

fn no_lease() -> Failure {
    Failure::new(Cause::NoLease, "the lease is over")
}

fn ended() -> Failure {
    Failure::new(Cause::Unanswered, "the stream ended")
}

/// The failure of a watch that the server ended. etcd gives the reason as text alone.
fn cancelled(reason: &str) -> Failure {
    let cause = if reason.contains("permission denied") {
        Cause::Denied
    } else if reason.contains("auth token") || reason.contains("auth store is old") {
        Cause::Token
    } else {
        Cause::Unanswered
    };
    Failure::new(cause, format!("the server ended the stream: {reason}"))
}
