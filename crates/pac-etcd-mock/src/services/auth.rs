//! Users, roles and tokens.

use std::sync::Arc;

use etcd_client::proto::PbResponseHeader;

use super::dispatch::{Incoming, Methods, Outgoing, unary};
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

impl Methods for Auth {
    const NAME: &'static str = "etcdserverpb.Auth";

    fn serve(&self, method: &str, request: Incoming) -> Option<Outgoing> {
        let (shared, auth) = (&self.0, Operation::Auth);
        match method {
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
            _ => None,
        }
    }
}
