//! The end of a behaviour: nothing more goes wrong, everything is done that is due, and nothing
//! is left.

use std::sync::Arc;
use std::time::Duration;

use pac_core::protocol::{Command, Death};
use pac_core::state::{Entry, EntryState, RunKind, RunOutcome};

use super::application::Leave;
use super::node::{Doing, Fate};
use super::world::World;

/// Rounds within which everything has come to rest.
const ROUNDS: usize = 300;

impl World {
    /// Lets everything come to rest, with every slot released some time, and checks that nobody
    /// waits and nothing is held.
    pub(crate) fn come_to_rest(&mut self) {
        while !self.late.is_empty() {
            self.arrive_late(0);
        }
        for _ in 0..ROUNDS {
            if !self.round() {
                self.check_rest();
                return;
            }
            self.check();
            // Until what is held back for a while is not any more.
            self.pass(Duration::from_millis(5));
        }
        panic!(
            "it does not come to rest: {:?}, {:?}",
            self.nodes, self.store
        );
    }

    /// One round of all that is due. False when nothing was.
    fn round(&mut self) -> bool {
        let mut busy = false;
        for at in 0..self.nodes.len() {
            busy |= self.finish_leaving(at);
            if !matches!(self.nodes[at].doing, Doing::Nothing) {
                // In the name of a session that is over it would go on for ever.
                if !self.nodes[at].lost {
                    busy = true;
                    self.go(at, Fate::Well);
                }
                if self.nodes[at].closing && self.nodes[at].lost {
                    continue;
                }
            }
            busy |= self.see_to_session(at);
            if self.nodes[at].closing {
                continue;
            }
            busy |= self.ask_again(at) || self.release(at) || self.hear(at) || self.promote(at);
        }
        busy |= self.sweep_all();
        busy
    }

    fn finish_leaving(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        let asks = node.asks.iter();
        let asker = asks
            .filter(|(_, ask)| ask.closed || ask.stopped)
            .map(|(asker, _)| *asker);
        if let Some(asker) = asker.last() {
            node.asker_leaves(asker, Leave::AtOnce);
            return true;
        }
        if node.unread_comes_back(self.now, 0) || node.unread_turn_comes_back(self.now, 0) {
            return true;
        }
        let waiters = node.waiters.iter();
        let waiter = waiters
            .filter(|(_, wait)| wait.closed || wait.stopped)
            .map(|(of, _)| *of);
        if let Some(waiter) = waiter.last() {
            node.waiter_leaves(self.now, waiter, Leave::AtOnce);
            return true;
        }
        false
    }

    fn see_to_session(&mut self, at: usize) -> bool {
        let node = &self.nodes[at];
        let ends = node.closing && (node.asks.is_empty() || node.lost);
        let (session, alive) = (node.session, self.store.is_alive(node.session));
        if ends && alive {
            self.store.lapse(session, Death::Session);
            return true;
        }
        if !node.closing && (node.lost || !alive) {
            self.reopen(at);
            return true;
        }
        let node = &self.nodes[at];
        if !node.closing && node.told != (node.session, node.lost) {
            self.tell(at);
            return true;
        }
        false
    }

    /// What the application does not know it asks again; what it does not want any more it ends.
    fn ask_again(&mut self, at: usize) -> bool {
        let node = &mut self.nodes[at];
        let Some(run) = node.in_doubt.pop_first() else {
            return false;
        };
        let command = Command::cancel(run, None);
        node.submit(self.now, vec![command]);
        true
    }

    fn release(&mut self, at: usize) -> bool {
        let Some(lease) = self.nodes[at].give_up_lease(0) else {
            return false;
        };
        let command = Command::Release {
            run: lease.entry.run.clone(),
            uid: lease.entry.uid.clone(),
            token: Some(lease.token),
            outcome: RunOutcome::Completed,
        };
        self.submit(at, command);
        true
    }

    /// A hint of the newest state, to the manager that has runs there.
    fn hear(&mut self, at: usize) -> bool {
        let node = &self.nodes[at];
        let behind = node.machine.revision() != Some(self.store.revision());
        let due = behind && node.machine.is_of_interest() && !node.machine.is_busy();
        if due {
            self.bare_hint(at);
        }
        due
    }

    fn promote(&mut self, at: usize) -> bool {
        let head = self.store.state.head();
        let node = &mut self.nodes[at];
        let free = head.limit.admits(head.started);
        let due = node.reads
            && free
            && !node.machine.is_busy()
            && self.store.state.entries().any(has_no_owner);
        if due {
            let version = self.store.state.head().version();
            node.input(self.now, |machine, env, effects| {
                let behind = machine.look_if_behind(version, effects);
                machine.submit_own(env, Command::Promote, effects) || behind
            });
        }
        due
    }

    fn sweep_all(&mut self) -> bool {
        let dead = self.store.dead();
        let open = self.nodes.iter().position(|node| !node.closing);
        for (session, death) in dead.iter().copied() {
            match open {
                Some(at) => self.expire(at, session, death),
                // Nobody is left; that is as good as done.
                None => return false,
            }
        }
        if !dead.is_empty() {
            return true;
        }
        // The holders' time has passed, too.
        let entries = self.store.state.entries().cloned().collect::<Vec<_>>();
        let mut passed = false;
        for entry in entries {
            let (
                EntryState::Started {
                    session, orphaned, ..
                },
                Some(at),
            ) = (entry.state, open)
            else {
                continue;
            };
            if !self.store.is_alive(session) {
                self.store.lapse(session, Death::Lease);
                passed = true;
            } else if orphaned {
                // It runs in the cluster, and has been given back: it ends there some time.
                self.nodes[at].in_doubt.insert(entry.run.clone());
                passed = true;
            }
        }
        passed
    }

    fn check_rest(&self) {
        for node in self.nodes.iter().filter(|node| !node.closing) {
            assert!(matches!(node.doing, Doing::Nothing), "{node:?}");
            assert_eq!(node.machine.pending_count(), 0, "{node:?}");
            assert!(node.asks.is_empty(), "somebody has no answer: {node:?}");
            assert!(node.waiters.is_empty(), "somebody waits: {node:?}");
            assert!(node.machine.is_idle(), "it would be kept: {node:?}");
        }
        if self.nodes.iter().all(|node| node.closing) {
            return;
        }
        let taken = self.nodes.iter().any(|node| node.reads && !node.closing);
        for entry in self.store.state.entries() {
            let stranded = !taken && has_no_owner(entry);
            assert!(
                entry.is_finished() || stranded,
                "nobody asks for {entry:?}, and it is there: {:?}, {:?}",
                self.nodes,
                self.store
            );
        }
    }
}

fn has_no_owner(entry: &Arc<Entry>) -> bool {
    let unowned = matches!(entry.state, EntryState::Queued { owner: None });
    unowned && entry.kind == RunKind::Durable
}
