//! The services of etcd, one file each: they hand requests to the world, and its answers back.

mod kv;

use std::sync::Arc;

use etcd_client::proto::PbKvServer;
use tonic::service::Routes;

use crate::shared::Shared;

/// The largest request that is read, in bytes: etcd's limit for requests, and 512 KiB for what is
/// around them.
const MOST_BYTES: usize = (1536 + 512) * 1024;

/// All services of one world.
pub(crate) fn routes(shared: &Arc<Shared>) -> Routes {
    let kv = PbKvServer::new(kv::Kv(Arc::clone(shared)));
    Routes::new(
        kv.max_decoding_message_size(MOST_BYTES)
            .max_encoding_message_size(usize::MAX),
    )
}
