//! A process with the state machine: what it is doing, and what its application has.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use pac_core::driver::CommitOutcome;
use pac_core::manager::machine::{
    Action, Effects, Env, Grant, HolderId, Listener, Port, Reply, Repository, Request, RequestId,
    WaiterId,
};
use pac_core::protocol::{Changes, Command};
use pac_core::state::{Entry, Snapshot};
use pac_core::{Error, ErrorKind, FencingToken, PipelineRunKey, RepositoryKey, SessionId, Version};
use std::time::Duration;
use tokio::time::Instant;

use super::store::{Answer, RETENTION, Store};

/// How long a command is tried.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
pub(crate) struct TestPort;

impl Port for TestPort {
    type Asker = u64;
    type Notice = ();
    type Place = ();
    type Loss = FencingToken;

    fn place(_: u64) -> ((), ()) {
        ((), ())
    }
}

pub(crate) struct Node {
    pub(crate) machine: Repository<TestPort>,
    pub(crate) session: SessionId,
    pub(crate) lost: bool,
    /// What the machine was told of its session.
    pub(crate) told: (SessionId, bool),
    pub(crate) reads: bool,
    pub(crate) closing: bool,
    pub(crate) doing: Doing,
    pub(crate) entry_budget: usize,
    /// Set, it is a store without round trips.
    pub(crate) in_process: bool,
    pub(crate) asks: BTreeMap<u64, Ask>,
    pub(crate) waiters: BTreeMap<WaiterId, Wait>,
    /// Waiters whose place came with an answer that found nobody.
    pub(crate) unheard: BTreeSet<WaiterId>,
    /// Answers that nobody has read yet.
    pub(crate) unread: BTreeMap<u64, Box<Reply<TestPort>>>,
    /// Turns that nobody has read yet: what was waited for, and the slot.
    pub(crate) unread_turns: BTreeMap<WaiterId, (Arc<Entry>, FencingToken)>,
    /// One of a durable run for each asker that has it.
    pub(crate) leases: Vec<Grant>,
    /// Tokens of leases whose loss it wants to hear of.
    pub(crate) holders: BTreeMap<FencingToken, PipelineRunKey>,
    /// Those that want to hear of their loss.
    pub(crate) watching: BTreeMap<FencingToken, HolderId>,
    /// Tokens that it was handed as new.
    pub(crate) handed: BTreeSet<FencingToken>,
    /// Tokens of slots that it was answered with when it adopted a run.
    pub(crate) adopted: BTreeSet<FencingToken>,
    /// Runs of which it does not know what has become.
    pub(crate) in_doubt: BTreeSet<PipelineRunKey>,
    next: u64,
}

impl fmt::Debug for Node {
    /// In short.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let view = self.machine.canonical(Instant::now());
        let pending: Vec<_> = view.pending.iter().map(|of| of.command).collect();
        let leases: Vec<_> = self.leases.iter().map(|lease| lease.token).collect();
        f.debug_struct("Node")
            .field("session", &(self.session, self.lost, self.told))
            .field("reads", &self.reads)
            .field("closing", &self.closing)
            .field("knows", &self.machine.revision())
            .field("recheck", &(view.recheck, view.wanted))
            .field("busy", &self.machine.is_busy())
            .field("interested", &self.machine.is_of_interest())
            .field("doing", &self.doing)
            .field("pending", &pending)
            .field("asks", &self.asks)
            .field("waiters", &self.waiters)
            .field("leases", &leases)
            .finish_non_exhaustive()
    }
}

/// What the combiner waits for.
#[derive(Debug)]
pub(crate) enum Doing {
    Nothing,
    /// It plans again, at any time from now on.
    Plan,
    Ask(Option<Version>),
    Read(Snapshot),
    Send(SessionId, Changes),
    Hear(SessionId, CommitOutcome),
    Fail(Error),
}

#[derive(Debug)]
pub(crate) struct Ask {
    pub(crate) request: RequestId,
    pub(crate) command: Command,
    /// The asker has closed its channel, and has not said so yet.
    pub(crate) closed: bool,
    /// It reads no more, and its channel is open.
    pub(crate) stopped: bool,
}

#[derive(Debug)]
pub(crate) struct Wait {
    pub(crate) entry: Arc<Entry>,
    /// As those of an asker.
    pub(crate) closed: bool,
    pub(crate) stopped: bool,
}

