//! Commit loops with a mistake: what the check has to find, to be believed when it finds none.

/// How the commit loop of the model works: as the manager's, or with one mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// As the manager's.
    Faithful,
    /// After a lost answer, repeats the commands as if they had never been sent.
    RetriesBlindly,
    /// Takes a lost answer for a failure, says so, and forgets the commands.
    TakesLostForFailed,
    /// The store writes whatever the revision is.
    CommitsUnconditionally,
    /// Answers a conflict with what it had planned, instead of planning again.
    AnswersConflictsFromThePlan,
    /// Nobody checks that those live to whom a commit grants slots.
    GrantsUnchecked,
    /// Nobody records the deaths of sessions.
    ForgetsTheDead,
    /// A controller that starts again goes on with the session it had.
    ReusesItsSession,
    /// A command that was planned a second time hands nothing over.
    HandsOverOnlyWhenFresh,
    /// Answers what needs no commit from whatever is cached.
    AnswersFromTheCache,
    /// A controller that lost its session does not take its waiting runs along.
    ForgetsItsWaiters,
    /// Plans grants to sessions that it knows to be dead.
    PlansForTheDead,
    /// A waiter whose session died before the answer came stays in the name of nobody.
    ForgetsLateWaiters,
    /// A grant that the cache hears of while nobody asks goes to nobody.
    DropsGrants,
}

impl Variant {
    /// Those with a mistake.
    pub const MUTANTS: [Self; 13] = [
        Self::RetriesBlindly,
        Self::TakesLostForFailed,
        Self::CommitsUnconditionally,
        Self::AnswersConflictsFromThePlan,
        Self::GrantsUnchecked,
        Self::ForgetsTheDead,
        Self::ReusesItsSession,
        Self::HandsOverOnlyWhenFresh,
        Self::AnswersFromTheCache,
        Self::ForgetsItsWaiters,
        Self::PlansForTheDead,
        Self::ForgetsLateWaiters,
        Self::DropsGrants,
    ];
}
