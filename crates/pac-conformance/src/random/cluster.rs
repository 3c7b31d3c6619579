//! Three processes on one store, which make one move after the other.

use std::sync::Arc;
use std::time::Duration;

use pac_core::RepositoryKey;
use pac_core::driver::Driver;
use tokio::time::{sleep, timeout};

use super::allowed::{Allowed, Background};
use super::asked::{Asked, Seen, call, fits, may_fit};
use super::check::Check;
use super::edge;
use super::moves::{Deed, Line, Move};
use super::process::{LEASE_TTL, Process};
use super::steps::PARTIES;
use crate::reference::{Answer, Ask, Asker, How, Place, Repository, Wish};
use crate::{poll_times, repository};

/// The wait for effects that come at once, before any interval passes.
const AT_ONCE: Duration = Duration::from_millis(50);
/// The wait for effects of all intervals: a session dies (15 s), managers look for dead sessions
/// (12 s), and for runs without an owner (12 s).
const AT_LAST: Duration = Duration::from_secs(45);
/// The time limit of a move: a longer one never ends.
const NEVER: Duration = Duration::from_secs(2 * 60 * 60);

type Verdict = Result<(), (Check, String)>;

/// See the module.
#[derive(Debug)]
pub(super) struct Cluster {
    store: Arc<dyn Driver>,
    line: Line,
    key: RepositoryKey,
    processes: Vec<Process>,
    /// The content of the store at the end of the latest move.
    known: Repository,
    /// The dead sessions, and whether their lease TTLs have passed too.
    dead: Vec<(u64, bool)>,
    /// The latest move was [`Move::Both`].
    crowded: bool,
    told: Vec<String>,
}

impl Cluster {
    pub(super) async fn start(store: Arc<dyn Driver>, line: Line) -> Self {
        let mut processes = Vec::new();
        for party in 0..PARTIES {
            processes.push(Process::start(&store, line, is_controller(party)).await);
        }
        Self {
            store,
            line,
            key: repository("random"),
            processes,
            known: Repository::default(),
            dead: Vec::new(),
            crowded: false,
            told: Vec::new(),
        }
    }

    /// The moves so far and their results.
    pub(super) fn told(&mut self) -> Vec<String> {
        std::mem::take(&mut self.told)
    }

    /// Adds a result to the description of the latest move.
    fn tell(&mut self, what: &str) {
        if let Some(latest) = self.told.last_mut() {
            latest.push_str("\n      ");
            latest.push_str(what);
        }
    }

    pub(super) async fn play(&mut self, a_move: &Move) -> Verdict {
        self.told.push(a_move.to_string());
        self.crowded = matches!(a_move, Move::Both(..));
        let played = timeout(NEVER, self.moved(a_move)).await;
        match played {
            Ok(verdict) => verdict,
            Err(_) => Err((Check::Told, "this never comes to an end".to_owned())),
        }
    }

