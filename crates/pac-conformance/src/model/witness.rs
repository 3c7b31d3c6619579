//! What has to be reached for a check to mean anything.

use std::sync::atomic::{AtomicU32, Ordering};

/// Something that happened in a behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Witness {
    /// Another controller was faster.
    Conflict,
    /// The answer to a commit that was done had been lost, and the work was found done.
    LostAnswerRecognised,
    /// A commit came to the store after its controller had stopped to wait for it, and was
    /// done.
    LateCommitDone,
    /// The same, and was refused.
    LateCommitRefused,
    /// A commit was refused because a session that it grants a slot to is dead.
    GrantToTheDeadRefused,
    /// The death of a holder handed its slot over.
    ExpiryHandsOver,
    /// A controller took a run over whose owner had died.
    OwnerlessTaken,
    /// All slots were held and every other run waited.
    FullQueue,
    /// More runs than the limit admits held slots.
    AboveTheLimit,
    /// Somebody else's commit gave the slot that a command of ours on its way asked for.
    AnswerCarriesGrant,
    /// An old token changed nothing.
    OldTokenRefused,
    /// A grant was given up in the instant in which it came.
    GivenUpInTime,
    /// A controller lost its session and went on waiting in a new one's name.
    Reclaimed,
    /// Several commands went into one commit.
    Combined,
    /// After a lost answer, a command left alone what had come since.
    HeldToItsPlan,
    /// An asker went away before its answer came.
    AskerGone,
    /// An asker went away with its answer unread.
    AnswerUndelivered,
    /// What an asker that had gone was given was taken back.
    TakenBack,
    /// A waiter was gone as its turn came.
    TurnUndelivered,
    /// A grant that nobody read was given back.
    GivenBack,
    /// A controller that closed gave back what it had.
    ClosedInOrder,
    /// A commit that was not large enough was followed by another one.
    Continued,
    /// A controller that had no session answered what needed no commit.
    AnsweredWithoutSession,
    /// A pause kept a run from a free slot.
    PauseKept,
    /// A newer run of its group took the place of a waiting one.
    Superseded,
    /// A holder was asked to end.
    AskedToEnd,
}

impl Witness {
    /// What it is called in reports.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Conflict => "a conflict",
            Self::LostAnswerRecognised => "a lost answer recognised",
            Self::LateCommitDone => "a late commit done",
            Self::LateCommitRefused => "a late commit refused",
            Self::GrantToTheDeadRefused => "a grant to the dead refused",
            Self::ExpiryHandsOver => "an expiry that hands over",
            Self::OwnerlessTaken => "a run without an owner taken",
            Self::FullQueue => "a full queue",
            Self::AboveTheLimit => "more runs than the limit",
            Self::AnswerCarriesGrant => "an answer that carries a grant",
            Self::OldTokenRefused => "an old token refused",
            Self::GivenUpInTime => "a grant given up as it came",
            Self::Reclaimed => "a waiter taken along",
            Self::Combined => "commands combined",
            Self::HeldToItsPlan => "a command held to its plan",
            Self::AskerGone => "an asker that has gone",
            Self::AnswerUndelivered => "an answer that nobody reads",
            Self::TakenBack => "a run taken back",
            Self::TurnUndelivered => "a turn that nobody hears",
            Self::GivenBack => "a grant given back",
            Self::ClosedInOrder => "an orderly end",
            Self::Continued => "a commit that goes on",
            Self::AnsweredWithoutSession => "an answer without a session",
            Self::PauseKept => "a pause kept to",
            Self::Superseded => "a run superseded",
            Self::AskedToEnd => "a holder asked to end",
        }
    }
}

/// What was reached so far. No part of the states: that would multiply them.
#[derive(Debug, Default)]
pub(super) struct Witnesses(AtomicU32);

impl Witnesses {
    pub(super) fn saw(&self, witness: Witness) {
        let bit = 1 << witness as u8;
        if self.0.load(Ordering::Relaxed) & bit == 0 {
            self.0.fetch_or(bit, Ordering::Relaxed);
        }
    }

    pub(super) fn has(&self, witness: Witness) -> bool {
        self.0.load(Ordering::Relaxed) & (1 << witness as u8) != 0
    }
}
