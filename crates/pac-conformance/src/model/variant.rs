//! Controllers, rules and stores with a mistake: what the check has to find, to be believed when
//! it finds none. The mistakes are made around the machine, which is production's in all of them.

/// How the controllers of the model work: as the manager's, or with one mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Variant {
    /// As the manager's.
    Faithful,
    /// After a lost answer, repeats the commands as if they had never been sent.
    RetriesBlindly,
    /// After a lost answer, recognises what has been done, and holds no command to what it was
    /// planned on.
    RepeatsAsAsked,
    /// Takes a lost answer for a failure, says so, and forgets the commands.
    TakesLostForFailed,
    /// The store writes whatever the revision is.
    CommitsUnconditionally,
    /// Answers a conflict with what it had planned, instead of planning again.
    AnswersConflictsFromThePlan,
    /// Slots are granted without a check that the session is alive.
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
    /// An answer that found nobody is forgotten.
    ForgetsUnheardAnswers,
    /// A turn that found nobody is forgotten.
    ForgetsUnheardTurns,
    /// A grant that nobody reads is kept.
    KeepsUntakenGrants,
    /// A waiter that gives up in the instant of its turn does not give its slot back.
    KeepsGivenUpGrants,
    /// What an asker goes from is taken back, also from others that were answered with it since.
    TakesBackRegardless,
    /// An asker that goes from a run which was there before forgets it, also where it was the last
    /// that had it.
    ForgetsTheLastAsker,
    /// A controller that closes gives back what its application goes on to hold.
    ClosesUnfenced,
    /// A release does not look at the token.
    ReleasesByAnyToken,
    /// A hand-over starts the last of the queue.
    PromotesTheLatest,
    /// A cancelled run's slot is left to the next commit.
    CancelsWithoutHandOver,
    /// A hand-over goes to the session that released.
    GrantsToItself,
    /// A hand-over carries the last token once more.
    RepeatsTokens,
}

/// A variant with a mistake.
#[derive(Debug, Clone, Copy)]
pub struct Mutant {
    /// What it is called.
    pub name: &'static str,
    /// What has the mistake.
    pub level: &'static str,
    /// What is broken.
    pub breaks: &'static str,
    /// The variant.
    pub variant: Variant,
    /// The scenarios that show it.
    pub shown_by: &'static [&'static str],
}

impl Mutant {
    /// All of them.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for (level, mutants) in [
            ("commit loop", &COMMIT_LOOP[..]),
            ("askers", &ASKERS),
            ("rules", &RULES),
        ] {
            let of_level = mutants
                .iter()
                .map(|(name, breaks, variant, shown_by)| Self {
                    name,
                    level,
                    breaks,
                    variant: *variant,
                    shown_by,
                });
            all.extend(of_level);
        }
        all
    }
}

type Row = (&'static str, &'static str, Variant, &'static [&'static str]);

const COMMIT_LOOP: [Row; 14] = [
    (
        "blind-retry",
        "after a lost answer, commands are repeated as if they had never been sent",
        Variant::RetriesBlindly,
        &["a lost answer"],
    ),
    (
        "repeated-as-asked",
        "after a lost answer, commands are not held to what they were planned on",
        Variant::RepeatsAsAsked,
        &["a name used again", "two announcements", "a removal"],
    ),
    (
        "lost-is-failed",
        "a lost answer is taken for a failure, and the commands are forgotten",
        Variant::TakesLostForFailed,
        &["two lost answers"],
    ),
    (
        "commit-without-condition",
        "a commit does not depend on the revision that it was planned on",
        Variant::CommitsUnconditionally,
        &["contention of three"],
    ),
    (
        "conflict-answered-from-the-plan",
        "a conflict is answered with what had been planned",
        Variant::AnswersConflictsFromThePlan,
        &["contention of three"],
    ),
    (
        "grants-unchecked",
        "a commit does not ask whether those live to whom it grants slots",
        Variant::GrantsUnchecked,
        &["a crash"],
    ),
    (
        "deaths-forgotten",
        "nobody records the deaths of sessions",
        Variant::ForgetsTheDead,
        &["a crash"],
    ),
    (
        "session-used-again",
        "a controller that starts again goes on with the session it had",
        Variant::ReusesItsSession,
        &["two crashes"],
    ),
    (
        "hand-over-only-when-fresh",
        "a command that was planned a second time hands nothing over",
        Variant::HandsOverOnlyWhenFresh,
        &["contention of three"],
    ),
    (
        "answers-from-the-cache",
        "what needs no commit is answered from whatever is cached",
        Variant::AnswersFromTheCache,
        &["two crashes"],
    ),
    (
        "waiters-left-behind",
        "a controller that lost its session does not take its waiting runs along",
        Variant::ForgetsItsWaiters,
        &["a lapse without controllers"],
    ),
    (
        "plans-for-the-dead",
        "grants are planned to sessions that are known to be dead",
        Variant::PlansForTheDead,
        &["a crash with ephemeral runs"],
    ),
    (
        "late-waiters-left-behind",
        "a waiter whose session died before the answer came stays in the name of nobody",
        Variant::ForgetsLateWaiters,
        &["a lapse without controllers"],
    ),
    (
        "grants-dropped",
        "a grant that is heard of while nobody asks goes to nobody",
        Variant::DropsGrants,
        &["a crash"],
    ),
];

const ASKERS: [Row; 7] = [
    (
        "unheard-answers-forgotten",
        "an answer that found nobody is forgotten",
        Variant::ForgetsUnheardAnswers,
        &["askers that leave"],
    ),
    (
        "unheard-turns-forgotten",
        "a turn that found nobody is forgotten",
        Variant::ForgetsUnheardTurns,
        &["back to the queue"],
    ),
    (
        "untaken-grants-kept",
        "a grant that nobody reads is kept",
        Variant::KeepsUntakenGrants,
        &["waiters that are detached"],
    ),
    (
        "given-up-grants-kept",
        "a waiter that gives up in the instant of its turn keeps its slot",
        Variant::KeepsGivenUpGrants,
        &["back to the queue"],
    ),
    (
        "taken-back-regardless",
        "what an asker goes from is taken back, also from others that were answered with it since",
        Variant::TakesBackRegardless,
        &[
            "a turn that comes back late",
            "an answer unread beside askers",
            "an orphan's answer unread",
            "a grant that comes back late",
        ],
    ),
    (
        "last-asker-forgotten",
        "the last of several askers that go from a run is forgotten",
        Variant::ForgetsTheLastAsker,
        &[
            "an answer unread beside askers",
            "an orphan's answer unread",
        ],
    ),
    (
        "closed-unfenced",
        "a manager that closes gives back slots that its application goes on to hold",
        Variant::ClosesUnfenced,
        &["an orderly end"],
    ),
];

const RULES: [Row; 5] = [
    (
        "release-by-any-token",
        "a release does not look at the token",
        Variant::ReleasesByAnyToken,
        &["back to the queue"],
    ),
    (
        "latest-first",
        "a hand-over starts the last of the queue",
        Variant::PromotesTheLatest,
        &["contention of three"],
    ),
    (
        "cancel-without-hand-over",
        "a cancelled run's slot is left to whoever comes next",
        Variant::CancelsWithoutHandOver,
        &["a run adopted"],
    ),
    (
        "grants-to-itself",
        "a hand-over goes to whoever released",
        Variant::GrantsToItself,
        &["contention of three"],
    ),
    (
        "tokens-repeated",
        "a hand-over carries the last token once more",
        Variant::RepeatsTokens,
        &["contention of three"],
    ),
];