    async fn moved(&mut self, a_move: &Move) -> Verdict {
        match *a_move {
            Move::One(party, deed) => {
                let asked = self.does(party, deed).await;
                let allowed = Allowed::only(self.known.clone());
                let allowed = allowed.ask(asked.asker, &asked.ask, |a| fits(a, &asked.seen));
                self.answered(&[&asked], &allowed)?;
                self.keep(party, asked);
                self.comes_to(allowed).await
            }
            Move::Both((one, _), (other, _)) if one == other => Ok(()),
            Move::Both((one, deed), (other, second)) => {
                let (a, b) = tokio::join!(self.does(one, deed), self.does(other, second));
                let before = || Allowed::only(self.known.clone());
                // The answer may describe a moment at which the other command had been carried
                // out, too.
                let in_order = |first: &Asked, second: &Asked| {
                    let then = before().ask(first.asker, &first.ask, |a| may_fit(a, &first.seen));
                    then.ask(second.asker, &second.ask, |a| may_fit(a, &second.seen))
                };
                let allowed = in_order(&a, &b).or(in_order(&b, &a));
                self.answered(&[&a, &b], &allowed)?;
                self.keep(one, a);
                self.keep(other, b);
                self.comes_to(allowed).await
            }
            Move::Impatient(party, wish, polls) => self.impatient(party, wish, polls).await,
            Move::DropWaiter(party, which) => self.drop_waiter(party, which).await,
            Move::Detach(party, which) => {
                let process = &mut self.processes[party];
                if process.takes_ownerless() && which < process.waiters.len() {
                    let (_, waiter) = process.waiters.remove(which);
                    process.detached.insert(edge::number(waiter.run()));
                    waiter.detach();
                }
                self.comes_to(Allowed::only(self.known.clone())).await
            }
            Move::DropLease(party, which) => self.drop_lease(party, which).await,
            Move::Release(party, which, how) => self.release(party, which, how).await,
            Move::Requeue(party, which) => self.requeue(party, which).await,
            Move::Close(party) => self.close(party).await,
            Move::Crash(party) if self.line == Line::Direct => self.close(party).await,
            Move::Crash(party) => self.crash(party).await,
            Move::CutOff(_) if self.line == Line::Direct => Ok(()),
            Move::CutOff(party) => self.cut_off(party).await,
            Move::LeaseTtl => {
                sleep(LEASE_TTL + AT_LAST).await;
                for (_, lease_too) in &mut self.dead {
                    *lease_too = true;
                }
                self.comes_to(Allowed::only(self.known.clone())).await
            }
        }
    }

    /// Lets a process make a call that names its run.
    async fn does(&self, party: usize, deed: Deed) -> Asked {
        call(&self.processes[party], &self.key, &self.known, deed).await
    }

    fn answered(&mut self, asked: &[&Asked], allowed: &Allowed) -> Verdict {
        for asked in asked {
            let answer = asked.seen.to_string();
            self.tell(&format!("{} -> {answer}", asked.ask));
        }
        if allowed.is_empty() {
            let expected: Vec<_> = asked
                .iter()
                .map(|asked| self.known.clone().ask(asked.asker, &asked.ask))
                .collect();
            return Err((Check::Answer, format!("expected {expected:?}")));
        }
        Ok(())
    }

    fn keep(&mut self, party: usize, asked: Asked) {
        if let Seen::Admission(uid, Ok(admission)) = asked.seen {
            self.processes[party].keep(uid, admission);
        }
    }

    /// Waits until nothing more happens, and judges the state and what the processes have heard.
    async fn comes_to(&mut self, allowed: Allowed) -> Verdict {
        let background = self.background();
        let restless = allowed.is_restless(&background) || !background.possible.is_empty();
        let longest = if restless { AT_LAST } else { AT_ONCE };
        sleep(longest).await;
        let seen = self.store.load(&self.key, None).await;
        let seen = seen.map_err(|error| (Check::Records, error.to_string()))?;
        let seen = edge::picture(seen.exists, &seen.head, seen.entries.iter()).timeless();
        self.tell(&format!("-> {seen}"));
        allowed.rest(&background).check(&seen)?;
        if seen.tokens < self.known.tokens {
            return Err((Check::Fencing, "tokens have gone back".to_owned()));
        }
        for process in &mut self.processes {
            let heard = process.hear(&seen, self.crowded).await;
            heard.map_err(|what| (Check::Told, what))?;
        }
        self.known = seen;
        Ok(())
    }

    /// The commands that managers issue by themselves.
    fn background(&self) -> Background {
        let mut background = Background::default();
        for process in &self.processes {
            let asker = process.asker();
            for (session, lease_too) in self.dead.iter().copied() {
                background
                    .certain
                    .push((asker, Ask::Expire { session, lease_too }));
            }
            // A grant for which there was nobody goes back, where no stream of grants takes it.
            for name in process.unheard.iter().filter(|_| !asker.takes_ownerless) {
                for running in [false, true] {
                    let (name, token) = (*name, None);
                    let disown = Ask::Disown {
                        name,
                        token,
                        running,
                    };
                    background.possible.push((asker, disown));
                }
            }
            if asker.takes_ownerless {
                background.certain.push((asker, Ask::Promote));
            }
        }
        background
    }

