//! An etcd in this process, for tests: the same wire protocol, the same errors, the same order of
//! things.
//!
//! ```
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! use pac_etcd_mock::MockEtcd;
//!
//! let etcd = MockEtcd::builder().start().await.unwrap();
//! let mut client = etcd.client().await.unwrap();
//! client.put("key", "value", None).await.unwrap();
//! let got = client.get("key", None).await.unwrap();
//! assert_eq!(got.kvs()[0].value(), b"value");
//! # });
//! ```
//!
//! A client that is not in this process reaches it by TCP:
//!
//! ```
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! # use pac_etcd_mock::MockEtcd;
//! let etcd = MockEtcd::builder().listen(([127, 0, 0, 1], 0).into()).start().await.unwrap();
//! println!("etcdctl --endpoints {} get --prefix ''", etcd.endpoint());
//! # });
//! ```
//!
//! A pure state machine decides: it takes a request, the time and the token of its client, and
//! returns the response. Around it are the services of the protocol, one file each, and what can go
//! wrong with them ([`Faults`]). The types of the client library are the only foreign ones in the
//! signatures.
//!
//! # Where it differs from etcd
//!
//! Random sequences of operations are run on it and on etcd 3.4.23 and 3.5.1: answers, errors,
//! revisions and events agree, and so does what `etcdctl` prints. Left on purpose is this:
//!
//! - **A sort order or a target that there is not** is refused with `invalid sort option`, as by
//!   etcd 3.6. Older ones ignore the order, and crash on the target.
//! - **A put that keeps the value or lease of a key that the same transaction has deleted**, by a
//!   deletion up to the end of all keys, is refused with `key not found`. etcd crashes, and crashes
//!   again whenever it starts.
//! - **A watch from a key on** needs the permission for all of these keys, as with etcd 3.5.33 and
//!   3.6.14. Older ones ask for the permission for the first key alone, so that a user sees what it
//!   may not read.
//! - **A watch without a permission** is answered with the id -1 and the reason, as from etcd 3.4.22
//!   and 3.5.6 on. Older ones repeat the id that was asked for, and know one reason alone.
//! - **A password changed to an empty one** is never right, as with etcd 3.5. With 3.4 it is.
//! - **The status of auth** can be asked for, as with etcd 3.5. 3.4 does not know the request.
//! - **A token that is not known** is refused also while auth is disabled, as by both of these. From
//!   etcd 3.4.28 and 3.5.10 on it is ignored then.
//! - **Defragmentation, hashes, snapshots, downgrades and changes of members** are answered with
//!   `Unimplemented`: there are no files, and one member.
//! - **The order of a lease's keys** is that of the keys; etcd has none.
//! - **A request of more than 2 MiB** is refused by the library for gRPC, with its own code and text:
//!   `OutOfRange`, where etcd's library says `ResourceExhausted`. Up to there, etcd's limit of 1.5 MiB
//!   and its error hold for keys; users, roles and leases are not measured.
//! - **Leases** end when their TTL is over; etcd looks for them twice a second.
//! - **Progress**, on request, is told once all watches of the stream have everything up to its
//!   revision, as from etcd 3.5.8 on. Older ones may tell it too early.
//! - **A compaction** takes nothing from a watch that had been told everything before, unless 1,024
//!   responses wait on its stream already: what it is owed is written down first. etcd may cancel a
//!   watch that is slow.
//! - **Nested transactions**, and the leases that puts in a transaction name, need permissions, as in
//!   the latest releases of etcd. Older ones do not look at them.
//! - **A change of users never overtakes a request**, which is checked and done at one point: the error
//!   that etcd has for that is a fault, [`Fault::AuthStoreOld`].
//! - **A login with a token that is not known** is done, as with etcd 3.5. 3.4 refuses it.
//! - **The keys of a lease** are named to whoever asks. The latest releases of etcd name those alone
//!   that the user may read.
//! - **The alarm CORRUPT** can be raised, and stops nothing.
//! - **Names in certificates** of clients are not taken for users.
//! - **Sizes** are those of keys, values and their numbers; etcd tells those of its file. Leases and
//!   watches have none, and no bound: it is a server for tests.

mod builder;
mod connection;
mod counters;
mod faults;
mod operation;
mod server;
mod services;
mod shared;
mod world;

pub use builder::Builder;
pub use faults::{Fault, Faults, Injected};
pub use operation::Operation;
pub use server::MockEtcd;

/// Runs the example of the README as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
