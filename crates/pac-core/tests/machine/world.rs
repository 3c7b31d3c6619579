//! Nodes over one store, and what is checked after every step.

use std::time::Duration;

use pac_core::manager::machine::Listener;
use pac_core::protocol::{Changes, Command, Death, RunRequest};
use pac_core::{PipelineRunKey, Priority, SessionId, Uid};
use tokio::time::Instant;

use super::node::{Doing, Fate, Node};
use super::store::{Answer, Store};

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) nodes: Vec<Node>,
    /// Commits that nobody waits for any more.
    pub(crate) late: Vec<(SessionId, Changes)>,
    pub(crate) now: Instant,
    /// How many runs have had each name before.
    pub(crate) generations: [usize; 4],
    next_session: u64,
}

impl World {
    /// Nodes that all read their streams of grants, or none of them.
    pub(crate) fn new(nodes: usize, reads: bool, in_process: bool) -> Self {
        let mut world = Self {
            store: Store::new(),
            nodes: Vec::new(),
            late: Vec::new(),
            now: Instant::now(),
            generations: [0; 4],
            next_session: 0,
        };
        for _ in 0..nodes {
            let session = world.open();
            world.nodes.push(Node::new(session, reads, in_process));
        }
        world
    }

    fn open(&mut self) -> SessionId {
        self.next_session += 1;
        let session = SessionId::new(self.next_session);
        self.store.open(session);
        session
    }

    /// The run that has one of the names now.
    pub(crate) fn run(&self, which: usize) -> RunRequest {
        run(which, self.generations[which % 4])
    }

    pub(crate) fn submit(&mut self, at: usize, command: Command) -> u64 {
        self.nodes[at].submit(self.now, vec![command])[0]
    }

    /// A node goes on as far as the next thing that takes time.
    pub(crate) fn go(&mut self, at: usize, fate: Fate) {
        let late = self.nodes[at].go(self.now, &mut self.store, fate);
        self.late.extend(late);
    }

    /// A node goes on until it has nothing to do.
    pub(crate) fn settle(&mut self, at: usize) {
        for _ in 0..100 {
            if matches!(self.nodes[at].doing, Doing::Nothing) {
                return;
            }
            self.go(at, Fate::Well);
        }
        panic!("it does not come to rest: {:?}", self.nodes[at]);
    }

    pub(crate) fn arrive_late(&mut self, at: usize) {
        if let Some(at) = at.checked_rem(self.late.len()) {
            let (session, changes) = self.late.remove(at);
            let _: Answer = self.store.commit(session, &changes);
        }
    }

    /// A hint of a version that may be long past, with what changed since one before it, or all,
    /// or nothing.
    pub(crate) fn hint(&mut self, at: usize, back: usize, overlap: Option<usize>) {
        let Some(version) = self.store.version(back).cloned() else {
            return;
        };
        let revision = version.head.revision;
        let since = overlap.and_then(|overlap| self.store.version(back + overlap));
        let since = since.filter(|since| since.exists && version.exists);
        let since = since.map(|since| since.head.version());
        let mut told = version;
        told.entries
            .retain(|entry| since.is_none_or(|since| entry.revision > since.revision));
        told.since = since;
        // A removal makes what was known before say nothing.
        let sound = since.is_none_or(|since| self.store.reaches(since));
        let told = sound.then_some(told);
        self.nodes[at].input(self.now, |machine, env, effects| {
            machine.on_hint(env, revision, told.as_ref(), effects)
        });
    }

    /// A hint of the newest version, without what it is.
    pub(crate) fn bare_hint(&mut self, at: usize) {
        let revision = self.store.revision();
        self.nodes[at].input(self.now, |machine, env, effects| {
            machine.on_hint(env, revision, None, effects)
        });
    }

    pub(crate) fn reopen(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.closing || (self.store.is_alive(node.session) && !node.lost) {
            return;
        }
        let session = self.open();
        let node = &mut self.nodes[at];
        node.session = session;
        node.lost = false;
        // Leases of ephemeral runs end with what they were held by; the others go on.
        node.holders.clear();
        for lease in std::mem::take(&mut node.leases) {
            if lease.entry.kind == pac_core::state::RunKind::Durable {
                node.in_doubt.insert(lease.entry.run.clone());
            }
            if let Some(holder) = node.watching.remove(&lease.token) {
                node.machine.unwatch_lease(holder);
            }
        }
    }

