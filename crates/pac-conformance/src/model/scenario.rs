//! What can happen in a behaviour of the model: who asks for what, and how much goes wrong.

use pac_core::Limit;
use pac_core::protocol::RunRequest;

use super::witness::Witness;

/// Something an application may do, once, at any moment at which it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// Asks for a slot for a run.
    Admit(usize),
    /// Records a run as running.
    Adopt(usize),
    /// Ends whatever run has the name of this one, whoever has it.
    Cancel(usize),
    /// Gives the slot of a run back that did not begin to work.
    Requeue(usize),
    /// Goes away while it waits for the turn of a run, or in the instant in which that came.
    GiveUp(usize),
    /// Leaves a run in the queue for the stream of grants.
    Detach(usize),
    /// Stops to read the stream of grants, in which the slot of this run lies unread.
    StopReading(usize),
    /// Releases a run by its name and this token, which may be an old one, or not yet given.
    Release(usize, u64),
    /// Releases a run by its name, by whatever token it has its slot.
    Force(usize),
    /// Announces a limit.
    SetLimit(u32),
    /// Pauses the repository.
    Pause,
    /// Ends the pause.
    Resume,
    /// Removes the repository with all that is in it.
    Remove,
    /// Closes the controller in an orderly way. It is started again as after a crash.
    Close,
}

/// How often each thing may go wrong in one behaviour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Faults {
    /// A controller dies, and is started again.
    pub crashes: u8,
    /// A controller that lives does not renew its session in time.
    pub lapses: u8,
    /// An answer to a commit does not come in time: the commit is lost, done, or still to come.
    pub losses: u8,
    /// An asker goes away before it has read its answer.
    pub leaves: u8,
    /// An asker is told that it has waited for long enough, and asks again.
    pub timeouts: u8,
}

/// What a check runs through: every behaviour that this allows.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Says what it is about.
    pub name: &'static str,
    /// The limit at the start.
    pub limit: u32,
    /// How many controllers there are.
    pub controllers: usize,
    /// Whether controllers read their streams of grants, and so take runs without an owner.
    pub takes_ownerless: bool,
    /// Whether several controllers may see to the same death at once; else whichever is first.
    pub sweeps_together: bool,
    /// Whether a read takes time; else what it asks for is there at once.
    pub slow_reads: bool,
    /// Whether what has become of a session is told to those who wait some time after it; else
    /// at once.
    pub late_news: bool,
    /// Whether a grant that found nobody comes back to the controller some time later; else at
    /// once.
    pub slow_returns: bool,
    /// Whether an asker that goes away says so at once; else its answer may come before that.
    pub leaves_at_once: bool,
    /// Whether the first run is an orphan at the start: its controller has died, and does not
    /// come back.
    pub orphan: bool,
    /// From how many entries on a commit starts no further run.
    pub entries_per_commit: usize,
    /// The runs.
    pub runs: Vec<RunRequest>,
    /// What the application of which controller may do, at most 16 of them. A lease that it
    /// holds it also releases, some time.
    pub events: Vec<(usize, Event)>,
    /// What may go wrong.
    pub faults: Faults,
    /// What has to happen in some behaviour, or the check has shown nothing.
    pub reaches: Vec<Witness>,
}

impl Scenario {
    pub(super) fn limit(&self) -> Limit {
        Limit::new(self.limit)
    }

    /// Whether a waiter of this run may give up.
    pub(super) fn may_give_up(&self, run: &pac_core::PipelineRunKey) -> bool {
        self.events.iter().any(
            |(_, event)| matches!(event, Event::GiveUp(which) if self.runs[*which].run == *run),
        )
    }
}
