//! Answers in words that are the same on every server that behaves the same.

use std::fmt::Debug;

use etcd_client::proto::*;
use tonic::Status;

use super::request::View;

/// How much less than granted may be left of a lease: sequences take less, by far, and grant more.
const AGE: i64 = 60;

/// A longer value is named by its length.
const LONGEST: usize = 64;

/// The answer, or the refusal by its code and its text.
pub(crate) fn words<A: Normal>(view: &mut View, answer: Result<A, Status>) -> String {
    match answer {
        Ok(mut answer) => {
            answer.normalise(view);
            format!("{answer:?}")
        }
        Err(status) => refusal(&status),
    }
}

pub(crate) fn refusal(status: &Status) -> String {
    format!("{:?}: {}", status.code(), status.message())
}

/// A message from a server, in which what only identifies the server can be made equal.
pub(crate) trait Normal: Debug {
    fn normalise(&mut self, view: &mut View);
}

/// Messages in which only the header differs between servers.
macro_rules! only_headers {
    ($($message:ty),* $(,)?) => {$(
        impl Normal for $message {
            fn normalise(&mut self, view: &mut View) {
                self.header.normalise(view);
            }
        }
    )*};
}

only_headers!(
    PbCompactionResponse,
    PbLeaseRevokeResponse,
    PbAuthEnableResponse,
    PbAuthDisableResponse,
    PbAuthUserAddResponse,
    PbAuthUserDeleteResponse,
    PbAuthUserChangePasswordResponse,
    PbAuthUserGrantRoleResponse,
    PbAuthUserRevokeRoleResponse,
    PbAuthUserGetResponse,
    PbAuthUserListResponse,
    PbAuthRoleAddResponse,
    PbAuthRoleDeleteResponse,
    PbAuthRoleGrantPermissionResponse,
    PbAuthRoleRevokePermissionResponse,
    PbAuthRoleGetResponse,
    PbAuthRoleListResponse,
);

impl<A: Normal> Normal for Option<A> {
    fn normalise(&mut self, view: &mut View) {
        if let Some(inner) = self {
            inner.normalise(view);
        }
    }
}

impl<A: Normal> Normal for Vec<A> {
    fn normalise(&mut self, view: &mut View) {
        self.iter_mut().for_each(|one| one.normalise(view));
    }
}

impl Normal for PbResponseHeader {
    fn normalise(&mut self, view: &mut View) {
        view.now = view.now.max(self.revision);
        view.plain_revision(&mut self.revision);
        // Whether they are there must agree; inside a transaction they are not.
        self.cluster_id = self.cluster_id.min(1);
        self.member_id = self.member_id.min(1);
        self.raft_term = self.raft_term.min(1);
    }
}

impl Normal for PbKeyValue {
    fn normalise(&mut self, view: &mut View) {
        view.plain_revision(&mut self.create_revision);
        view.plain_revision(&mut self.mod_revision);
        view.plain_lease(&mut self.lease);
        if self.value.len() > LONGEST {
            self.value = format!("{} bytes", self.value.len()).into_bytes();
        }
    }
}

impl Normal for PbRangeResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        self.kvs.normalise(view);
    }
}

impl Normal for PbPutResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        self.prev_kv.normalise(view);
    }
}

impl Normal for PbDeleteResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        self.prev_kvs.normalise(view);
    }
}

impl Normal for PbTxnResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        for answer in &mut self.responses {
            match &mut answer.response {
                Some(PbTxnOpResponse::ResponseRange(range)) => range.normalise(view),
                Some(PbTxnOpResponse::ResponsePut(put)) => put.normalise(view),
                Some(PbTxnOpResponse::ResponseDeleteRange(delete)) => delete.normalise(view),
                Some(PbTxnOpResponse::ResponseTxn(txn)) => txn.normalise(view),
                None => {}
            }
        }
    }
}

impl Normal for PbLeaseGrantResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        view.plain_lease(&mut self.id);
    }
}

impl Normal for PbLeaseKeepAliveResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        view.plain_lease(&mut self.id);
    }
}

impl Normal for PbLeaseTimeToLiveResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        view.plain_lease(&mut self.id);
        if (self.granted_ttl - AGE..=self.granted_ttl).contains(&self.ttl) {
            self.ttl = self.granted_ttl;
        }
        // etcd keeps them in no order.
        self.keys.sort();
    }
}

impl Normal for PbLeaseLeasesResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        for lease in &mut self.leases {
            view.plain_lease(&mut lease.id);
        }
    }
}

impl Normal for PbWatchResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        view.plain_revision(&mut self.compact_revision);
        self.events.normalise(view);
    }
}

impl Normal for PbEvent {
    fn normalise(&mut self, view: &mut View) {
        self.kv.normalise(view);
        self.prev_kv.normalise(view);
    }
}

impl Normal for PbAuthenticateResponse {
    fn normalise(&mut self, view: &mut View) {
        self.header.normalise(view);
        if !self.token.is_empty() {
            self.token = "a token".to_owned();
        }
    }
}
