//! What must hold, by name.

/// A property of every behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Invariant {
    /// A grant never makes the number of slots exceed the limit in force.
    Limit,
    /// Grants go by priority, then ticket, among those that can be granted; tickets are given
    /// out in the order of commits and kept.
    Order,
    /// A run ends by a command that names it or by a death that allows it, and in no other way.
    NothingLost,
    /// No commit leaves a free slot beside a waiter with a live owner; and when everything has
    /// come to rest, nobody waits and no slot is held.
    NoIdleSlot,
    /// Asking again writes nothing, and no grant is handed out twice, neither to two waiters nor
    /// by two ways.
    Idempotent,
    /// What is answered is what has happened, also after lost answers.
    UnknownIsNotFailed,
    /// Tokens increase with every grant, an old one ends nothing, and nobody whose session
    /// lives believes to hold a slot that is another's.
    Fencing,
    /// Slots are granted to the owner of the waiting run, and to live sessions only.
    LivingOwners,
    /// An answer that needed no commit comes from a state that is no older than its question.
    AnswersAreCurrent,
    /// A round of the commit loop that came to nothing has learnt something.
    ComesToRest,
    /// The store is never asked to write what does not add up.
    AddsUp,
    /// A command whose answer was lost changes what it was planned on, once, and nothing that
    /// came since.
    HeldToItsPlan,
    /// Every asker has one answer, and every waiter one end; none comes to those that have gone.
    AnsweredOnce,
    /// The combiner's right is held while there is something to do, and given back after.
    RightGivenBack,
    /// What an asker or a waiter was given is not taken back for another one of the same
    /// application that has gone.
    Kept,
}

impl Invariant {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::Limit,
        Self::Order,
        Self::NothingLost,
        Self::NoIdleSlot,
        Self::Idempotent,
        Self::UnknownIsNotFailed,
        Self::Fencing,
        Self::LivingOwners,
        Self::AnswersAreCurrent,
        Self::ComesToRest,
        Self::AddsUp,
        Self::HeldToItsPlan,
        Self::AnsweredOnce,
        Self::RightGivenBack,
        Self::Kept,
    ];

    /// What it is called in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Limit => "limit",
            Self::Order => "order",
            Self::NothingLost => "nothing lost",
            Self::NoIdleSlot => "no idle slot",
            Self::Idempotent => "idempotent",
            Self::UnknownIsNotFailed => "unknown is not failed",
            Self::Fencing => "fencing",
            Self::LivingOwners => "living owners",
            Self::AnswersAreCurrent => "answers are current",
            Self::ComesToRest => "comes to rest",
            Self::AddsUp => "adds up",
            Self::HeldToItsPlan => "held to its plan",
            Self::AnsweredOnce => "answered once",
            Self::RightGivenBack => "right given back",
            Self::Kept => "kept",
        }
    }
}

/// Invariants that a behaviour has broken so far. Always empty, but for mutants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Broken(u16);

impl Broken {
    pub(super) fn by(&mut self, invariant: Invariant) {
        self.0 |= 1 << invariant as u8;
    }

    pub(super) fn has(self, invariant: Invariant) -> bool {
        self.0 & (1 << invariant as u8) != 0
    }

    pub(super) fn is_any(self) -> bool {
        self.0 != 0
    }
}
