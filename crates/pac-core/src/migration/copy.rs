//! Moves the state of one store of this project into another one: order, tickets and tokens stay.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::report::{Action, MigratedRepository, MigratedRun, MigrationReport};
use super::writer::{Writer, load};
use crate::driver::{Driver, ListFilter};
use crate::error::{Error, ErrorKind};
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::protocol::Changes;
use crate::state::{Entry, EntryState, Head, Policy, RepositoryState, RunKind};
use crate::value::{FencingToken, SessionId, Ticket, Timestamp};

/// How many repositories are listed at once.
const PAGE: usize = 500;

/// Longer than the copy of one repository takes, and clocks differ.
const A_WHILE: Duration = Duration::from_secs(60);

/// Says what [`copy_state`] would do, and writes nothing. Dropping the future stops it.
///
/// # Errors
/// Those of the stores.
pub async fn preview_copy(from: &dyn Driver, to: &dyn Driver) -> Result<MigrationReport, Error> {
    let mut report = MigrationReport::default();
    for key in repositories(from).await? {
        let (source, target) = (load_kept(from, to, &key).await?, load(to, &key).await?);
        report.repositories.push(compare(&key, &source, &target));
    }
    Ok(report)
}

/// Copies every repository of a store into another one, with its limit, its queue, its finished
/// runs (but for those that the target keeps no longer) and its counters, so that tickets and tokens go on where they were; then verifies it by
/// reading both. Removes nothing.
///
/// It may be interrupted at any point, by dropping the future too: running it again finds what is
/// done and does the rest. The controllers of the source should have been stopped: a repository
/// that changed meanwhile is a problem of the report, and running this again brings it up to date.
///
/// Slots of running runs are held by a session that ends here: as after the crash of a controller,
/// any other one takes the runs over within the lease TTL. What a process runs itself cannot be
/// moved, because the process is connected to the source: its repository is a problem of the
/// report, and is not copied.
///
/// # Errors
/// Those of the stores; what was written by then stays.
pub async fn copy_state(from: &dyn Driver, to: &dyn Driver) -> Result<MigrationReport, Error> {
    let mut writer = Writer::open(to).await?;
    let done = copy_all(from, &mut writer).await;
    writer.close().await;
    done
}

/// Removes the repositories of a report from the store that they were copied from. One that has
/// changed since is left there; returns those. Waiting for the answer may be given up: each
/// repository is removed wholly or not at all.
///
/// # Errors
/// `InvalidInput` for a report that is not [complete](MigrationReport::is_complete), else the
/// store's own.
pub async fn remove_copied(
    from: &dyn Driver,
    report: &MigrationReport,
) -> Result<Vec<RepositoryKey>, Error> {
    if !report.is_complete() {
        let message = "the copy is not complete: nothing was removed";
        return Err(Error::new(ErrorKind::InvalidInput, "migrate", message));
    }
    let writer = Writer::open(from).await?;
    let mut left = Vec::new();
    for one in &report.repositories {
        let state = load(from, &one.repository).await?;
        let is_gone = !state.exists();
        if !is_gone && state.head().revision == one.source {
            if writer
                .commit(&one.repository, removal(state.head()))
                .await?
            {
                continue;
            }
        } else if is_gone {
            continue;
        }
        left.push(one.repository.clone());
    }
    writer.close().await;
    Ok(left)
}

async fn copy_all(from: &dyn Driver, writer: &mut Writer<'_>) -> Result<MigrationReport, Error> {
    carry_floor(from, writer).await?;
    let mut report = MigrationReport::default();
    for key in repositories(from).await? {
        let source = load_kept(from, writer.driver(), &key).await?;
        let before = load(writer.driver(), &key).await?;
        let mut done = compare(&key, &source, &before);
        if done.problems.is_empty() {
            let (session, budget) = (writer.session(), writer.entries_per_commit());
            let change = |target: &RepositoryState| {
                // Others may have begun to use it.
                let problems = compare(&key, &source, target).problems;
                Ok(if problems.is_empty() {
                    changes(&source, target, session, budget)
                } else {
                    None
                })
            };
            let after = writer.write(&key, change).await?;
            done.limit = after.head().limit;
            done.problems = verify(&key, &source, &after);
            if load(from, &key).await?.head().revision != source.head().revision {
                let changed = "it changed while it was copied: stop the controllers of the source, \
                               and run this again";
                done.problems.push(changed.to_owned());
            }
        }
        report.repositories.push(done);
    }
    Ok(report)
}