/// What becomes of what a node does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Well,
    /// The store cannot be reached, and nothing has happened.
    Unavailable,
    /// A commit is done, and its answer is lost.
    AnswerLost,
    /// A commit is lost, and may come to the store later.
    Late,
    /// The store takes exception to a commit.
    Refused,
    /// A commit that conflicts is not told what is there now.
    Bare,
}

impl Node {
    pub(crate) fn new(session: SessionId, reads: bool, in_process: bool) -> Self {
        let key = RepositoryKey::new("ci", "machine").unwrap();
        Self {
            machine: Repository::new(key, session, Vec::new()),
            session,
            lost: false,
            told: (session, false),
            reads,
            closing: false,
            doing: Doing::Nothing,
            entry_budget: usize::MAX,
            in_process,
            asks: BTreeMap::new(),
            waiters: BTreeMap::new(),
            unheard: BTreeSet::new(),
            unread: BTreeMap::new(),
            unread_turns: BTreeMap::new(),
            leases: Vec::new(),
            holders: BTreeMap::new(),
            watching: BTreeMap::new(),
            handed: BTreeSet::new(),
            adopted: BTreeSet::new(),
            in_doubt: BTreeSet::new(),
            next: 0,
        }
    }

    pub(crate) fn env(&self, now: Instant) -> Env {
        Env {
            session: self.session,
            session_lost: self.lost,
            takes_ownerless: self.reads && !self.closing,
            closing: self.closing,
            in_process: self.in_process,
            entry_budget: self.entry_budget,
            retention: RETENTION,
            command_timeout: TIMEOUT,
            now,
        }
    }

    /// Gives the machine an input, and delivers the effects.
    pub(crate) fn give<T>(
        &mut self,
        now: Instant,
        input: impl FnOnce(&mut Repository<TestPort>, &Env, &mut Effects<TestPort>) -> T,
    ) -> T {
        let env = self.env(now);
        let mut effects = Effects::default();
        let result = input(&mut self.machine, &env, &mut effects);
        self.deliver(now, effects);
        result
    }

    /// The same for an input that may bring the combiner's right.
    pub(crate) fn input(
        &mut self,
        now: Instant,
        input: impl FnOnce(&mut Repository<TestPort>, &Env, &mut Effects<TestPort>) -> bool,
    ) {
        let lead = self.give(now, input);
        self.lead(lead);
    }

    pub(crate) fn lead(&mut self, lead: bool) {
        if lead {
            let idle = matches!(self.doing, Doing::Nothing);
            assert!(idle, "the right was given out twice: {:?}", self.doing);
            self.doing = Doing::Plan;
        }
    }

    /// Submits commands that are planned together, each with an asker.
    pub(crate) fn submit(&mut self, now: Instant, commands: Vec<Command>) -> Vec<u64> {
        let deadline = now.checked_add(TIMEOUT);
        let mut askers = Vec::new();
        let requests: Vec<_> = commands
            .iter()
            .map(|command| {
                askers.push(self.next_asker());
                let listener = Listener::Channel(self.next);
                Request::new(command.clone(), listener, deadline)
            })
            .collect();
        for (asker, command) in askers.iter().zip(commands) {
            self.await_answer(*asker, command);
        }
        let mut first = RequestId::default();
        self.input(now, |machine, env, effects| {
            let (id, lead) = machine.submit(env, requests.into_iter(), effects);
            first = id;
            lead
        });
        for (number, asker) in (first.0..).zip(&askers) {
            if let Some(ask) = self.asks.get_mut(asker) {
                ask.request = RequestId(number);
            }
        }
        askers
    }

