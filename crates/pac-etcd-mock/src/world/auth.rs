//! Users, roles, tokens, and what they permit.
//!
//! Source: `server/auth/store.go`, `range_perm_cache.go` and `simple_token.go` of etcd 3.5.

mod check;
mod permissions;
mod requests;
mod tokens;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use self::permissions::Permission;
use self::tokens::Tokens;
use super::refusal::{Answer, INVALID_TOKEN, PERMISSION_DENIED, USER_EMPTY, USER_NOT_FOUND};
use super::span::Span;
use super::{Call, World};

/// The user that may do everything, and the role that lets others do so.
const ROOT: &str = "root";

/// The users and roles of one world.
#[derive(Debug)]
pub(super) struct Auth {
    is_enabled: bool,
    /// Counts the changes to users and roles.
    revision: u64,
    users: BTreeMap<String, User>,
    roles: BTreeMap<String, Role>,
    tokens: Tokens,
}

/// What a role permits, in the order of the keys.
type Role = Vec<Permission>;

#[derive(Debug, Default)]
struct User {
    password: Password,
    roles: BTreeSet<String>,
}

impl User {
    fn is_root(&self) -> bool {
        self.roles.contains(ROOT)
    }
}

#[derive(Default)]
enum Password {
    /// The user can have no token.
    #[default]
    None,
    /// None was given where one is needed: no password is right.
    Unusable,
    Is(String),
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password")
    }
}

/// The user that asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity(String);

/// What is to be done with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Default for Auth {
    fn default() -> Self {
        Self {
            is_enabled: false,
            revision: 1,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            tokens: Tokens::default(),
        }
    }
}

impl World {
    /// Checks users from now on: there is `root` alone.
    pub(crate) fn guard(&mut self, password: String) {
        let root = User {
            password: Password::Is(password),
            roles: BTreeSet::from([ROOT.to_owned()]),
        };
        self.auth.users.insert(ROOT.to_owned(), root);
        self.auth.is_enabled = true;
    }

    /// Which user asks: none without a token. A token that is not known is refused, also while
    /// nothing is checked.
    pub(super) fn identify(&mut self, call: &Call) -> Answer<Option<Identity>> {
        let Some(token) = &call.token else {
            return Ok(None);
        };
        let user = self.auth.tokens.user(token, call.now);
        user.map(|user| Some(Identity(user))).ok_or(INVALID_TOKEN)
    }
}

impl Auth {
    /// Whether a user may do something with these keys.
    fn permit(&self, identity: Option<&Identity>, span: &Span, access: Access) -> Answer<()> {
        if !self.is_enabled {
            return Ok(());
        }
        let Identity(name) = identity.ok_or(USER_EMPTY)?;
        let user = self.users.get(name).ok_or(PERMISSION_DENIED)?;
        if user.is_root() {
            return Ok(());
        }
        let roles = user.roles.iter().filter_map(|role| self.roles.get(role));
        let permitted = permissions::cover(roles.flatten(), span, access);
        permitted.then_some(()).ok_or(PERMISSION_DENIED)
    }

    /// Whether a user may change users and roles.
    fn permit_admin(&self, identity: Option<&Identity>) -> Answer<()> {
        if !self.is_enabled {
            return Ok(());
        }
        let Identity(name) = identity.ok_or(USER_EMPTY)?;
        let user = self.users.get(name).ok_or(USER_NOT_FOUND)?;
        user.is_root().then_some(()).ok_or(PERMISSION_DENIED)
    }

    /// Users or roles have changed.
    fn changed(&mut self) {
        self.revision += 1;
    }
}