/// Tokens of repositories that were removed from the source must not be given out again, should
/// they come back: the floor of the source becomes that of the target, by the removal of a
/// repository that has got this far.
async fn carry_floor(from: &dyn Driver, writer: &mut Writer<'_>) -> Result<(), Error> {
    let scratch = scratch()?;
    let floor = load(from, &scratch).await?.head().last_token;
    let change = |state: &RepositoryState| {
        let head = state.head();
        if state.exists() {
            return Ok(Some(removal(head)));
        }
        let reached = Head {
            last_token: floor,
            last_ticket: Ticket::new(floor.get()),
            ..head.clone()
        };
        Ok((floor > head.last_token).then(|| Changes {
            head: reached,
            remove: false,
            ..removal(head)
        }))
    };
    writer.write(&scratch, change).await.map(drop)
}

fn scratch() -> Result<RepositoryKey, Error> {
    Ok(RepositoryKey::new("pac-migrate", "floor")?)
}

fn removal(head: &Head) -> Changes {
    Changes {
        expected: head.version(),
        policy_before: head.policy.clone(),
        head: head.clone(),
        entries: Vec::new(),
        alive: Vec::new(),
        adopted: Vec::new(),
        remove: true,
    }
}

async fn repositories(driver: &dyn Driver) -> Result<Vec<RepositoryKey>, Error> {
    let scratch = scratch()?;
    let mut keys: Vec<RepositoryKey> = Vec::new();
    loop {
        let page = driver.list(ListFilter::All, keys.last(), PAGE).await?;
        let is_last = page.len() < PAGE;
        keys.extend(page.into_iter().map(|(key, _)| key));
        if is_last {
            keys.retain(|key| *key != scratch);
            return Ok(keys);
        }
    }
}

/// All of a repository, but for finished runs that the target would let go at once: it would never
/// have all of them.
async fn load_kept(
    from: &dyn Driver,
    to: &dyn Driver,
    key: &RepositoryKey,
) -> Result<RepositoryState, Error> {
    let mut state = load(from, key).await?;
    let retention = to.descriptor().retention;
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = i64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(i64::MAX);
    let soon = Timestamp::from_unix_millis(now).plus(A_WHILE);
    state.forget_finished(soon.minus(retention.age), retention.per_repository, |_| ());
    Ok(state)
}

/// What is to be done about each run, and what forbids to do it.
fn compare(
    key: &RepositoryKey,
    source: &RepositoryState,
    target: &RepositoryState,
) -> MigratedRepository {
    let runs: Vec<_> = in_order(source)
        .into_iter()
        .map(|entry| MigratedRun {
            run: entry.run.clone(),
            action: action(entry, source, target),
            remark: None,
        })
        .collect();
    let mut problems: Vec<_> = runs
        .iter()
        .filter(|run| run.action == Action::Conflict)
        .map(|run| format!("another run named {} is there", run.run))
        .collect();
    let own = in_order(source)
        .into_iter()
        .filter(|entry| entry.kind == RunKind::Ephemeral && !entry.is_finished())
        .count();
    if own > 0 {
        problems.push(format!(
            "{own} runs of `pac exec` are live in the source: wait until they have ended, or cancel \
             them, and run this again"
        ));
    }
    if has_state_of_its_own(source, target) {
        problems.push(format!(
            "the target has a state of its own of this repository: keep that one, or remove it with \
             `pac cleanup {key}`, and run this again"
        ));
    }
    MigratedRepository {
        repository: key.clone(),
        limit: head_of(source, target).limit,
        limit_is_provisional: false,
        runs,
        problems,
        source: source.head().revision,
    }
}

fn action(entry: &Entry, source: &RepositoryState, target: &RepositoryState) -> Action {
    let new = match entry.state {
        EntryState::Queued { .. } => Action::Enqueue,
        EntryState::Started { .. } => Action::Adopt,
        EntryState::Finished { .. } => Action::Record,
    };
    match target.entry(&entry.run) {
        None => new,
        Some(there) if is_same(entry, there) => {
            if progress(there) < progress(entry) {
                new
            } else {
                Action::Present
            }
        }
        // The target has gone on with a new run of that name.
        Some(there) if there.ticket > source.head().last_ticket => Action::Present,
        Some(_) => Action::Conflict,
    }
}

fn is_same(entry: &Entry, there: &Entry) -> bool {
    entry.uid == there.uid && entry.ticket == there.ticket
}

/// How far a run has come. (One that was given back in the source after it had been copied keeps
/// the slot that it had then, until the lease TTL has passed.)
fn progress(entry: &Entry) -> (u8, Option<FencingToken>) {
    let stage = match entry.state {
        EntryState::Queued { .. } => 0,
        EntryState::Started { .. } => 1,
        EntryState::Finished { .. } => 2,
    };
    (stage, entry.token())
}

