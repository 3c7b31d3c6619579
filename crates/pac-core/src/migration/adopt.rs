//! Brings the state of an older system into a store: decided without asking anything, run by run.

use super::legacy::{Does, LegacyRepository, LegacyRun, LegacySource, LegacyState};
use super::report::{Action, MigratedRepository, MigratedRun, MigrationReport};
use super::writer::{Writer, load};
use crate::driver::Driver;
use crate::error::Error;
use crate::name::{PipelineRunKey, RepositoryKey, Uid};
use crate::protocol::{Changes, Command, Issuer, Plan, RunRequest};
use crate::state::{EntryState, RepositoryState, RunKind};
use crate::value::{Limit, Revision, SessionId};

/// Says what [`adopt_legacy`] would do, and writes nothing.
///
/// Dropping the future stops it.
///
/// # Errors
/// The store's own.
pub async fn preview_legacy(
    driver: &dyn Driver,
    legacy: &LegacyState,
) -> Result<MigrationReport, Error> {
    let mut report = MigrationReport::default();
    for (key, repository) in &legacy.repositories {
        let state = load(driver, key).await?;
        let decided = Decided::of(repository, legacy.source, &state);
        report.repositories.push(decided.report(key, &state));
    }
    report.left_out.clone_from(&legacy.left_out);
    Ok(report)
}

/// Brings the state of an older system into a store: adopts what runs, queues what waits in its
/// order, and verifies the result by reading it back. Removes nothing.
///
/// It may be interrupted at any point, by dropping the future too: running it again finds what is
/// done and does the rest. Runs that have no uid get a stand-in, `migrated:<layout>`; a controller
/// that admits such a run by its real uid replaces the entry, and a waiting one loses its place
/// then, so give the cluster's facts if there are any.
///
/// The slots are held by a session that ends here: as after the crash of a controller, any other
/// one takes the runs over within the lease TTL. Waiting runs have no owner, and any controller
/// starts them.
///
/// # Errors
/// The store's own; what was written by then stays.
pub async fn adopt_legacy(
    driver: &dyn Driver,
    legacy: &LegacyState,
) -> Result<MigrationReport, Error> {
    let mut writer = Writer::open(driver).await?;
    let done = adopt_all(&mut writer, legacy).await;
    writer.close().await;
    done
}

async fn adopt_all(
    writer: &mut Writer<'_>,
    legacy: &LegacyState,
) -> Result<MigrationReport, Error> {
    let mut report = MigrationReport::default();
    for (key, repository) in &legacy.repositories {
        let before = load(writer.driver(), key).await?;
        let decided = Decided::of(repository, legacy.source, &before);
        let mut done = decided.report(key, &before);
        let (session, budget) = (writer.session(), writer.entries_per_commit());
        let change = |state: &RepositoryState| {
            let now = Decided::of(repository, legacy.source, state);
            Ok(now.changes(state, session, budget))
        };
        let after = writer.write(key, change).await?;
        done.limit = after.head().limit;
        done.problems.extend(decided.verify(&after));
        report.repositories.push(done);
    }
    report.left_out.clone_from(&legacy.left_out);
    Ok(report)
}

/// What is to be done about each run of one Repository.
struct Decided<'a> {
    /// Those that run, then those that wait.
    runs: Vec<(&'a LegacyRun, Does, Action)>,
    source: LegacySource,
    limit: Option<Limit>,
}

impl<'a> Decided<'a> {
    fn of(legacy: &'a LegacyRepository, source: LegacySource, state: &RepositoryState) -> Self {
        let running = legacy.running.iter().map(|run| (run, Does::Run));
        let queued = legacy.queued.iter().map(|run| (run, Does::Wait));
        let runs = running.chain(queued);
        Self {
            runs: runs
                .map(|(run, does)| (run, does, decide(run, does, state)))
                .collect(),
            source,
            limit: legacy.limit,
        }
    }

    /// The limit that the Repository has afterwards, and whether that is a guess. The store's own
    /// holds, but for none that nobody announced: every waiting run would start at once then,
    /// although a queue shows that there was a limit.
    fn limit(&self, state: &RepositoryState) -> (Limit, bool) {
        let head = state.head();
        if head.limit != Limit::UNLIMITED || head.limit_version.is_some() {
            return (head.limit, false);
        }
        let count = |wanted| {
            let all = self.runs.iter();
            all.filter(|(_, does, _)| *does == wanted).count()
        };
        match self.limit {
            Some(limit) => (limit, false),
            None if count(Does::Wait) == 0 => (Limit::UNLIMITED, false),
            None => {
                let running = u32::try_from(count(Does::Run)).unwrap_or(u32::MAX);
                (Limit::new(running.max(1)), true)
            }
        }
    }

