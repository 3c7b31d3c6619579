//! Moves the state of one store of this project into another one: order, tickets and tokens stay.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::compare::Comparison;
use super::report::MigrationReport;
use super::writer::{Writer, load};
use crate::driver::{Driver, ListFilter};
use crate::error::{Error, ErrorKind};
use crate::name::{PipelineRunKey, RepositoryKey};
use crate::protocol::Changes;
use crate::state::{Entry, EntryState, Head, RepositoryState};
use crate::value::{SessionId, Ticket, Timestamp};

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
        report
            .repositories
            .push(Comparison::of(&source, &target).report(&key));
    }
    Ok(report)
}

/// Copies every repository of a store into another one, with its rules, its queue, its finished
/// runs (but for those that the target keeps no longer) and its counters, so that tickets and tokens
/// go on where they were; then verifies it by reading both. Removes nothing.
///
/// It may be interrupted at any point, by dropping the future too: running it again finds what is
/// done and does the rest. The controllers of the source should have been stopped: a repository
/// that changed meanwhile is a problem of the report, and running this again brings it up to date:
/// its rules and its pause too, unless the repository has gone on in the target. Where that cannot be
/// told, since the target's counters are beyond the source's, as those of a repository are once the
/// floor of the store was carried over, a difference is a problem of the report as well.
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
        let mut done = Comparison::of(&source, &before).report(&key);
        if done.problems.is_empty() {
            let (session, budget) = (writer.session(), writer.entries_per_commit());
            let change = |target: &RepositoryState| {
                // Others may have begun to use it.
                let now = Comparison::of(&source, target);
                Ok(if now.report(&key).problems.is_empty() {
                    changes(&now, target, session, budget)
                } else {
                    None
                })
            };
            let after = writer.write(&key, change).await?;
            done.limit = after.head().limit;
            done.problems = Comparison::of(&source, &after).problems(&key);
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

/// The next commit, of at most `budget` entries; `None` when all is done.
fn changes(
    now: &Comparison<'_>,
    target: &RepositoryState,
    session: SessionId,
    budget: usize,
) -> Option<Changes> {
    let mut head = now.head();
    let mut entries = now.to_write();
    entries.truncate(budget);
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
