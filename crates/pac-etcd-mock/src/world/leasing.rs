//! The requests of leases, and their end.

use std::time::Duration;

use etcd_client::proto::{
    PbLeaseGrantRequest, PbLeaseGrantResponse, PbLeaseKeepAliveResponse, PbLeaseLeasesResponse,
    PbLeaseRevokeResponse, PbLeaseStatus, PbLeaseTimeToLiveRequest, PbLeaseTimeToLiveResponse,
};

use super::members::LEASE_COST;
use super::refusal::Answer;
use super::write::Write;
use super::{Call, World};

impl World {
    pub(crate) fn lease_grant(
        &mut self,
        call: &Call,
        asked: &PbLeaseGrantRequest,
    ) -> Answer<PbLeaseGrantResponse> {
        self.expire(call.now);
        self.check_quota(LEASE_COST)?;
        self.identify(call)?;
        self.check_space()?;
        let mut id = asked.id;
        while id == 0 || asked.id == 0 && self.leases.exists(id) {
            id = self.random.i64(1..);
        }
        let ttl = self.leases.grant(id, asked.ttl, call.now)?;
        self.owed.leases = true;
        let mut answer = PbLeaseGrantResponse {
            id,
            ttl,
            ..PbLeaseGrantResponse::default()
        };
        self.fill(&mut answer.header);
        Ok(answer)
    }

    pub(crate) fn lease_revoke(&mut self, call: &Call, id: i64) -> Answer<PbLeaseRevokeResponse> {
        self.expire(call.now);
        let user = self.identify(call)?;
        self.auth.check_lease(user.as_ref(), id, &self.leases)?;
        self.end_lease(id)?;
        let mut answer = PbLeaseRevokeResponse::default();
        self.fill(&mut answer.header);
        Ok(answer)
    }

    /// Renews a lease. One that is not there is answered with a TTL of 0.
    pub(crate) fn lease_keep_alive(&mut self, now: Duration, id: i64) -> PbLeaseKeepAliveResponse {
        self.expire(now);
        let mut answer = PbLeaseKeepAliveResponse {
            id,
            ttl: self.leases.renew(id, now).unwrap_or(0),
            ..PbLeaseKeepAliveResponse::default()
        };
        self.fill(&mut answer.header);
        answer
    }

    /// How long a lease lasts still: -1 when it is not there.
    pub(crate) fn lease_time_to_live(
        &mut self,
        now: Duration,
        asked: &PbLeaseTimeToLiveRequest,
    ) -> PbLeaseTimeToLiveResponse {
        self.expire(now);
        let (ttl, granted_ttl) = self.leases.ttl(asked.id, now).unwrap_or((-1, 0));
        let mut answer = PbLeaseTimeToLiveResponse {
            id: asked.id,
            ttl,
            granted_ttl,
            ..PbLeaseTimeToLiveResponse::default()
        };
        if asked.keys {
            answer.keys = self.leases.keys(asked.id).cloned().collect();
        }
        self.fill(&mut answer.header);
        answer
    }

    pub(crate) fn lease_leases(&mut self, now: Duration) -> PbLeaseLeasesResponse {
        self.expire(now);
        let leases = self.leases.ids().map(|id| PbLeaseStatus { id });
        let mut answer = PbLeaseLeasesResponse {
            leases: leases.collect(),
            ..PbLeaseLeasesResponse::default()
        };
        self.fill(&mut answer.header);
        answer
    }

    /// Ends the leases whose time is over, each at a revision of its own. Without a leader, none
    /// ends.
    pub(crate) fn expire(&mut self, now: Duration) {
        while self.has_leader
            && let Some((end, id)) = self.leases.next_end()
            && end <= now
        {
            // The lease is there: it was just named.
            let _ = self.end_lease(id);
        }
    }

    /// When [`expire`](Self::expire) has something to do next.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        let next = self.leases.next_end().filter(|_| self.has_leader);
        next.map(|(end, _)| end)
    }

    /// Ends a lease at once, and deletes its keys at one revision.
    pub(crate) fn end_lease(&mut self, id: i64) -> Answer<()> {
        let keys = self.leases.remove(id)?;
        let mut write = Write::new(&mut self.store, &mut self.leases);
        for key in keys {
            write.delete(&key);
        }
        let changes = write.end();
        self.commit(changes);
        Ok(())
    }
}
