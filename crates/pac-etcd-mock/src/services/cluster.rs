//! The members: one, for ever.

use std::sync::Arc;

use etcd_client::proto::{
    PbClusterService, PbMemberAddRequest, PbMemberAddResponse, PbMemberListRequest,
    PbMemberListResponse, PbMemberPromoteRequest, PbMemberPromoteResponse, PbMemberRemoveRequest,
    PbMemberRemoveResponse, PbMemberUpdateRequest, PbMemberUpdateResponse,
};
use tonic::{Request, Response, Status, async_trait};

use crate::operation::Operation;
use crate::shared::Shared;

/// The service `etcdserverpb.Cluster`.
#[derive(Debug)]
pub(super) struct Cluster(pub(super) Arc<Shared>);

fn not_here(method: &str) -> Status {
    Status::unimplemented(format!(
        "{method} is not implemented: a mock etcd has one member"
    ))
}

#[async_trait]
impl PbClusterService for Cluster {
    async fn member_list(
        &self,
        request: Request<PbMemberListRequest>,
    ) -> Result<Response<PbMemberListResponse>, Status> {
        let needs_leader = request.get_ref().linearizable;
        self.0
            .serve(Operation::Cluster, needs_leader, request, |world, _, _| {
                Ok(world.members())
            })
            .await
    }

    async fn member_add(
        &self,
        _request: Request<PbMemberAddRequest>,
    ) -> Result<Response<PbMemberAddResponse>, Status> {
        Err(not_here("MemberAdd"))
    }

    async fn member_remove(
        &self,
        _request: Request<PbMemberRemoveRequest>,
    ) -> Result<Response<PbMemberRemoveResponse>, Status> {
        Err(not_here("MemberRemove"))
    }

    async fn member_update(
        &self,
        _request: Request<PbMemberUpdateRequest>,
    ) -> Result<Response<PbMemberUpdateResponse>, Status> {
        Err(not_here("MemberUpdate"))
    }

    async fn member_promote(
        &self,
        _request: Request<PbMemberPromoteRequest>,
    ) -> Result<Response<PbMemberPromoteResponse>, Status> {
        Err(not_here("MemberPromote"))
    }
}
