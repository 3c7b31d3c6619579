//! The operations on users and roles.

use etcd_client::proto::*;
use tonic::{Code, Status};

use super::answer::{Normal, words};
use super::operation::{Auth, Caller, Span};
use super::request::View;
use super::side::Side;

/// `etcdserverpb.AuthStatusRequest`, which the client library does not have.
#[derive(Clone, PartialEq, Eq, prost::Message)]
struct StatusRequest {}

/// `etcdserverpb.AuthStatusResponse`.
#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    header: Option<PbResponseHeader>,
    #[prost(bool, tag = "2")]
    enabled: bool,
    #[prost(uint64, tag = "3")]
    auth_revision: u64,
}

impl Normal for StatusResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        self.auth_revision -= view.auth_base;
    }
}

const STATUS: &str = "/etcdserverpb.Auth/AuthStatus";
const DISABLE: &str = "/etcdserverpb.Auth/AuthDisable";
const AUTHENTICATE: &str = "/etcdserverpb.Auth/Authenticate";
const USER_DELETE: &str = "/etcdserverpb.Auth/UserDelete";
const USER_LIST: &str = "/etcdserverpb.Auth/UserList";
const ROLE_DELETE: &str = "/etcdserverpb.Auth/RoleDelete";
const ROLE_LIST: &str = "/etcdserverpb.Auth/RoleList";

impl Side {
    pub(crate) async fn auth(&mut self, auth: &Auth) -> String {
        match *auth {
            Auth::Enable => {
                let request = PbAuthEnableRequest {};
                self.say::<_, PbAuthEnableResponse>("/etcdserverpb.Auth/AuthEnable", request)
                    .await
            }
            Auth::Disable => {
                let request = PbAuthDisableRequest {};
                self.say::<_, PbAuthDisableResponse>(DISABLE, request).await
            }
            Auth::Status if self.view.quirks.no_auth_status => String::new(),
            Auth::Status => {
                self.say::<_, StatusResponse>(STATUS, StatusRequest {})
                    .await
            }
            Auth::Authenticate(user, password) => {
                let caller = self.caller;
                if self.view.quirks.checked_login {
                    self.caller = Caller::Nobody;
                }
                let request = credentials(user, password);
                let answer = self
                    .call::<_, PbAuthenticateResponse>(AUTHENTICATE, request)
                    .await;
                self.caller = caller;
                if let Ok(answer) = &answer {
                    self.tokens.insert(user, answer.token.clone());
                }
                words(&mut self.view, answer)
            }
            Auth::UserAdd(user, password) => self.add_user(user, password, false).await,
            Auth::UserAddBare(user) => self.add_user(user, "", true).await,
            Auth::UserDelete(user) => {
                let request = PbAuthUserDeleteRequest {
                    name: user.to_owned(),
                };
                self.say::<_, PbAuthUserDeleteResponse>(USER_DELETE, request)
                    .await
            }
            Auth::UserPassword(user, mut password) => {
                if password.is_empty() && self.view.quirks.empty_password {
                    password = "p";
                }
                let request = PbAuthUserChangePasswordRequest {
                    name: user.to_owned(),
                    password: password.to_owned(),
                    ..PbAuthUserChangePasswordRequest::default()
                };
                let method = "/etcdserverpb.Auth/UserChangePassword";
                self.say::<_, PbAuthUserChangePasswordResponse>(method, request)
                    .await
            }
            Auth::UserGrant(user, role) => {
                let request = PbAuthUserGrantRoleRequest {
                    user: user.to_owned(),
                    role: role.to_owned(),
                };
                let method = "/etcdserverpb.Auth/UserGrantRole";
                self.say::<_, PbAuthUserGrantRoleResponse>(method, request)
                    .await
            }
            Auth::UserRevoke(user, role) => {
                let request = PbAuthUserRevokeRoleRequest {
                    name: user.to_owned(),
                    role: role.to_owned(),
                };
                let method = "/etcdserverpb.Auth/UserRevokeRole";
                self.say::<_, PbAuthUserRevokeRoleResponse>(method, request)
                    .await
            }
            Auth::UserGet(user) => {
                let request = PbAuthUserGetRequest {
                    name: user.to_owned(),
                };
                self.say::<_, PbAuthUserGetResponse>("/etcdserverpb.Auth/UserGet", request)
                    .await
            }
            Auth::UserList => {
                let request = PbAuthUserListRequest {};
                self.say::<_, PbAuthUserListResponse>(USER_LIST, request)
                    .await
            }
            Auth::RoleAdd(role) => {
                let request = PbAuthRoleAddRequest {
                    name: role.to_owned(),
                };
                self.say::<_, PbAuthRoleAddResponse>("/etcdserverpb.Auth/RoleAdd", request)
                    .await
            }
            Auth::RoleDelete(role) => {
                let request = PbAuthRoleDeleteRequest {
                    role: role.to_owned(),
                };
                self.say::<_, PbAuthRoleDeleteResponse>(ROLE_DELETE, request)
                    .await
            }
            Auth::RoleGrant(role, kind, span) => {
                let request = permission(role, kind, span);
                let method = "/etcdserverpb.Auth/RoleGrantPermission";
                self.say::<_, PbAuthRoleGrantPermissionResponse>(method, request)
                    .await
            }
            Auth::RoleRevoke(role, span) => {
                let (key, range_end) = span.range();
                let role = role.to_owned();
                let request = PbAuthRoleRevokePermissionRequest {
                    role,
                    key,
                    range_end,
                };
                let method = "/etcdserverpb.Auth/RoleRevokePermission";
                self.say::<_, PbAuthRoleRevokePermissionResponse>(method, request)
                    .await
            }
            Auth::RoleGet(role) => {
                let request = PbAuthRoleGetRequest {
                    role: role.to_owned(),
                };
                self.say::<_, PbAuthRoleGetResponse>("/etcdserverpb.Auth/RoleGet", request)
                    .await
            }
            Auth::RoleList => {
                let request = PbAuthRoleListRequest {};
                self.say::<_, PbAuthRoleListResponse>(ROLE_LIST, request)
                    .await
            }
        }
    }

