//! Elections.

#![allow(
    clippy::needless_pass_by_value,
    reason = "each is called with the request that a client has sent, which nobody else has"
)]

use std::sync::Arc;

use etcd_client::proto::{
    PbCampaignResponse, PbKeyValue as KeyValue, PbLeaderKey, PbLeaderResponse, PbProclaimResponse,
    PbPutRequest, PbResignResponse, PbResponseHeader as Header, PbTxnOpRequest as Op,
};
use futures_util::Stream;
use futures_util::stream;
use tonic::Status;

use super::dispatch::{Incoming, Methods, Outgoing, streaming, unary, waiting};
use super::line::{
    Follower, Place, at_place, await_turn, deletion, end_of_line, enter, prefix, worded,
};
use crate::operation::Operation;
use crate::shared::{Shared, status};
use crate::world::refusal::{Answer, Code, Refusal};
use crate::world::span::{Span, prefix_end};
use crate::world::{Call, World};

const NO_LEADER: Refusal = Refusal::new(Code::Unknown, "election: no leader");
const NOT_LEADER: Refusal = Refusal::new(Code::Unknown, "election: not leader");
const NO_FIELD: Refusal = Refusal::new(Code::Unknown, "\"leader\" field must be provided");

/// The service `v3electionpb.Election`.
#[derive(Debug, Clone)]
pub(super) struct Election(pub(super) Arc<Shared>);

/// `v3electionpb.CampaignRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct CampaignRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(int64, tag = "2")]
    lease: i64,
    #[prost(bytes = "vec", tag = "3")]
    value: Vec<u8>,
}

/// `v3electionpb.ProclaimRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ProclaimRequest {
    #[prost(message, optional, tag = "1")]
    leader: Option<PbLeaderKey>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `v3electionpb.ResignRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResignRequest {
    #[prost(message, optional, tag = "1")]
    leader: Option<PbLeaderKey>,
}

/// `v3electionpb.LeaderRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct LeaderRequest {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
}

impl Methods for Election {
    const NAME: &'static str = "v3electionpb.Election";

    fn serve(&self, method: &str, request: Incoming) -> Option<Outgoing> {
        let (shared, operation) = (&self.0, Operation::Election);
        match method {
            "Campaign" => waiting(shared, operation, request, campaign),
            "Proclaim" => unary(shared, operation, request, proclaim),
            "Leader" => unary(shared, operation, request, leader),
            "Observe" => streaming(shared, operation, request, observe),
            "Resign" => unary(shared, operation, request, resign),
            _ => None,
        }
    }
}

async fn campaign(
    shared: Arc<Shared>,
    call: Call,
    asked: CampaignRequest,
) -> Answer<PbCampaignResponse> {
    let entered = shared.with_world(|world| {
        let place = enter(world, &call, &asked.name, asked.lease, asked.value.clone())?;
        // It has its place already, and says something else now.
        if place.before.as_ref().is_some_and(|v| *v != asked.value) {
            let put = Op::RequestPut(written(&place.key, asked.value.clone(), place.lease));
            let (is_there, _) = at_place(world, &call, &place.key, place.created, put)?;
            is_there.then_some(()).ok_or(NOT_LEADER)?;
        }
        Ok(place)
    });
    let mut candidate = Candidate {
        shared: &shared,
        call: &call,
        place: entered.map_err(worded)?,
        is_kept: false,
    };
    let created = candidate.place.created;
    let turn = await_turn(&shared, &call, &prefix(&asked.name), created).await;
    candidate.is_kept = true;
    turn.map_err(worded)?;
    Ok(PbCampaignResponse {
        header: candidate.place.header,
        leader: Some(PbLeaderKey {
            name: asked.name,
            key: candidate.place.key.clone(),
            rev: created,
            lease: candidate.place.lease,
        }),
    })
}

/// A request that waits to be elected. Its key goes with it.
struct Candidate<'a> {
    shared: &'a Arc<Shared>,
    call: &'a Call,
    place: Place,
    is_kept: bool,
}

impl Drop for Candidate<'_> {
    fn drop(&mut self) {
        if !self.is_kept {
            let Place { key, created, .. } = &self.place;
            let delete = Op::RequestDeleteRange(deletion(key));
            let call = self.shared.renewed(self.call);
            let left = self
                .shared
                .with_world(|world| at_place(world, &call, key, *created, delete));
            if let Err(refusal) = left {
                tracing::trace!(?refusal, "the key of a request that has gone stays");
            }
        }
    }
}