    async fn impatient(&mut self, party: usize, wish: Wish, polls: usize) -> Verdict {
        let process = &self.processes[party];
        let asker = process.asker();
        let admission = process.manager.admit(&self.key, edge::request(wish));
        let admission = poll_times(admission, polls).await;
        let before = Allowed::only(self.known.clone());
        let admit = Ask::Admit(wish);
        let allowed = match admission {
            Some(admission) => {
                let seen = Seen::Admission(wish.uid, admission);
                let asked = Asked {
                    asker,
                    ask: admit,
                    seen,
                };
                let allowed = before.ask(asker, &admit, |answer| fits(answer, &asked.seen));
                self.answered(&[&asked], &allowed)?;
                self.keep(party, asked);
                allowed
            }
            None => {
                let owner = asker.session;
                let (name, uid) = (wish.name, wish.uid);
                let asked = before.ask(asker, &admit, |_| true);
                // An entry that this admission created is taken back.
                let mut after = self.known.clone();
                let created = match after.ask(asker, &admit) {
                    Answer::Runs { created, .. } | Answer::Waits { created, .. } => created,
                    _ => false,
                };
                let taken_back = match created.then(|| after.run(name)).flatten() {
                    Some(run) => {
                        let abandon = Ask::Abandon {
                            name,
                            uid,
                            owner,
                            ticket: run.ticket,
                            token: None,
                        };
                        asked.ask(asker, &abandon, |_| true)
                    }
                    None => {
                        // The entry existed before: it stays, and only its owner may change.
                        self.processes[party].unheard.insert(name);
                        asked
                    }
                };
                before.or(taken_back)
            }
        };
        self.comes_to(allowed).await
    }

    async fn drop_waiter(&mut self, party: usize, which: usize) -> Verdict {
        let process = &mut self.processes[party];
        let mut allowed = Allowed::only(self.known.clone());
        if which < process.waiters.len() {
            let (uid, waiter) = process.waiters.remove(which);
            let (asker, owner) = (process.asker(), process.session());
            let abandon = Ask::Abandon {
                name: edge::number(waiter.run()),
                uid,
                owner,
                ticket: waiter.ticket().get(),
                token: None,
            };
            drop(waiter);
            allowed = allowed.ask(asker, &abandon, |_| true);
        }
        self.comes_to(allowed).await
    }

    async fn drop_lease(&mut self, party: usize, which: usize) -> Verdict {
        let process = &mut self.processes[party];
        let mut allowed = Allowed::only(self.known.clone());
        if let Some(lease) = process.leases.get(which) {
            let (name, token) = (edge::number(lease.run()), lease.token().get());
            let (asker, owner) = (process.asker(), process.session());
            let run = self.known.run(name).filter(|run| match run.place {
                Place::Running { token: held, .. } => held == token,
                _ => false,
            });
            let run = run.filter(|run| !run.durable);
            process.drop_lease(which, run.is_some());
            if let Some(run) = run {
                let abandon = Ask::Abandon {
                    name,
                    uid: run.uid,
                    owner,
                    ticket: run.ticket,
                    token: Some(token),
                };
                allowed = allowed.ask(asker, &abandon, |_| true);
            }
        }
        self.comes_to(allowed).await
    }

