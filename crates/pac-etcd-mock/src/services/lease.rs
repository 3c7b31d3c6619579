//! Leases.

use std::sync::Arc;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveRequest, PbLeaseKeepAliveResponse,
    PbLeaseLeasesRequest, PbLeaseLeasesResponse, PbLeaseRevokeRequest, PbLeaseRevokeResponse,
    PbLeaseService, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tonic::codegen::http::Extensions;
use tonic::{Request, Response, Status, Streaming, async_trait};

use crate::operation::Operation;
use crate::server::HAS_ENDED;
use crate::shared::{Shared, status, wants_leader};
use crate::world::refusal::NO_LEADER;

/// The service `etcdserverpb.Lease`.
#[derive(Debug)]
pub(super) struct Lease(pub(super) Arc<Shared>);

#[async_trait]
impl PbLeaseService for Lease {
    type LeaseKeepAliveStream = BoxStream<'static, Result<PbLeaseKeepAliveResponse, Status>>;

    async fn lease_grant(
        &self,
        request: Request<PbLeaseGrantRequest>,
    ) -> Result<Response<PbLeaseGrantResponse>, Status> {
        let operation = Operation::LeaseGrant;
        self.0
            .serve(operation, true, request, |world, call, asked| {
                world.lease_grant(call, &asked)
            })
            .await
    }

    async fn lease_revoke(
        &self,
        request: Request<PbLeaseRevokeRequest>,
    ) -> Result<Response<PbLeaseRevokeResponse>, Status> {
        let operation = Operation::LeaseRevoke;
        self.0
            .serve(operation, true, request, |world, call, asked| {
                world.lease_revoke(call, asked.id)
            })
            .await
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<PbLeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        self.0.check_leader(request.metadata())?;
        let mut keeping = Keeping {
            shared: Arc::clone(&self.0),
            leader: wants_leader(request.metadata()).then(|| self.0.leader()),
            extensions: request.extensions().clone(),
            renewals: request.into_inner(),
            has_ended: false,
        };
        // As a server in Go does: the head of the answer leaves with the first renewal.
        let first = keeping.next().await;
        let others = stream::unfold(keeping, |mut keeping| async move {
            Some((keeping.next().await?, keeping))
        });
        let answers = stream::iter(first).chain(others);
        Ok(Response::new(answers.boxed()))
    }

    async fn lease_time_to_live(
        &self,
        request: Request<PbLeaseTimeToLiveRequest>,
    ) -> Result<Response<PbLeaseTimeToLiveResponse>, Status> {
        let operation = Operation::LeaseTimeToLive;
        self.0
            .serve(operation, true, request, |world, call, asked| {
                Ok(world.lease_time_to_live(call.now, &asked))
            })
            .await
    }

    async fn lease_leases(
        &self,
        request: Request<PbLeaseLeasesRequest>,
    ) -> Result<Response<PbLeaseLeasesResponse>, Status> {
        let operation = Operation::LeaseLeases;
        self.0
            .serve(operation, false, request, |world, call, _| {
                Ok(world.lease_leases(call.now))
            })
            .await
    }
}

/// A stream of renewals.
struct Keeping {
    shared: Arc<Shared>,
    /// For a client that wants the stream to end when there is no leader.
    leader: Option<watch::Receiver<bool>>,
    extensions: Extensions,
    renewals: Streaming<PbLeaseKeepAliveRequest>,
    has_ended: bool,
}

impl Keeping {
    async fn next(&mut self) -> Option<Result<PbLeaseKeepAliveResponse, Status>> {
        if self.has_ended {
            return None;
        }
        let renewal = tokio::select! {
            renewal = self.renewals.message() => renewal,
            () = without_leader(&mut self.leader) => Err(status(NO_LEADER)),
            () = self.shared.ended() => Err(Status::unavailable(HAS_ENDED)),
        };
        let answer = match renewal {
            Ok(Some(asked)) => self.renew(asked.id).await,
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        self.has_ended = answer.is_err();
        Some(answer)
    }

    async fn renew(&self, id: i64) -> Result<PbLeaseKeepAliveResponse, Status> {
        let operation = Operation::LeaseKeepAlive;
        let shared = &self.shared;
        let under_way = shared.begin_on(operation, true, &self.extensions).await?;
        let now = shared.now();
        let answer = shared.with_world(|world| world.lease_keep_alive(now, id));
        under_way.end().await?;
        Ok(answer)
    }
}

/// Waits until there is no leader. For ever, for a client that does not mind.
pub(super) async fn without_leader(leader: &mut Option<watch::Receiver<bool>>) {
    if let Some(leader) = leader
        && leader.wait_for(|has_leader| !has_leader).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}
