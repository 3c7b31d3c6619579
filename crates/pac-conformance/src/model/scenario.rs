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
    /// Ends a run, whoever has it.
    Cancel(usize),
    /// Gives the slot of a run back that did not begin to work.
    Requeue(usize),
    /// Goes away while it waits for the turn of a run.
    GiveUp(usize),
    /// Releases a run by its name and this token, which may be an old one, or not yet given.
    Release(usize, u64),
    /// Announces a limit.
    SetLimit(u32),
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
}
