//! Everything in words, for those who look at a failure.

use std::fmt;

use super::{
    Ask, Bump, Change, Claim, Place, Repository, Rules, Run, Supersedes, Terms, Which, Wish,
};

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.exists {
            return write!(f, "nothing (counting from {})", self.tokens);
        }
        write!(f, "{}", self.rules)?;
        if let Some(owner) = self.owner {
            write!(f, " ({owner:?})")?;
        }
        if let Some((beneath, owner)) = self.beneath {
            write!(f, " over {beneath} ({owner:?})")?;
        }
        if let Some((since, reason)) = self.paused {
            write!(f, "; paused since {since} because of {reason:?}")?;
        }
        if let Some(version) = self.announced {
            write!(f, "; announced version {version}")?;
        }
        let (tickets, tokens) = (self.tickets, self.tokens);
        write!(f, "; last ticket {tickets}, last token {tokens}")?;
        let mut runs: Vec<_> = self.runs.iter().collect();
        runs.sort_by_key(|run| (run.name, run.uid));
        for run in runs {
            write!(f, "; {run}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.durable { "" } else { " ephemeral" };
        write!(f, "run-{}/{}{kind} {}", self.name, self.uid, self.place)?;
        write!(f, " (priority {}, ticket {}", self.priority, self.ticket)?;
        if let Some(wanted) = self.wanted {
            write!(f, ", wanted priority {wanted}")?;
        }
        write!(f, "{}, queued at {}", self.terms, self.queued)?;
        if let Some(started) = self.started {
            write!(f, ", started at {started}")?;
        }
        if let Some(asked) = self.asked {
            write!(f, ", asked to end at {asked}")?;
        }
        if self.passed > 0 {
            write!(f, ", passed by {}", self.passed)?;
        }
        if !self.slots.is_empty() {
            write!(f, ", slots {:?}", self.slots)?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Waiting { owner: Some(owner) } => write!(f, "waits for session {owner}"),
            Self::Waiting { owner: None } => f.write_str("waits for nobody"),
            Self::Running {
                token,
                session,
                orphaned,
            } => {
                let orphaned = if *orphaned { ", orphaned" } else { "" };
                write!(f, "runs with token {token} of session {session}{orphaned}")
            }
            Self::Over { how, abandoned, .. } => {
                let abandoned = if *abandoned { ", abandoned" } else { "" };
                write!(f, "is over: {how:?}{abandoned}")
            }
        }
    }
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admit(wish) => write!(f, "admit {wish}"),
            Self::Adopt(wish) => write!(f, "adopt {wish}"),
            Self::Release {
                name,
                uid,
                token: Some(token),
                how,
            } => write!(f, "release run-{name}/{uid} with token {token} as {how:?}"),
            Self::Release { name, uid, how, .. } => {
                write!(f, "release run-{name}/{uid} by force as {how:?}")
            }
            Self::Cancel {
                name,
                uid: Some(uid),
                way,
            } => write!(f, "cancel run-{name}/{uid}: {way:?}"),
            Self::Cancel {
                name,
                uid: None,
                way,
            } => write!(f, "cancel run-{name} of any uid: {way:?}"),
            Self::CancelAll { which, way } => write!(f, "cancel {which}: {way:?}"),
            Self::Bump { name, uid, to } => {
                write!(f, "bump run-{name} of uid {uid:?} {to}")
            }
            Self::Pause { reason, only_if } => {
                write!(f, "pause because of {reason:?} if {only_if:?}")
            }
            Self::Resume { only_if } => write!(f, "resume if {only_if:?}"),
            Self::TimeOut => f.write_str("end what has waited or run for too long"),
            Self::Requeue { name, token } => write!(f, "requeue run-{name} with token {token}"),
            Self::Disown {
                name,
                token,
                running,
            } => {
                let what = if *running {
                    "which runs"
                } else {
                    "which waits again"
                };
                write!(f, "disown run-{name} with token {token:?}, {what}")
            }
            Self::Reclaim { name, uid, former } => {
                write!(f, "reclaim run-{name}/{uid} from session {former}")
            }
            Self::Abandon {
                name,
                uid,
                owner,
                ticket,
                token,
            } => write!(
                f,
                "abandon run-{name}/{uid} of ticket {ticket} and token {token:?} in the name of \
                 session {owner}"
            ),
            Self::SetRules { change, claim } => write!(f, "{claim} {change}"),
            Self::Unpin => f.write_str("unpin the rules"),
            Self::Expire { session, lease_too } => {
                let ttl = if *lease_too { "lease" } else { "session" };
                write!(f, "expire session {session} ({ttl} TTL)")
            }
            Self::Promote => f.write_str("promote"),
            Self::Remove => f.write_str("remove the repository"),
        }
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Propose => f.write_str("propose"),
            Self::Set => f.write_str("set"),
            Self::Announce(version) => write!(f, "announce in version {version}"),
            Self::Pin => f.write_str("pin"),
        }
    }
}

impl fmt::Display for Wish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.durable { "durable" } else { "ephemeral" };
        let (name, uid, priority) = (self.name, self.uid, self.priority);
        write!(
            f,
            "run-{name}/{uid} ({kind}, priority {priority}{}",
            self.terms
        )?;
        if self.supersedes != Supersedes::None {
            write!(f, ", superseding {:?}", self.supersedes)?;
        }
        if let Some(skip) = self.skip_if {
            write!(f, ", skipped if {skip:?}")?;
        }
        f.write_str(")")
    }
}

impl fmt::Display for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            0 => f.write_str("no limit")?,
            limit => write!(f, "limit {limit}")?,
        }
        if let Some(most) = self.most_waiting {
            write!(f, ", at most {most} wait")?;
        }
        if self.backfill > 0 {
            write!(f, ", backfill {}", self.backfill)?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(limit) = self.limit {
            write!(f, "limit {limit} ")?;
        }
        if let Some(most) = self.most_waiting {
            write!(f, "max-queued {most:?} ")?;
        }
        if let Some(most) = self.backfill {
            write!(f, "backfill {most}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Terms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weight != 1 {
            write!(f, ", weight {}", self.weight)?;
        }
        if let Some(group) = self.group {
            write!(f, ", group {group}")?;
        }
        if let Some(longest) = self.max_wait {
            write!(f, ", waits at most {longest}")?;
        }
        if let Some(longest) = self.max_hold {
            write!(f, ", runs at most {longest}")?;
        }
        if self.numbered {
            f.write_str(", numbered")?;
        }
        Ok(())
    }
}

impl fmt::Display for Which {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("all")?;
        if let Some(group) = self.group {
            write!(f, " of group {group}")?;
        }
        if let Some(before) = self.before {
            write!(f, " that were queued before {before}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Bump {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::First => f.write_str("to the front"),
            Self::To(priority) => write!(f, "to priority {priority}"),
            Self::Back => f.write_str("back"),
        }
    }
}
