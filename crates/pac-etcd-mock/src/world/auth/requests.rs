//! The requests that change users and roles.

#![allow(
    clippy::needless_pass_by_value,
    reason = "each is called with the request that a client has sent, which nobody else has"
)]

use etcd_client::proto::{
    PbAuthDisableRequest, PbAuthDisableResponse, PbAuthEnableRequest, PbAuthEnableResponse,
    PbAuthRoleAddRequest, PbAuthRoleAddResponse, PbAuthRoleDeleteRequest, PbAuthRoleDeleteResponse,
    PbAuthRoleGetRequest, PbAuthRoleGetResponse, PbAuthRoleGrantPermissionRequest,
    PbAuthRoleGrantPermissionResponse, PbAuthRoleListRequest, PbAuthRoleListResponse,
    PbAuthRoleRevokePermissionRequest, PbAuthRoleRevokePermissionResponse, PbAuthUserAddRequest,
    PbAuthUserAddResponse, PbAuthUserChangePasswordRequest, PbAuthUserChangePasswordResponse,
    PbAuthUserDeleteRequest, PbAuthUserDeleteResponse, PbAuthUserGetRequest, PbAuthUserGetResponse,
    PbAuthUserGrantRoleRequest, PbAuthUserGrantRoleResponse, PbAuthUserListRequest,
    PbAuthUserListResponse, PbAuthUserRevokeRoleRequest, PbAuthUserRevokeRoleResponse,
    PbAuthenticateRequest, PbAuthenticateResponse, PbResponseHeader as Header,
};

use super::{Identity, Password, Permission, ROOT, Role, User};
use crate::world::refusal::{
    AUTH_FAILED, AUTH_NOT_ENABLED, Answer, INVALID_AUTH_MANAGEMENT, PASSWORD_OF_NO_PASSWORD_USER,
    PERMISSION_NOT_GIVEN, PERMISSION_NOT_GRANTED, ROLE_EMPTY, ROLE_EXISTS, ROLE_NOT_FOUND,
    ROLE_NOT_GRANTED, ROOT_ROLE_NOT_EXIST, ROOT_USER_NOT_EXIST, USER_EMPTY, USER_EXISTS,
    USER_NOT_FOUND,
};
use crate::world::{Call, World};

impl World {
    pub(crate) fn auth_enable(
        &mut self,
        call: &Call,
        _asked: PbAuthEnableRequest,
    ) -> Answer<PbAuthEnableResponse> {
        self.admit_admin(call)?;
        if !self.auth.is_enabled {
            let root = self.auth.users.get(ROOT).ok_or(ROOT_USER_NOT_EXIST)?;
            root.is_root().then_some(()).ok_or(ROOT_ROLE_NOT_EXIST)?;
            self.auth.is_enabled = true;
        }
        let header = self.header();
        Ok(PbAuthEnableResponse { header })
    }

    pub(crate) fn auth_disable(
        &mut self,
        call: &Call,
        _asked: PbAuthDisableRequest,
    ) -> Answer<PbAuthDisableResponse> {
        self.admit_admin(call)?;
        if self.auth.is_enabled {
            self.auth.is_enabled = false;
            self.auth.tokens.end_all();
            self.auth.changed();
        }
        let header = self.header();
        Ok(PbAuthDisableResponse { header })
    }

    /// Whether users are checked, and the revision of users and roles.
    pub(crate) fn auth_status(&mut self, call: &Call) -> Answer<(Option<Header>, bool, u64)> {
        self.admit_admin(call)?;
        Ok((self.header(), self.auth.is_enabled, self.auth.revision))
    }

    pub(crate) fn authenticate(
        &mut self,
        call: &Call,
        asked: PbAuthenticateRequest,
    ) -> Answer<PbAuthenticateResponse> {
        if !self.auth.is_enabled {
            return Err(AUTH_NOT_ENABLED);
        }
        let user = self.auth.users.get(&asked.name).ok_or(AUTH_FAILED)?;
        match &user.password {
            Password::None => return Err(PASSWORD_OF_NO_PASSWORD_USER),
            Password::Is(password) if *password == asked.password => {}
            Password::Is(_) | Password::Unusable => return Err(AUTH_FAILED),
        }
        self.index += 1;
        let (tokens, random) = (&mut self.auth.tokens, &mut self.random);
        let token = tokens.give(&asked.name, call.now, self.index, random);
        let header = self.header();
        Ok(PbAuthenticateResponse { header, token })
    }

