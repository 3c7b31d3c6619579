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
    /// Those with a mistake: what each is called, and what is broken.
    pub const MUTANTS: [(&str, &str, Self); 13] = [
        (
            "blind-retry",
            "after a lost answer, commands are repeated as if they had never been sent",
            Self::RetriesBlindly,
        ),
        (
            "lost-is-failed",
            "a lost answer is taken for a failure, and the commands are forgotten",
            Self::TakesLostForFailed,
        ),
        (
            "commit-without-condition",
            "a commit does not depend on the revision that it was planned on",
            Self::CommitsUnconditionally,
        ),
        (
            "conflict-answered-from-the-plan",
            "a conflict is answered with what had been planned",
            Self::AnswersConflictsFromThePlan,
        ),
        (
            "grants-unchecked",
            "a commit does not ask whether those live to whom it grants slots",
            Self::GrantsUnchecked,
        ),
        (
            "deaths-forgotten",
            "nobody records the deaths of sessions",
            Self::ForgetsTheDead,
        ),
        (
            "session-used-again",
            "a controller that starts again goes on with the session it had",
            Self::ReusesItsSession,
        ),
        (
            "hand-over-only-when-fresh",
            "a command that was planned a second time hands nothing over",
            Self::HandsOverOnlyWhenFresh,
        ),
        (
            "answers-from-the-cache",
            "what needs no commit is answered from whatever is cached",
            Self::AnswersFromTheCache,
        ),
        (
            "waiters-left-behind",
            "a controller that lost its session does not take its waiting runs along",
            Self::ForgetsItsWaiters,
        ),
        (
            "plans-for-the-dead",
            "grants are planned to sessions that are known to be dead",
            Self::PlansForTheDead,
        ),
        (
            "late-waiters-left-behind",
            "a waiter whose session died before the answer came stays in the name of nobody",
            Self::ForgetsLateWaiters,
        ),
        (
            "grants-dropped",
            "a grant that is heard of while nobody asks goes to nobody",
            Self::DropsGrants,
        ),
    ];
}
