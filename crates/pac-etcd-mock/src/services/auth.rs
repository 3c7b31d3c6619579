//! Users, roles and tokens.

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};

use etcd_client::proto::PbResponseHeader;
use tonic::server::NamedService;
use tower::Service;

use super::dispatch::{Incoming, Outgoing, unary, unknown};
use crate::operation::Operation;
use crate::shared::Shared;
use crate::world::World;

/// The service `etcdserverpb.Auth`.
#[derive(Debug, Clone)]
pub(super) struct Auth(pub(super) Arc<Shared>);

/// `etcdserverpb.AuthStatusRequest`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(super) struct StatusRequest {}

/// `etcdserverpb.AuthStatusResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<PbResponseHeader>,
    #[prost(bool, tag = "2")]
    enabled: bool,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

impl NamedService for Auth {
    const NAME: &'static str = "etcdserverpb.Auth";
}

impl Service<Incoming> for Auth {
    type Response = tonic::codegen::http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Outgoing;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Incoming) -> Outgoing {
        let (shared, auth) = (&self.0, Operation::Auth);
        let path = request.uri().path().to_owned();
        match path.trim_start_matches("/etcdserverpb.Auth/") {
            "Authenticate" => {
                let operation = Operation::Authenticate;
                unary(shared, operation, request, World::authenticate)
            }
            "AuthEnable" => unary(shared, auth, request, World::auth_enable),
            "AuthDisable" => unary(shared, auth, request, World::auth_disable),
            "AuthStatus" => unary(shared, auth, request, |world, call, _: StatusRequest| {
                let (header, enabled, auth_revision) = world.auth_status(call)?;
                Ok(StatusResponse {
                    header,
                    enabled,
                    auth_revision,
                })
            }),
            "UserAdd" => unary(shared, auth, request, World::user_add),
            "UserGet" => unary(shared, auth, request, World::user_get),
            "UserList" => unary(shared, auth, request, World::user_list),
            "UserDelete" => unary(shared, auth, request, World::user_delete),
            "UserChangePassword" => unary(shared, auth, request, World::user_change_password),
            "UserGrantRole" => unary(shared, auth, request, World::user_grant_role),
            "UserRevokeRole" => unary(shared, auth, request, World::user_revoke_role),
            "RoleAdd" => unary(shared, auth, request, World::role_add),
            "RoleGet" => unary(shared, auth, request, World::role_get),
            "RoleList" => unary(shared, auth, request, World::role_list),
            "RoleDelete" => unary(shared, auth, request, World::role_delete),
            "RoleGrantPermission" => unary(shared, auth, request, World::role_grant_permission),
            "RoleRevokePermission" => unary(shared, auth, request, World::role_revoke_permission),
            _ => unknown(&path, Self::NAME),
        }
    }
}