    pub(crate) fn user_add(
        &mut self,
        call: &Call,
        asked: PbAuthUserAddRequest,
    ) -> Answer<PbAuthUserAddResponse> {
        self.admit_admin(call)?;
        if asked.name.is_empty() {
            return Err(USER_EMPTY);
        }
        if self.auth.users.contains_key(&asked.name) {
            return Err(USER_EXISTS);
        }
        let needs_none = asked.options.is_some_and(|options| options.no_password);
        let user = User {
            password: if needs_none {
                Password::None
            } else {
                Password::Is(asked.password)
            },
            ..User::default()
        };
        self.auth.users.insert(asked.name, user);
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthUserAddResponse { header })
    }

    pub(crate) fn user_get(
        &mut self,
        call: &Call,
        asked: PbAuthUserGetRequest,
    ) -> Answer<PbAuthUserGetResponse> {
        let identity = self.enter(call)?;
        let is_own = identity.as_ref() == Some(&Identity(asked.name.clone()));
        if !is_own {
            self.auth.permit_admin(identity.as_ref())?;
        }
        let user = self.auth.users.get(&asked.name).ok_or(USER_NOT_FOUND)?;
        let roles = user.roles.iter().cloned().collect();
        let header = self.header();
        Ok(PbAuthUserGetResponse { header, roles })
    }

    pub(crate) fn user_list(
        &mut self,
        call: &Call,
        _asked: PbAuthUserListRequest,
    ) -> Answer<PbAuthUserListResponse> {
        self.admit_admin(call)?;
        let users = self.auth.users.keys().cloned().collect();
        let header = self.header();
        Ok(PbAuthUserListResponse { header, users })
    }

    pub(crate) fn user_delete(
        &mut self,
        call: &Call,
        asked: PbAuthUserDeleteRequest,
    ) -> Answer<PbAuthUserDeleteResponse> {
        self.admit_admin(call)?;
        if self.auth.is_enabled && asked.name == ROOT {
            return Err(INVALID_AUTH_MANAGEMENT);
        }
        let removed = self.auth.users.remove(&asked.name);
        removed.ok_or(USER_NOT_FOUND)?;
        self.auth.tokens.end_all_of(&asked.name);
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthUserDeleteResponse { header })
    }

    pub(crate) fn user_change_password(
        &mut self,
        call: &Call,
        asked: PbAuthUserChangePasswordRequest,
    ) -> Answer<PbAuthUserChangePasswordResponse> {
        self.admit_admin(call)?;
        let user = self.auth.users.get_mut(&asked.name).ok_or(USER_NOT_FOUND)?;
        if !matches!(user.password, Password::None) {
            user.password = if asked.password.is_empty() {
                Password::Unusable
            } else {
                Password::Is(asked.password)
            };
        }
        self.auth.tokens.end_all_of(&asked.name);
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthUserChangePasswordResponse { header })
    }

    pub(crate) fn user_grant_role(
        &mut self,
        call: &Call,
        asked: PbAuthUserGrantRoleRequest,
    ) -> Answer<PbAuthUserGrantRoleResponse> {
        self.admit_admin(call)?;
        let is_there = asked.role == ROOT || self.auth.roles.contains_key(&asked.role);
        let user = self.auth.users.get_mut(&asked.user).ok_or(USER_NOT_FOUND)?;
        is_there.then_some(()).ok_or(ROLE_NOT_FOUND)?;
        if user.roles.insert(asked.role) {
            self.auth.changed();
        }
        let header = self.header();
        Ok(PbAuthUserGrantRoleResponse { header })
    }

    pub(crate) fn user_revoke_role(
        &mut self,
        call: &Call,
        asked: PbAuthUserRevokeRoleRequest,
    ) -> Answer<PbAuthUserRevokeRoleResponse> {
        self.admit_admin(call)?;
        if self.auth.is_enabled && asked.name == ROOT && asked.role == ROOT {
            return Err(INVALID_AUTH_MANAGEMENT);
        }
        let user = self.auth.users.get_mut(&asked.name).ok_or(USER_NOT_FOUND)?;
        let removed = user.roles.remove(&asked.role);
        removed.then_some(()).ok_or(ROLE_NOT_GRANTED)?;
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthUserRevokeRoleResponse { header })
    }

    pub(crate) fn role_add(
        &mut self,
        call: &Call,
        asked: PbAuthRoleAddRequest,
    ) -> Answer<PbAuthRoleAddResponse> {
        self.admit_admin(call)?;
        if asked.name.is_empty() {
            return Err(ROLE_EMPTY);
        }
        if self.auth.roles.contains_key(&asked.name) {
            return Err(ROLE_EXISTS);
        }
        self.auth.roles.insert(asked.name, Role::new());
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthRoleAddResponse { header })
    }

    pub(crate) fn role_get(
        &mut self,
        call: &Call,
        asked: PbAuthRoleGetRequest,
    ) -> Answer<PbAuthRoleGetResponse> {
        let identity = self.enter(call)?;
        if let Err(refusal) = self.auth.permit_admin(identity.as_ref()) {
            let user = identity.and_then(|Identity(name)| self.auth.users.get(&name));
            let has_it = user.is_some_and(|user| user.roles.contains(&asked.role));
            has_it.then_some(()).ok_or(refusal)?;
        }
        let role = self.auth.roles.get(&asked.role).ok_or(ROLE_NOT_FOUND)?;
        let mut answer = PbAuthRoleGetResponse {
            header: self.header(),
            ..PbAuthRoleGetResponse::default()
        };
        answer.perm.resize_with(role.len(), Default::default);
        for (told, permission) in answer.perm.iter_mut().zip(role) {
            told.perm_type = permission.kind;
            told.key.clone_from(&permission.key);
            told.range_end.clone_from(&permission.range_end);
        }
        Ok(answer)
    }

    pub(crate) fn role_list(
        &mut self,
        call: &Call,
        _asked: PbAuthRoleListRequest,
    ) -> Answer<PbAuthRoleListResponse> {
        self.admit_admin(call)?;
        let roles = self.auth.roles.keys().cloned().collect();
        let header = self.header();
        Ok(PbAuthRoleListResponse { header, roles })
    }

    pub(crate) fn role_delete(
        &mut self,
        call: &Call,
        asked: PbAuthRoleDeleteRequest,
    ) -> Answer<PbAuthRoleDeleteResponse> {
        self.admit_admin(call)?;
        if self.auth.is_enabled && asked.role == ROOT {
            return Err(INVALID_AUTH_MANAGEMENT);
        }
        let removed = self.auth.roles.remove(&asked.role);
        removed.ok_or(ROLE_NOT_FOUND)?;
        for user in self.auth.users.values_mut() {
            user.roles.remove(&asked.role);
        }
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthRoleDeleteResponse { header })
    }

    pub(crate) fn role_grant_permission(
        &mut self,
        call: &Call,
        asked: PbAuthRoleGrantPermissionRequest,
    ) -> Answer<PbAuthRoleGrantPermissionResponse> {
        self.admit_admin(call)?;
        let given = asked.perm.ok_or(PERMISSION_NOT_GIVEN)?;
        let role = self.auth.roles.get_mut(&asked.name).ok_or(ROLE_NOT_FOUND)?;
        let permission = Permission {
            kind: given.perm_type,
            key: given.key,
            range_end: given.range_end,
        };
        // As in etcd: of several with one key, only the first is looked at.
        let at = role.partition_point(|other| other.key < permission.key);
        let same = |other: &&mut Permission| {
            other.key == permission.key && other.range_end == permission.range_end
        };
        match role.get_mut(at).filter(same) {
            Some(other) => other.kind = permission.kind,
            None => {
                let after = role.partition_point(|other| other.key <= permission.key);
                role.insert(after, permission);
            }
        }
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthRoleGrantPermissionResponse { header })
    }

    pub(crate) fn role_revoke_permission(
        &mut self,
        call: &Call,
        asked: PbAuthRoleRevokePermissionRequest,
    ) -> Answer<PbAuthRoleRevokePermissionResponse> {
        self.admit_admin(call)?;
        let role = self.auth.roles.get_mut(&asked.role).ok_or(ROLE_NOT_FOUND)?;
        let before = role.len();
        role.retain(|other| other.key != asked.key || other.range_end != asked.range_end);
        (role.len() < before)
            .then_some(())
            .ok_or(PERMISSION_NOT_GRANTED)?;
        self.auth.changed();
        let header = self.header();
        Ok(PbAuthRoleRevokePermissionResponse { header })
    }

    /// Who asks, of a request that goes through the log of all changes.
    fn enter(&mut self, call: &Call) -> Answer<Option<Identity>> {
        let identity = self.identify(call)?;
        self.index += 1;
        Ok(identity)
    }

    fn admit_admin(&mut self, call: &Call) -> Answer<()> {
        let identity = self.enter(call)?;
        self.auth.permit_admin(identity.as_ref())
    }

    fn header(&self) -> Option<Header> {
        let mut header = None;
        self.fill(&mut header);
        header
    }
}
