//! What the one member says of itself and of its cluster, and its alarms.

use etcd_client::proto::{
    PbAlarmMember, PbAlarmRequest, PbAlarmResponse, PbMember, PbMemberListResponse,
    PbStatusResponse,
};

use super::refusal::{Answer, NO_SPACE};
use super::{Call, World};

/// What the member says of itself.
#[derive(Debug, Clone)]
pub(crate) struct About {
    /// Of etcd: what its software would be.
    pub(crate) version: String,
    pub(crate) name: String,
    /// Where clients find it.
    pub(crate) client_urls: Vec<String>,
}

/// An alarm of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Alarm {
    member: u64,
    kind: i32,
}

const GET: i32 = 0;
const ACTIVATE: i32 = 1;
const DEACTIVATE: i32 = 2;

const NONE: i32 = 0;
const NOSPACE: i32 = 1;

/// What etcd takes a key to cost beside its bytes and those of its value (`kvOverhead`).
pub(super) const KEY_COST: usize = 256;

/// What etcd takes a lease to cost (`leaseOverhead`).
pub(super) const LEASE_COST: usize = 64;

impl World {
    pub(crate) fn status(&self) -> PbStatusResponse {
        let size = i64::try_from(self.store.size()).unwrap_or(i64::MAX);
        let mut answer = PbStatusResponse {
            version: self.about.version.clone(),
            db_size: size,
            db_size_in_use: size,
            leader: if self.has_leader { self.member_id } else { 0 },
            raft_index: self.index,
            raft_applied_index: self.index,
            raft_term: self.term,
            ..PbStatusResponse::default()
        };
        if !self.has_leader {
            answer.errors.push("etcdserver: no leader".to_owned());
        }
        for alarm in &self.alarms {
            // As Go prints the message.
            let kind = if alarm.kind == NOSPACE {
                "NOSPACE"
            } else {
                "CORRUPT"
            };
            let told = format!("memberID:{} alarm:{kind} ", alarm.member);
            answer.errors.push(told);
        }
        self.fill(&mut answer.header);
        answer
    }

    pub(crate) fn members(&self) -> PbMemberListResponse {
        let member = PbMember {
            id: self.member_id,
            name: self.about.name.clone(),
            peer_ur_ls: vec!["http://localhost:2380".to_owned()],
            client_ur_ls: self.about.client_urls.clone(),
            is_learner: false,
        };
        let mut answer = PbMemberListResponse {
            members: vec![member],
            ..PbMemberListResponse::default()
        };
        self.fill(&mut answer.header);
        // As in etcd: this answer tells no revision.
        if let Some(header) = &mut answer.header {
            header.revision = 0;
        }
        answer
    }

    pub(crate) fn alarm(&mut self, call: &Call, asked: &PbAlarmRequest) -> Answer<PbAlarmResponse> {
        self.identify(call)?;
        self.index += 1;
        let member = asked.member_id;
        let alarm = Alarm {
            member,
            kind: asked.alarm,
        };
        let told: Vec<Alarm> = match asked.action {
            GET => {
                let all = self.alarms.iter().copied();
                all.filter(|a| asked.alarm == NONE || a.kind == asked.alarm)
                    .collect()
            }
            ACTIVATE if asked.alarm != NONE => {
                self.alarms.insert(alarm);
                vec![alarm]
            }
            DEACTIVATE => self.alarms.take(&alarm).into_iter().collect(),
            _ => Vec::new(),
        };
        let told = told.into_iter().map(|alarm| PbAlarmMember {
            member_id: alarm.member,
            alarm: alarm.kind,
        });
        let mut answer = PbAlarmResponse {
            alarms: told.collect(),
            ..PbAlarmResponse::default()
        };
        self.fill(&mut answer.header);
        Ok(answer)
    }

    /// Raises or clears the alarm that lets nothing more be written.
    pub(crate) fn set_no_space(&mut self, raised: bool) {
        let alarm = Alarm {
            member: self.member_id,
            kind: NOSPACE,
        };
        if raised {
            self.alarms.insert(alarm);
        } else {
            self.alarms.remove(&alarm);
        }
    }

    /// Whether something of this cost may still be written. If not, raises the alarm.
    pub(super) fn check_quota(&mut self, cost: usize) -> Answer<()> {
        if self.store.size().saturating_add(cost) < self.limits.quota_bytes {
            return Ok(());
        }
        self.set_no_space(true);
        Err(NO_SPACE)
    }

    /// Whether no member has raised the alarm.
    pub(super) fn check_space(&self) -> Answer<()> {
        let full = self.alarms.iter().any(|alarm| alarm.kind == NOSPACE);
        if full { Err(NO_SPACE) } else { Ok(()) }
    }
}
