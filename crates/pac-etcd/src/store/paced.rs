//! Many keys are deleted in small steps, with pauses between them.
//!
//! Before version 3.6, etcd keeps what it has written since it last committed to its database, which
//! it does every 100 ms, in a buffer for readers (`txReadBuffer` in `mvcc/backend/tx_buffer.go`). The
//! buffer grows with what is written within that time, deleted keys included, and does not shrink as
//! long as there is something in each such time. It is copied with its unused room for reads, and by
//! 3.4 for every transaction too. So one delete of many keys makes the server slow for all of its
//! clients, for good: after one of 100,000 keys a commit took 9 ms of the server's processor time, and
//! 0.6 ms before. `etcdctl defrag` or a restart cures that.
//!
//! Measured with 20,000 keys: in steps of 250 with the pause below, a commit took 0.63 ms afterwards
//! and 0.59 ms before; without the pause 0.86 ms.

use std::time::Duration;

use tokio::time::sleep;

/// Most keys that one request deletes. etcd's buffer has room for 512 from the beginning.
pub(crate) const STEP: usize = 250;

/// How long to wait after a request that deleted so many: not more than two steps fall into one of
/// etcd's intervals.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// The pause after a request that deleted this many keys.
pub(crate) async fn pause_after(deleted: usize) {
    let part = deleted as f64 / STEP as f64;
    sleep(PAUSE.mul_f64(part)).await;
}