    fn report(&self, key: &RepositoryKey, state: &RepositoryState) -> MigratedRepository {
        let (limit, limit_is_provisional) = self.limit(state);
        let conflicts = self
            .runs
            .iter()
            .filter(|(_, _, action)| *action == Action::Conflict);
        MigratedRepository {
            repository: key.clone(),
            limit,
            limit_is_provisional,
            runs: self
                .runs
                .iter()
                .map(|(run, _, action)| MigratedRun {
                    run: run.run.clone(),
                    action: *action,
                    remark: run.remark,
                })
                .collect(),
            problems: conflicts
                .map(|(run, _, _)| {
                    format!(
                        "another run named {} is live there: wait until it has ended, or cancel \
                         it, and run this again",
                        run.run
                    )
                })
                .collect(),
            source: Revision::default(),
        }
    }

    /// The next commit, of at most `budget` entries; `None` when all is done.
    fn changes(
        &self,
        state: &RepositoryState,
        session: SessionId,
        budget: usize,
    ) -> Option<Changes> {
        let issuer = Issuer {
            session,
            // What waits is left to the controllers, which can start it.
            takes_ownerless: false,
        };
        let todo =
            |(_, _, action): &&(_, _, Action)| matches!(action, Action::Adopt | Action::Enqueue);
        self.runs.iter().find(todo)?;
        let mut plan = Plan::new(state, issuer, usize::MAX);
        let limit = self.limit(state).0;
        if limit != state.head().limit {
            plan.apply(&Command::limit(limit, None));
        }
        for (run, does, _) in self.runs.iter().filter(todo) {
            if plan.len() >= budget {
                break;
            }
            let uid = uid_of(run, self.source, state)?;
            let request = RunRequest::durable(run.run.clone(), uid);
            match does {
                Does::Run => {
                    plan.apply(&Command::Adopt(request));
                }
                Does::Wait => plan.enlist(&request),
            }
        }
        plan.finish()
    }

    /// What is not as it should be in the state that was read back.
    fn verify(&self, state: &RepositoryState) -> Vec<String> {
        let mut problems = Vec::new();
        let mut before = None;
        for (run, does, action) in &self.runs {
            let name = &run.run;
            let again = "run this again";
            match (state.entry(name), does) {
                (None, _) => problems.push(format!("{name} is not there: {again}")),
                (Some(entry), Does::Run) if entry.is_queued() && *action != Action::Conflict => {
                    problems.push(format!("{name} runs, and has no slot: {again}"));
                }
                (Some(entry), Does::Wait) if entry.is_queued() && *action == Action::Enqueue => {
                    let place = state.position(name);
                    if place <= before {
                        problems.push(format!("{name} is not in its place in the queue"));
                    }
                    before = place;
                }
                _ => {}
            }
        }
        problems
    }
}

/// What is to be done about a run, given what the store knows of its name.
fn decide(run: &LegacyRun, does: Does, state: &RepositoryState) -> Action {
    let new = match does {
        Does::Run => Action::Adopt,
        Does::Wait => Action::Enqueue,
    };
    let Some(entry) = state.entry(&run.run).filter(|entry| !entry.is_abandoned()) else {
        return new;
    };
    if !is_same(run, &entry.uid) {
        // The cluster has replaced the object, unless a process runs the other one.
        let is_live = !entry.is_finished();
        return if is_live && entry.kind == RunKind::Ephemeral {
            Action::Conflict
        } else {
            new
        };
    }
    match (entry.state, does) {
        (EntryState::Queued { .. }, Does::Run) => Action::Adopt,
        _ => Action::Present,
    }
}

/// Whether a run of the older system is the one with this uid, as far as its uid is known.
fn is_same(run: &LegacyRun, uid: &Uid) -> bool {
    let is_stand_in = uid.as_str().starts_with(STAND_IN);
    is_stand_in || run.uid.as_ref().is_none_or(|known| known == uid)
}

/// What the uids start with that runs without one get.
const STAND_IN: &str = "migrated:";

fn uid_of(run: &LegacyRun, source: LegacySource, state: &RepositoryState) -> Option<Uid> {
    let known = |run: &PipelineRunKey| Some(state.entry(run)?.uid.clone());
    // An entry that stays must keep its uid.
    let there = known(&run.run).filter(|uid| is_same(run, uid));
    let there = there.or_else(|| run.uid.clone());
    there.or_else(|| format!("{STAND_IN}{source}").parse().ok())
}
