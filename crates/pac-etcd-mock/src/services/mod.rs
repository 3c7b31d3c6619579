//! The services of etcd, one file each: they hand requests to the world, and its answers back.

mod auth;
mod cluster;
mod dispatch;
mod election;
mod kv;
mod lease;
mod line;
mod lock;
mod maintenance;
mod watch;

use std::sync::Arc;

use etcd_client::proto::{
    PbClusterServer, PbKvServer, PbLeaseServer, PbMaintenanceServer, PbWatchServer,
};
use tonic::service::Routes;

use self::dispatch::ByPath;
use crate::shared::Shared;

/// The largest request that is read, in bytes: etcd's limit for requests, and 512 KiB for what is
/// around them.
const MOST_BYTES: usize = (1536 + 512) * 1024;

/// All services of one world.
pub(crate) fn routes(shared: &Arc<Shared>) -> Routes {
    let shared = || Arc::clone(shared);
    let kv = PbKvServer::new(kv::Kv(shared()));
    let lease = PbLeaseServer::new(lease::Lease(shared()));
    let watch = PbWatchServer::new(watch::Watch(shared()));
    let cluster = PbClusterServer::new(cluster::Cluster(shared()));
    let maintenance = PbMaintenanceServer::new(maintenance::Maintenance(shared()));
    Routes::new(kv.max_decoding_message_size(MOST_BYTES))
        .add_service(lease.max_decoding_message_size(MOST_BYTES))
        .add_service(watch.max_decoding_message_size(MOST_BYTES))
        .add_service(ByPath(auth::Auth(shared())))
        .add_service(cluster.max_decoding_message_size(MOST_BYTES))
        .add_service(ByPath(lock::Lock(shared())))
        .add_service(ByPath(election::Election(shared())))
        .add_service(maintenance.max_decoding_message_size(MOST_BYTES))
}