    async fn release(&mut self, party: usize, which: usize, how: How) -> Verdict {
        let process = &mut self.processes[party];
        if which >= process.leases.len() {
            return Ok(());
        }
        let lease = process.leases.remove(which);
        let ask = Ask::Release {
            name: edge::number(lease.run()),
            uid: lease.uid().as_str().parse().unwrap(),
            token: Some(lease.token().get()),
            how,
        };
        let asker = process.asker();
        let ending = process.manager.release(lease, edge::outcome(how)).await;
        let seen = Seen::Ending(ending);
        let asked = Asked { asker, ask, seen };
        let allowed = Allowed::only(self.known.clone());
        let allowed = allowed.ask(asker, &ask, |answer| fits(answer, &asked.seen));
        self.answered(&[&asked], &allowed)?;
        self.comes_to(allowed).await
    }

    async fn requeue(&mut self, party: usize, which: usize) -> Verdict {
        let process = &mut self.processes[party];
        if which >= process.leases.len() {
            return Ok(());
        }
        let lease = process.leases.remove(which);
        let uid = lease.uid().as_str().parse().unwrap();
        let (name, token) = (edge::number(lease.run()), lease.token().get());
        let (asker, ask) = (process.asker(), Ask::Requeue { name, token });
        let requeued = process.manager.requeue(lease).await;
        let allowed = Allowed::only(self.known.clone());
        let allowed = match requeued {
            Ok(None) => allowed.ask(asker, &ask, |answer| *answer == Answer::NotHeld),
            Ok(Some(admission)) => {
                let seen = Seen::Admission(uid, Ok(admission));
                let asked = Asked { asker, ask, seen };
                let allowed = allowed.ask(asker, &ask, |answer| fits(answer, &asked.seen));
                self.answered(&[&asked], &allowed)?;
                self.keep(party, asked);
                allowed
            }
            Err(error) => return Err((Check::Answer, error.to_string())),
        };
        if allowed.is_empty() {
            return Err((
                Check::Answer,
                "the lease is not what it was held for".to_owned(),
            ));
        }
        self.comes_to(allowed).await
    }

    async fn close(&mut self, party: usize) -> Verdict {
        let session = self.processes[party].session();
        let closed = self.processes[party].manager.close().await;
        closed.map_err(|error| (Check::Answer, error.to_string()))?;
        self.replace(party).await;
        self.dead.push((session, false));
        // A process that is closing takes no runs over.
        let asker = Asker {
            session,
            takes_ownerless: false,
        };
        let lease_too = false;
        let expire = Ask::Expire { session, lease_too };
        let allowed = Allowed::only(self.known.clone()).ask(asker, &expire, |_| true);
        self.comes_to(allowed).await
    }

    async fn crash(&mut self, party: usize) -> Verdict {
        self.processes[party].gate.cut();
        self.dead.push((self.processes[party].session(), false));
        self.replace(party).await;
        self.comes_to(Allowed::only(self.known.clone())).await
    }

    async fn cut_off(&mut self, party: usize) -> Verdict {
        let former = self.processes[party].session();
        self.processes[party].gate.cut();
        sleep(AT_LAST).await;
        self.processes[party].gate.open();
        sleep(AT_LAST).await;
        self.dead.push((former, false));
        let process = &self.processes[party];
        if process.session() == former {
            return Err((Check::Told, format!("session {former} is thought to live")));
        }
        let mut background = self.background();
        let asker = process.asker();
        let reclaim = |name, uid| (asker, Ask::Reclaim { name, uid, former });
        for (name, uid) in process.awaited() {
            background.certain.push(reclaim(name, uid));
        }
        for name in &process.detached {
            if let Some(run) = self.known.run(*name) {
                background.possible.push(reclaim(*name, run.uid));
            }
        }
        let allowed = Allowed::only(self.known.clone()).rest(&background);
        self.comes_to(allowed).await
    }

    async fn replace(&mut self, party: usize) {
        let new = Process::start(&self.store, self.line, is_controller(party)).await;
        drop(std::mem::replace(&mut self.processes[party], new));
    }
}

/// Two of the processes take over runs without an owner.
fn is_controller(party: usize) -> bool {
    party < 2
}
