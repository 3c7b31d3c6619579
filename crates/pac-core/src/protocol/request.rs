//! What is asked for with a run.

use std::time::Duration;

use crate::name::{Group, PipelineRunKey, Uid};
use crate::state::{RunKind, Terms, Weight};
use crate::value::Priority;

/// A request for a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RunRequest {
    /// The run that needs the slot.
    pub run: PipelineRunKey,
    /// Tells it apart from other runs of the same name.
    pub uid: Uid,
    /// Whether the run outlives the session that owns it.
    pub kind: RunKind,
    /// Its urgency. Admitting a waiting run again with another priority moves it in the queue.
    pub priority: Priority,
    /// Which live run of its name, with another uid, it ends. Default: any.
    pub replaces: Replaces,
    /// What few runs ask for; see the methods that set it.
    pub(crate) wishes: Option<Box<Wishes>>,
}

/// What few runs ask for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Wishes {
    terms: Terms,
    supersedes: Supersedes,
    skip_if: Option<SkipIf>,
}

impl Wishes {
    const NONE: Self = Self {
        terms: Terms::NONE,
        supersedes: Supersedes::None,
        skip_if: None,
    };
}

/// What a request does to the earlier runs of its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[non_exhaustive]
pub enum Supersedes {
    /// Nothing: they wait and run like any other.
    #[default]
    None,
    /// Those that wait end as [superseded](crate::state::RunOutcome::Superseded) with the same commit,
    /// and the request gets the place of the first of them. Where they are too many for that, most of them
    /// end with commits right before it.
    Waiting,
    /// Likewise, and those that run are asked to end.
    All,
}

/// When a request is not to be queued, but dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum SkipIf {
    /// Others wait already.
    Waiting,
    /// Others wait or run already.
    Running,
}

impl SkipIf {
    /// Whether a request is dropped where so many others wait and run.
    pub(super) fn applies(self, queued: u32, started: u32) -> bool {
        queued > 0 || (self == Self::Running && started > 0)
    }
}

/// Which live run of its name, with another uid, a request ends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Replaces {
    /// Any: of two runs of one name, the one that asks is the one that is there.
    #[default]
    Any,
    /// The run with this uid, or none. Where another one is live by the time at which the request
    /// reaches the store, that one is the newer, and the request is
    /// [refused](super::Admitted::HeldElsewhere).
    Only(Option<Uid>),
}

impl Replaces {
    /// Whether the run with this uid is ended.
    pub(super) fn includes(&self, uid: &Uid) -> bool {
        match self {
            Self::Any => true,
            Self::Only(one) => one.as_ref() == Some(uid),
        }
    }
}

impl RunRequest {
    /// A request for a run that the cluster executes, of default priority.
    #[must_use]
    pub fn durable(run: PipelineRunKey, uid: Uid) -> Self {
        Self {
            run,
            uid,
            kind: RunKind::Durable,
            priority: Priority::default(),
            replaces: Replaces::default(),
            wishes: None,
        }
    }

    /// A request for a run that the asking process executes itself, of default priority.
    #[must_use]
    pub fn ephemeral(run: PipelineRunKey, uid: Uid) -> Self {
        Self {
            kind: RunKind::Ephemeral,
            ..Self::durable(run, uid)
        }
    }

    /// The same request with another priority.
    #[must_use]
    pub fn with_priority(self, priority: Priority) -> Self {
        Self { priority, ..self }
    }

    /// The same request, which ends no other live run of its name than `known`: the one that its
    /// asker knows to be there, and older.
    #[must_use]
    pub fn replacing(self, known: Option<Uid>) -> Self {
        let replaces = Replaces::Only(known);
        Self { replaces, ..self }
    }

    /// The same request, for a run that takes so many slots at once: all in one step, or none. The
    /// order stays strict: it is waited for, not overtaken.
    #[must_use]
    pub fn with_weight(self, weight: Weight) -> Self {
        self.wishing(|wishes| wishes.terms.weight = weight)
    }

    /// The same request, for a run of this group.
    #[must_use]
    pub fn in_group(self, group: Group) -> Self {
        self.wishing(|wishes| wishes.terms.group = Some(group))
    }

    /// The same request, which supersedes the earlier runs of its group. Without a group, none. Asked
    /// again for a run that waits or runs, it does nothing to others.
    #[must_use]
    pub fn superseding(self, supersedes: Supersedes) -> Self {
        self.wishing(|wishes| wishes.supersedes = supersedes)
    }

    /// The same request, which is dropped instead where that is so: judged with the commit.
    #[must_use]
    pub fn skip_if(self, condition: SkipIf) -> Self {
        self.wishing(|wishes| wishes.skip_if = Some(condition))
    }

    /// The same request, for a run that may wait so long, in whole milliseconds by the store's clock
    /// (on a store that tells no time, by those of its [clients](crate::driver::Driver::clock));
    /// then it ends as [timed out](crate::state::RunOutcome::TimedOut), whether its asker lives or not.
    #[must_use]
    pub fn with_max_wait(self, longest: Duration) -> Self {
        self.wishing(|wishes| wishes.terms.max_wait = Some(whole_millis(longest)))
    }

    /// The same request, for a run that may hold its slots so long, in whole milliseconds by the
    /// store's clock; then it is asked to end, and [`HOLD_GRACE`](super::HOLD_GRACE) later it ends as
    /// [timed out](crate::state::RunOutcome::TimedOut).
    #[must_use]
    pub fn with_max_hold(self, longest: Duration) -> Self {
        self.wishing(|wishes| wishes.terms.max_hold = Some(whole_millis(longest)))
    }

    /// The same request, for a run that is to be told which slots it has: the smallest numbers that
    /// no other run has which was told its own. One that takes more than 256 slots is told none.
    #[must_use]
    pub fn numbered(self) -> Self {
        self.wishing(|wishes| wishes.terms.numbered = true)
    }

    /// A request that asks for nothing after that is the same as one that never did.
    fn wishing(mut self, set: impl FnOnce(&mut Wishes)) -> Self {
        let mut wishes = self.wishes.take().map_or(Wishes::NONE, |known| *known);
        set(&mut wishes);
        self.wishes = (wishes != Wishes::NONE).then(|| Box::new(wishes));
        self
    }

    /// What was asked for beside a slot, as the run's record holds it.
    #[must_use]
    pub fn terms(&self) -> Option<&Terms> {
        self.wishes.as_ref().map(|wishes| &wishes.terms)
    }

    /// The request for a run whose record holds these terms.
    #[must_use]
    pub(crate) fn with_terms(self, terms: &Terms) -> Self {
        self.wishing(|wishes| wishes.terms = terms.as_asked())
    }

    /// How many slots are asked for.
    #[must_use]
    pub fn weight(&self) -> Weight {
        self.terms().map_or(Weight::ONE, |terms| terms.weight)
    }

    /// The group, and what becomes of the earlier runs in it; `None` where nothing does.
    pub(super) fn supersedes(&self) -> Option<(&Group, Supersedes)> {
        let wishes = self.wishes.as_ref()?;
        let group = wishes.terms.group.as_ref()?;
        (wishes.supersedes != Supersedes::None).then_some((group, wishes.supersedes))
    }

    pub(super) fn skips_if(&self) -> Option<SkipIf> {
        self.wishes.as_ref()?.skip_if
    }
}

fn whole_millis(duration: Duration) -> Duration {
    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
