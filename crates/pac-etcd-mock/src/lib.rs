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
