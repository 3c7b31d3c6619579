//! An exhaustive check of the protocol and of the manager's own state machine, with
//! [`stateright`](https://www.stateright.rs).
//!
//! Where a test follows one behaviour, [`check`] goes through all that a [`Scenario`] allows:
//! every order in which commands, commits, answers, hints and faults can come. It ends with the
//! first [`Invariant`] that does not hold, and says which steps lead there.
//!
//! # What is modelled
//!
//! Actors that share nothing and meet by what `Driver` promises:
//!
//! - The *store*: a repository that is replaced if its head is at the revision expected and all
//!   sessions named live; and who lives. What is written comes from production's
//!   `RepositoryState::absorb` and `Entry::stamp`.
//! - *Controllers*: each drives the `Repository` of `pac_core::manager`, which plans, takes in
//!   answers and decides who hears what. Its inputs come from here in place of the manager's
//!   tasks, and what it returns is done here: a commit or a read is put on its way, an answer is
//!   given, a grant that nobody takes is given back.
//! - *Applications*: they ask for what the scenario says, once and at any moment, release some
//!   time what they hold, leave before they are answered, and give up waiting.
//! - *Faults*, each as often as the scenario says: a controller dies at any moment and is
//!   started again, with a commit of its on the way; a session lapses while its controller
//!   lives; an answer is lost, its commit never done, done before, or done later.
//!
//! It is written on `stateright::Model`, with the actors as plain structures, and not on
//! `stateright::actor`. There, each message is a state of the network, and hints with any delay
//! alone would be more states than all the rest. Here a hint is a step that needs no message
//! (see below), faults are counted, and what can make no difference any more is taken out.
//!
//! # What is left out, and why that is sound
//!
//! - *Hints and polls* are one step: the controller hears of the state as it is now, at any
//!   moment or never. A hint that comes late is the same hint heard before all that the
//!   controller did not do meanwhile; so a plan is made on every state that it may have seen.
//! - *Reading* takes one step, but where a scenario says [`slow_reads`](Scenario::slow_reads):
//!   there, what is asked while a read is on its way is checked, too.
//! - *Planning* follows at once on what makes it possible. A pause before it, a backoff or a
//!   worker that is busy, equals a commit that is long on its way; what gathers meanwhile gathers
//!   in the same way behind a commit in flight.
//! - *The tasks and channels* around the repository are those of this module: that the manager
//!   gives the same inputs and does the same with the effects is held by the tests of the manager.
//! - *Grants that find nobody* come back at once, and askers that go away say so later, but where
//!   a scenario says [`slow_returns`](Scenario::slow_returns) or
//!   [`leaves_at_once`](Scenario::leaves_at_once). Where it says [`orphan`](Scenario::orphan), the
//!   death of the first run's controller is past.
//! - *Snapshots* are whole. That parts of one bring a cache to the same state is held by the
//!   tests of `absorb`. Nothing is forgotten for its age, and commits have no largest size, but
//!   where a scenario says [`entries_per_commit`](Scenario::entries_per_commit).
//! - *Time* has no length: a TTL passes in a step, the lease TTL after the session TTL, never
//!   for a session whose controller renews it (but for lapses). Commands are given up for being
//!   late where a scenario has timeouts. All times of entries are 0.
//! - *Sessions and late commits* that can have no effect any more are taken out of the state: a
//!   commit that expects a revision which is past, a session that is dead and named nowhere.
//! - Of controllers that could all see to the same death, one does at a time, but where a
//!   scenario says [`sweeps_together`](Scenario::sweeps_together).
//!
//! Revisions, tickets and tokens count from 0 as they are: a behaviour makes few commits, and
//! states that differ in the numbers alone are rare.
//!
//! # Safety and liveness
//!
//! Every commit is judged when it is done, by what was there before and after, and every answer
//! when it is given, by code that shares nothing with the protocol. "Some time" is a statement
//! on states *at rest*: where no step is left but new faults and new questions. There, nothing
//! may wait, and no slot be held. stateright's own `eventually` would not see a behaviour that
//! goes in a circle; here, faults may stop at any moment, so each such state is checked, and a
//! round of the loop that comes to nothing has to have learnt something
//! ([`Invariant::ComesToRest`]).
//!
//! A check that finds nothing has to be able to find something: a scenario lists what it has to
//! [reach](Scenario::reaches), and [`Variant`] breaks one thing each: what the repository is told
//! or answers, what is done with its effects, or the rules. Those in the rules and in the commit
//! loop change a commit on its way or its answer, since the repository itself is production's.

mod ask;
mod book;
mod check;
mod controller;
mod deliver;
mod drive;
mod invariant;
mod kept;
mod monitor;
mod port;
mod rest;
mod scenario;
mod start;
mod steps;
mod store;
mod suite;
mod tamper;
mod target;
mod variant;
mod witness;
mod world;

pub use check::{Verdict, check};
pub use invariant::Invariant;
pub use scenario::{Event, Faults, Scenario};
pub use suite::suite;
pub use variant::{Mutant, Variant};
pub use witness::Witness;