    pub(crate) fn next_asker(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub(crate) fn await_answer(&mut self, asker: u64, command: Command) {
        self.asks.insert(
            asker,
            Ask {
                request: RequestId::default(),
                command,
                closed: false,
                stopped: false,
            },
        );
    }

    /// Goes on with what it is doing, as far as the next thing that takes time. A commit that
    /// may come later is given back.
    pub(crate) fn go(
        &mut self,
        now: Instant,
        store: &mut Store,
        fate: Fate,
    ) -> Option<(SessionId, Changes)> {
        match std::mem::replace(&mut self.doing, Doing::Nothing) {
            Doing::Nothing => {}
            Doing::Plan => {
                let action = self.give(now, Repository::plan);
                self.act(action);
            }
            Doing::Ask(since) => match fate {
                Fate::Well | Fate::Late | Fate::Refused | Fate::Bare => {
                    self.doing = Doing::Read(store.snapshot(since));
                }
                Fate::Unavailable | Fate::AnswerLost => {
                    let error = failure(ErrorKind::Unavailable, "load");
                    self.loaded(now, Err(error));
                }
            },
            Doing::Read(snapshot) => self.loaded(now, Ok(snapshot)),
            Doing::Send(session, changes) => {
                self.check_kept(now, &changes);
                return self.send(store, session, changes, fate);
            }
            Doing::Hear(session, outcome) => {
                let action = self.give(now, |machine, env, effects| {
                    machine.on_commit(env, session, outcome, effects)
                });
                self.act(action);
            }
            Doing::Fail(error) => {
                let action = self.give(now, |machine, env, effects| {
                    machine.on_commit_failed(env, &error, effects)
                });
                self.act(action);
            }
        }
        None
    }

    fn loaded(&mut self, now: Instant, answer: Result<Snapshot, Error>) {
        let action = self.give(now, |machine, env, effects| {
            machine.on_loaded(env, answer, effects)
        });
        self.act(action);
    }

    fn send(
        &mut self,
        store: &mut Store,
        session: SessionId,
        changes: Changes,
        fate: Fate,
    ) -> Option<(SessionId, Changes)> {
        let lost = || Doing::Fail(failure(ErrorKind::Indeterminate, "commit"));
        match fate {
            Fate::Unavailable => {
                self.doing = Doing::Fail(failure(ErrorKind::Unavailable, "commit"));
            }
            Fate::Refused => {
                self.doubt_all();
                let error = failure(ErrorKind::InvalidInput, "commit");
                self.doing = Doing::Hear(session, CommitOutcome::Refused(error));
            }
            Fate::Late => {
                self.doing = lost();
                return Some((session, changes));
            }
            Fate::AnswerLost => {
                store.commit(session, &changes);
                self.doing = lost();
            }
            Fate::Well | Fate::Bare => {
                let outcome = match store.commit(session, &changes) {
                    Answer::Committed(written) => CommitOutcome::Committed(written),
                    Answer::Conflict if fate == Fate::Bare => CommitOutcome::Conflict(None),
                    Answer::Conflict => {
                        let now = store.snapshot(Some(changes.expected));
                        CommitOutcome::Conflict(Some(now))
                    }
                    Answer::SessionDead(dead) => CommitOutcome::SessionDead(dead),
                };
                self.doing = Doing::Hear(session, outcome);
            }
        }
        None
    }

    /// A store that takes exception to a commit would do so again: what nobody waits for is
    /// given up, but for what gives a slot or a place back.
    fn doubt_all(&mut self) {
        let view = self.machine.canonical(Instant::now());
        let in_flight = view.in_flight.iter().map(|planned| &planned.request);
        let requests = in_flight.chain(&view.pending);
        let stays = |command: &Command| {
            matches!(
                command,
                Command::Abandon { .. } | Command::Disown { .. } | Command::Expire { .. }
            )
        };
        let runs: Vec<_> = requests
            .filter(|request| !stays(request.command))
            .filter_map(|request| request.command.run().cloned())
            .collect();
        self.in_doubt.extend(runs);
    }

    fn act(&mut self, action: Action) {
        // What could not be delivered may have brought the right meanwhile.
        let led = matches!(self.doing, Doing::Plan);
        self.doing = match action {
            Action::Rest if led => Doing::Plan,
            Action::Rest => Doing::Nothing,
            Action::Plan | Action::PlanAfter(_) | Action::Hold(_) => Doing::Plan,
            Action::Load(since) => Doing::Ask(since),
            Action::Commit(session, commit) => {
                let [commit] = *commit;
                Doing::Send(session, commit.changes)
            }
        };
        assert!(
            !led || matches!(self.doing, Doing::Plan),
            "the right was given out twice"
        );
    }
}

pub(crate) fn failure(kind: ErrorKind, operation: &'static str) -> Error {
    Error::new(kind, operation, "the test says so")
}
