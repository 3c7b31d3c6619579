//! Whether a user may make a request.

use etcd_client::proto::{
    PbDeleteRequest, PbPutRequest, PbRangeRequest, PbTxnOpRequest as Op, PbTxnRequest,
};

use super::{Access, Auth, Identity};
use crate::world::lease::Leases;
use crate::world::refusal::Answer;
use crate::world::span::Span;
use crate::world::{Call, World};

type User<'a> = Option<&'a Identity>;

impl World {
    /// Whether these keys may be watched.
    pub(in crate::world) fn check_watch(&mut self, call: &Call, span: &Span) -> Answer<()> {
        let user = self.identify(call)?;
        self.auth.permit(user.as_ref(), span, Access::Read)
    }
}

impl Auth {
    pub(in crate::world) fn check_range(
        &self,
        user: User<'_>,
        asked: &PbRangeRequest,
    ) -> Answer<()> {
        if !self.is_enabled {
            return Ok(());
        }
        let span = Span::of(&asked.key, &asked.range_end);
        self.permit(user, &span, Access::Read)
    }

    pub(in crate::world) fn check_put(
        &self,
        user: User<'_>,
        asked: &PbPutRequest,
        leases: &Leases,
    ) -> Answer<()> {
        if !self.is_enabled {
            return Ok(());
        }
        let key = Span::of(&asked.key, &[]);
        self.permit(user, &key, Access::Write)?;
        // Whoever attaches a key to a lease could delete the other keys of it.
        self.check_lease(user, asked.lease, leases)?;
        if asked.prev_kv {
            self.permit(user, &key, Access::Read)?;
        }
        Ok(())
    }

    pub(in crate::world) fn check_delete(
        &self,
        user: User<'_>,
        asked: &PbDeleteRequest,
    ) -> Answer<()> {
        if !self.is_enabled {
            return Ok(());
        }
        let span = Span::of(&asked.key, &asked.range_end);
        self.permit(user, &span, Access::Write)?;
        if asked.prev_kv {
            self.permit(user, &span, Access::Read)?;
        }
        Ok(())
    }

    /// All comparisons and both branches, also of nested transactions.
    pub(in crate::world) fn check_txn(
        &self,
        user: User<'_>,
        asked: &PbTxnRequest,
        leases: &Leases,
    ) -> Answer<()> {
        if !self.is_enabled {
            return Ok(());
        }
        for compare in &asked.compare {
            let span = Span::of(&compare.key, &compare.range_end);
            self.permit(user, &span, Access::Read)?;
        }
        for operation in asked.success.iter().chain(&asked.failure) {
            match &operation.request {
                Some(Op::RequestRange(range)) => self.check_range(user, range)?,
                Some(Op::RequestPut(put)) => self.check_put(user, put, leases)?,
                Some(Op::RequestDeleteRange(delete)) => self.check_delete(user, delete)?,
                Some(Op::RequestTxn(nested)) => self.check_txn(user, nested, leases)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Whether all keys of a lease may be written, and so deleted with it.
    pub(in crate::world) fn check_lease(
        &self,
        user: User<'_>,
        lease: i64,
        leases: &Leases,
    ) -> Answer<()> {
        if !self.is_enabled {
            return Ok(());
        }
        for key in leases.keys(lease) {
            self.permit(user, &Span::of(key, &[]), Access::Write)?;
        }
        Ok(())
    }
}