    /// A node is told what has become of its session.
    pub(crate) fn tell(&mut self, at: usize) {
        let now = self.now;
        let node = &mut self.nodes[at];
        let (session, lost) = std::mem::replace(&mut node.told, (node.session, node.lost));
        let is_another = session != node.session;
        if !lost && (node.lost || is_another) {
            node.give(now, |machine, env, effects| {
                machine.on_session_lost(env, session, effects);
            });
        }
        if is_another {
            node.input(now, |machine, env, effects| {
                machine.on_session_opened(env, effects)
            });
        }
    }

    /// A node hears of the death of a session that has left entries.
    pub(crate) fn sweep(&mut self, at: usize, which: usize) {
        let dead = self.store.dead();
        if let Some(which) = which.checked_rem(dead.len()) {
            let (session, death) = dead[which];
            self.expire(at, session, death);
        }
    }

    pub(crate) fn expire(&mut self, at: usize, session: SessionId, death: Death) {
        let command = Command::Expire { session, death };
        let node = &mut self.nodes[at];
        let mut asks = node.asks.values();
        if asks.any(|ask| ask.command == command) {
            return;
        }
        let asker = node.next_asker();
        node.await_answer(asker, command.clone());
        node.input(self.now, |machine, env, effects| {
            machine.note_dead(session);
            machine.submit_last_will(env, command, asker, effects)
        });
    }

    /// A node closes: everybody is told, and what it has is given back.
    pub(crate) fn end(&mut self, at: usize) {
        if self.nodes[at].closing {
            return;
        }
        let (now, session) = (self.now, self.nodes[at].session);
        let why = super::node::failure(pac_core::ErrorKind::Closed, "command");
        let node = &mut self.nodes[at];
        node.closing = true;
        node.give(now, |machine, _, effects| machine.end(&why, effects));
        node.leases.clear();
        assert!(node.holders.is_empty(), "every holder is told of the end");
        assert!(node.waiters.is_empty(), "every waiter is told of the end");
        assert!(node.asks.is_empty(), "every asker is told of the end");
        self.expire(at, session, Death::Session);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// What holds after every step.
    pub(crate) fn check(&self) {
        for node in &self.nodes {
            node.check(self.now);
        }
    }
}

impl Node {
    fn check(&self, now: Instant) {
        let idle = matches!(self.doing, Doing::Nothing);
        assert_eq!(
            self.machine.is_busy(),
            !idle,
            "the right is there while there is something to do: {:?}",
            self.doing
        );
        let view = self.machine.canonical(now);
        let in_flight = view.in_flight.iter().map(|planned| &planned.request);
        let requests: Vec<_> = in_flight.chain(&view.pending).collect();
        let awaited = requests.iter();
        let awaited = awaited.filter(|request| matches!(request.listener, Listener::Channel(_)));
        assert_eq!(awaited.count(), self.asks.len(), "every asker is known");
        let waiters = view.waiters.iter().map(|(_, waiters)| waiters.len());
        let unread = self.unread.values();
        let unread = unread.filter(|reply| reply.place.is_some() && reply.carries.is_none());
        assert_eq!(
            waiters.sum::<usize>(),
            self.waiters.len() + unread.count(),
            "every waiter is known: {:?}, {:?}",
            view.waiters,
            self.waiters
        );
        let own = view.pending.iter();
        let own = own.filter(|request| matches!(request.listener, Listener::Nobody));
        let own: Vec<_> = own.map(|request| request.command).collect();
        for (at, command) in own.iter().enumerate() {
            let again = own[at + 1..].contains(command);
            assert!(!again, "{command:?} waits twice: {own:?}");
        }
        for (token, run) in &self.holders {
            let known = self.machine.state().is_none() || self.machine.is_held(run, *token);
            assert!(known, "the holder of {token} is not told of its loss");
        }
    }
}

/// A run of one of four names; which one of those that have had this name. Every other name is
/// of ephemeral runs.
pub(crate) fn run(which: usize, generation: usize) -> RunRequest {
    let name = ["a", "b", "c", "d"][which % 4];
    let uid: Uid = format!("{name}{generation}").parse().unwrap();
    let name = PipelineRunKey::new("ci", name).unwrap();
    match which % 4 {
        0 => RunRequest::durable(name, uid),
        2 => RunRequest::durable(name, uid).with_priority(Priority::new(1)),
        _ => RunRequest::ephemeral(name, uid),
    }
}