/// Whether the target was used for this repository before it was copied: tickets and tokens of
/// two histories cannot be told apart.
fn has_state_of_its_own(source: &RepositoryState, target: &RepositoryState) -> bool {
    if !target.exists() {
        return false;
    }
    let tickets: BTreeSet<_> = source.entries().map(|entry| entry.ticket).collect();
    let foreign = |there: &Arc<Entry>| {
        let known = source.entry(&there.run);
        let is_known = known.is_some_and(|entry| is_same(entry, there));
        let is_old = there.ticket <= source.head().last_ticket;
        !is_known && (tickets.contains(&there.ticket) || (is_old && !there.is_finished()))
    };
    let is_shared = source.entries().next().is_none()
        || source.entries().any(|entry| {
            let there = target.entry(&entry.run);
            there.is_some_and(|there| is_same(entry, there))
        });
    !is_shared || target.entries().any(foreign)
}

/// Running runs by their tokens, waiting ones in their order, finished ones by their end.
fn in_order(state: &RepositoryState) -> Vec<&Arc<Entry>> {
    let mut running: Vec<_> = state.entries().filter(|entry| entry.is_started()).collect();
    running.sort_by_key(|entry| entry.token());
    let mut finished: Vec<_> = state
        .entries()
        .filter(|entry| entry.is_finished())
        .collect();
    finished.sort_by_key(|entry| (entry.finished.at(), entry.ticket));
    running
        .into_iter()
        .chain(state.queue())
        .chain(finished)
        .collect()
}

/// The head that the target gets, but for the counts.
fn head_of(source: &RepositoryState, target: &RepositoryState) -> Head {
    let (from, to) = (source.head(), target.head());
    // The target may have heard of a newer limit.
    let limits = if target.exists() && to.limit_version >= from.limit_version {
        to
    } else {
        from
    };
    // Counted with the entries that are written.
    let counted = to.policy.as_deref();
    let (surplus, timed) = counted.map_or((0, 0), |policy| (policy.surplus, policy.timed));
    let policy = limits.policy.as_deref().or(to.policy.as_deref());
    Head {
        limit: limits.limit,
        limit_version: limits.limit_version,
        last_ticket: from.last_ticket.max(to.last_ticket),
        last_token: from.last_token.max(to.last_token),
        policy: policy.map(|policy| {
            Arc::new(Policy {
                surplus,
                timed,
                ..policy.clone()
            })
        }),
        ..to.clone()
    }
}

/// The next commit, of at most `budget` entries; `None` when all is done.
fn changes(
    source: &RepositoryState,
    target: &RepositoryState,
    session: SessionId,
    budget: usize,
) -> Option<Changes> {
    let mut head = head_of(source, target);
    let writes = |entry: &&&Arc<Entry>| action(entry, source, target) != Action::Present;
    let order = in_order(source);
    let entries: Vec<_> = order.iter().filter(writes).take(budget).collect();
    if entries.is_empty() && target.exists() && head == *target.head() {
        return None;
    }
    let mut written = Vec::new();
    let mut adopted: Vec<PipelineRunKey> = Vec::new();
    for entry in entries {
        if let Some(before) = target.entry(&entry.run) {
            head.discount(before);
        }
        head.count(entry);
        if entry.is_started() {
            adopted.push(entry.run.clone());
        }
        written.push(Arc::new(Entry {
            state: moved(entry.state, session),
            revision: target.live_revision(&entry.run),
            ..Entry::clone(entry)
        }));
    }
    Some(Changes {
        entries: written,
        adopted,
        head,
        remove: false,
        ..removal(target.head())
    })
}

/// The sessions of the source are none in the target.
fn moved(state: EntryState, session: SessionId) -> EntryState {
    match state {
        EntryState::Queued { .. } => EntryState::Queued { owner: None },
        EntryState::Started { token, .. } => EntryState::Started {
            token,
            session,
            orphaned: false,
        },
        finished @ EntryState::Finished { .. } => finished,
    }
}

/// What is not as it should be in the target as it was read back.
fn verify(key: &RepositoryKey, source: &RepositoryState, target: &RepositoryState) -> Vec<String> {
    let now = compare(key, source, target);
    let mut problems = now.problems;
    let missing = now.runs.iter().filter(|run| {
        let is_kept = run.action == Action::Present;
        // The store lets finished runs go by its own rules.
        !is_kept && run.action != Action::Record
    });
    problems.extend(missing.map(|run| format!("{} is not there: run this again", run.run)));
    let (from, to) = (source.head(), target.head());
    if to.last_ticket < from.last_ticket || to.last_token < from.last_token {
        problems.push("its counters are behind those of the source: run this again".to_owned());
    }
    let places: BTreeMap<_, _> = target
        .queue()
        .map(|entry| &entry.run)
        .zip(0_usize..)
        .collect();
    let order: Vec<_> = source
        .queue()
        .filter_map(|entry| places.get(&entry.run))
        .collect();
    if !order.is_sorted() {
        problems.push("its queue is not in the order of the source".to_owned());
    }
    problems
}