    async fn add_user(&mut self, name: &str, password: &str, no_password: bool) -> String {
        let mut request = PbAuthUserAddRequest {
            name: name.to_owned(),
            password: password.to_owned(),
            ..PbAuthUserAddRequest::default()
        };
        if no_password {
            request.options.get_or_insert_default().no_password = true;
        }
        self.say::<_, PbAuthUserAddResponse>("/etcdserverpb.Auth/UserAdd", request)
            .await
    }

    /// Disables auth, as root if need be, and removes all users and roles.
    pub(crate) async fn remove_users(&mut self) -> Result<(), Status> {
        self.caller = Caller::Nobody;
        let disable = |side: &Self| {
            let (wire, token) = (side.wire.clone(), side.tokens.get("root").cloned());
            async move {
                let request = PbAuthDisableRequest {};
                let call =
                    wire.call::<_, PbAuthDisableResponse>(DISABLE, token.as_deref(), request);
                call.await.map(drop)
            }
        };
        self.tokens.clear();
        if disable(self).await.is_err() {
            for password in ["p", "q", ""] {
                let request = credentials("root", password);
                match self
                    .call::<_, PbAuthenticateResponse>(AUTHENTICATE, request)
                    .await
                {
                    Ok(answer) => {
                        self.tokens.insert("root", answer.token);
                        break;
                    }
                    Err(status) if status.code() == Code::InvalidArgument => {}
                    Err(status) => return Err(status),
                }
            }
            disable(self).await?;
        }
        let request = PbAuthUserListRequest {};
        let users = self
            .call::<_, PbAuthUserListResponse>(USER_LIST, request)
            .await?;
        for name in users.users {
            let request = PbAuthUserDeleteRequest { name };
            self.call::<_, PbAuthUserDeleteResponse>(USER_DELETE, request)
                .await?;
        }
        let request = PbAuthRoleListRequest {};
        let roles = self
            .call::<_, PbAuthRoleListResponse>(ROLE_LIST, request)
            .await?;
        for role in roles.roles {
            let request = PbAuthRoleDeleteRequest { role };
            self.call::<_, PbAuthRoleDeleteResponse>(ROLE_DELETE, request)
                .await?;
        }
        if !self.view.quirks.no_auth_status {
            let status = self.call::<_, StatusResponse>(STATUS, StatusRequest {});
            self.view.auth_base = status.await?.auth_revision;
        }
        Ok(())
    }
}

fn credentials(user: &str, password: &str) -> PbAuthenticateRequest {
    PbAuthenticateRequest {
        name: user.to_owned(),
        password: password.to_owned(),
    }
}

fn permission(role: &str, kind: i32, span: Span) -> PbAuthRoleGrantPermissionRequest {
    let mut request = PbAuthRoleGrantPermissionRequest {
        name: role.to_owned(),
        perm: Some(Default::default()),
    };
    if let Some(permission) = &mut request.perm {
        permission.perm_type = kind;
        (permission.key, permission.range_end) = span.range();
    }
    request
}
