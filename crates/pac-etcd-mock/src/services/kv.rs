//! Keys and their values.

use std::sync::Arc;

use etcd_client::proto::{
    PbCompactionRequest, PbCompactionResponse, PbDeleteRequest, PbDeleteResponse, PbKvService,
    PbPutRequest, PbPutResponse, PbRangeRequest, PbRangeResponse, PbRangeStreamResponse,
    PbTxnRequest, PbTxnResponse,
};
use futures_util::stream::Empty;
use tonic::{Request, Response, Status, async_trait};

use crate::operation::Operation;
use crate::shared::Shared;

/// The service `etcdserverpb.KV`.
#[derive(Debug)]
pub(super) struct Kv(pub(super) Arc<Shared>);

#[async_trait]
impl PbKvService for Kv {
    type RangeStreamStream = Empty<Result<PbRangeStreamResponse, Status>>;

    async fn range(
        &self,
        request: Request<PbRangeRequest>,
    ) -> Result<Response<PbRangeResponse>, Status> {
        let serializable = request.get_ref().serializable;
        let operation = Operation::Range;
        self.0
            .serve(operation, !serializable, request, |world, call, asked| {
                world.range(call, &asked)
            })
            .await
    }

    async fn put(&self, request: Request<PbPutRequest>) -> Result<Response<PbPutResponse>, Status> {
        self.0
            .serve(Operation::Put, true, request, |world, call, asked| {
                world.put(call, asked)
            })
            .await
    }

    async fn delete_range(
        &self,
        request: Request<PbDeleteRequest>,
    ) -> Result<Response<PbDeleteResponse>, Status> {
        self.0
            .serve(
                Operation::DeleteRange,
                true,
                request,
                |world, call, asked| world.delete_range(call, &asked),
            )
            .await
    }

    async fn txn(&self, request: Request<PbTxnRequest>) -> Result<Response<PbTxnResponse>, Status> {
        self.0
            .serve(Operation::Txn, true, request, |world, call, asked| {
                world.txn(call, asked)
            })
            .await
    }

    async fn compact(
        &self,
        request: Request<PbCompactionRequest>,
    ) -> Result<Response<PbCompactionResponse>, Status> {
        self.0
            .serve(Operation::Compact, true, request, |world, call, asked| {
                world.compact(call, &asked)
            })
            .await
    }

    async fn range_stream(
        &self,
        _request: Request<PbRangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented(
            "unknown method RangeStream for service etcdserverpb.KV",
        ))
    }
}