fn written(key: &[u8], value: Vec<u8>, lease: i64) -> PbPutRequest {
    PbPutRequest {
        key: key.to_vec(),
        value,
        lease,
        ..PbPutRequest::default()
    }
}

fn proclaim(world: &mut World, call: &Call, asked: ProclaimRequest) -> Answer<PbProclaimResponse> {
    let leader = asked.leader.ok_or(NO_FIELD)?;
    let put = Op::RequestPut(written(&leader.key, asked.value, leader.lease));
    let done = at_place(world, call, &leader.key, leader.rev, put);
    let (is_leader, header) = done.map_err(worded)?;
    is_leader.then_some(()).ok_or(NOT_LEADER)?;
    Ok(PbProclaimResponse { header })
}

fn resign(world: &mut World, call: &Call, asked: ResignRequest) -> Answer<PbResignResponse> {
    let leader = asked.leader.ok_or(NO_FIELD)?;
    let delete = Op::RequestDeleteRange(deletion(&leader.key));
    let done = at_place(world, call, &leader.key, leader.rev, delete);
    let (_, header) = done.map_err(worded)?;
    Ok(PbResignResponse { header })
}

fn leader(world: &mut World, call: &Call, asked: LeaderRequest) -> Answer<PbLeaderResponse> {
    let (header, found) = first(world, call, &asked.name).map_err(worded)?;
    let kv = Some(found.ok_or(NO_LEADER)?);
    Ok(PbLeaderResponse { header, kv })
}

fn first(
    world: &mut World,
    call: &Call,
    name: &[u8],
) -> Answer<(Option<Header>, Option<KeyValue>)> {
    let found = world.range(call, &end_of_line(&prefix(name), None))?;
    Ok((found.header, found.kvs.into_iter().next()))
}

/// Tells the leader, each of its values, and each leader after it.
fn observe(
    shared: Arc<Shared>,
    call: Call,
    asked: LeaderRequest,
) -> impl Stream<Item = Result<PbLeaderResponse, Status>> + Send {
    let observer = Observer {
        shared,
        call,
        name: asked.name,
        followed: None,
        has_ended: false,
    };
    stream::unfold(observer, |mut observer| async move {
        if observer.has_ended {
            return None;
        }
        let next = observer
            .next()
            .await
            .map_err(|refusal| status(worded(refusal)));
        observer.has_ended = next.is_err();
        Some((next, observer))
    })
}

struct Observer {
    shared: Arc<Shared>,
    call: Call,
    name: Vec<u8>,
    /// The leader, and the changes of it that were not told yet.
    followed: Option<(Follower, Vec<PbLeaderResponse>)>,
    has_ended: bool,
}

impl Observer {
    async fn next(&mut self) -> Answer<PbLeaderResponse> {
        loop {
            let Some((follower, untold)) = &mut self.followed else {
                let found = self.elected().await?;
                return Ok(found);
            };
            if let Some(told) = untold.pop() {
                return Ok(told);
            }
            let (header, changes) = follower.next().await?;
            let is_over = changes.iter().any(|(is_put, _)| !is_put);
            let puts = changes.into_iter().take_while(|(is_put, _)| *is_put);
            let told = puts.map(|(_, kv)| PbLeaderResponse {
                header,
                kv: Some(kv),
            });
            untold.extend(told);
            untold.reverse();
            if is_over {
                let last = untold.pop();
                self.followed = None;
                if let Some(last) = last {
                    return Ok(last);
                }
            }
        }
    }

    /// Waits for a leader, and follows it from then on.
    async fn elected(&mut self) -> Answer<PbLeaderResponse> {
        loop {
            let call = self.shared.renewed(&self.call);
            let (shared, name) = (&self.shared, &self.name);
            let (header, found) = shared.with_world(|world| first(world, &call, name))?;
            let revision = header.map_or(0, |header| header.revision);
            if let Some(kv) = found {
                let follower = Follower::new(shared, &call, Span::of(&kv.key, &[]), revision + 1);
                self.followed = Some((follower, Vec::new()));
                let kv = Some(kv);
                return Ok(PbLeaderResponse { header, kv });
            }
            let line = prefix(name);
            let span = Span::of(&line, &prefix_end(&line));
            Follower::new(shared, &call, span, revision + 1)
                .next()
                .await?;
        }
    }
}
