//! The state of the member, and alarms.

use std::sync::Arc;

use etcd_client::proto::{
    PbAlarmRequest, PbAlarmResponse, PbDefragmentRequest, PbDefragmentResponse, PbDowngradeRequest,
    PbDowngradeResponse, PbHashKvRequest, PbHashKvResponse, PbHashRequest, PbHashResponse,
    PbMaintenanceService, PbMoveLeaderRequest, PbMoveLeaderResponse, PbSnapshotRequest,
    PbSnapshotResponse, PbStatusRequest, PbStatusResponse,
};
use futures_util::stream::Empty;
use tonic::{Request, Response, Status, async_trait};

use crate::operation::Operation;
use crate::shared::Shared;

/// The service `etcdserverpb.Maintenance`.
#[derive(Debug)]
pub(super) struct Maintenance(pub(super) Arc<Shared>);

/// What a mock with its data in memory and one member does not do.
fn not_here(method: &str) -> Status {
    Status::unimplemented(format!(
        "{method} is not implemented: this is a mock etcd, which has its data in memory and one member"
    ))
}

#[async_trait]
impl PbMaintenanceService for Maintenance {
    type SnapshotStream = Empty<Result<PbSnapshotResponse, Status>>;

    async fn alarm(
        &self,
        request: Request<PbAlarmRequest>,
    ) -> Result<Response<PbAlarmResponse>, Status> {
        let operation = Operation::Alarm;
        self.0
            .serve(operation, true, request, |world, call, asked| {
                world.alarm(call, &asked)
            })
            .await
    }

    async fn status(
        &self,
        request: Request<PbStatusRequest>,
    ) -> Result<Response<PbStatusResponse>, Status> {
        let operation = Operation::Status;
        self.0
            .serve(operation, false, request, |world, _, _| Ok(world.status()))
            .await
    }

    async fn defragment(
        &self,
        _request: Request<PbDefragmentRequest>,
    ) -> Result<Response<PbDefragmentResponse>, Status> {
        Err(not_here("Defragment"))
    }

    async fn hash(
        &self,
        _request: Request<PbHashRequest>,
    ) -> Result<Response<PbHashResponse>, Status> {
        Err(not_here("Hash"))
    }

    async fn hash_kv(
        &self,
        _request: Request<PbHashKvRequest>,
    ) -> Result<Response<PbHashKvResponse>, Status> {
        Err(not_here("HashKV"))
    }

    async fn snapshot(
        &self,
        _request: Request<PbSnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        Err(not_here("Snapshot"))
    }

    async fn move_leader(
        &self,
        _request: Request<PbMoveLeaderRequest>,
    ) -> Result<Response<PbMoveLeaderResponse>, Status> {
        Err(not_here("MoveLeader"))
    }

    async fn downgrade(
        &self,
        _request: Request<PbDowngradeRequest>,
    ) -> Result<Response<PbDowngradeResponse>, Status> {
        Err(not_here("Downgrade"))
    }
}
