//! What mutants do to a commit before it is sent: the machine itself has no mistakes.

use std::sync::Arc;

use pac_core::FencingToken;
use pac_core::protocol::{Changes, Command, Plan};
use pac_core::state::{Entry, EntryState, RepositoryState};

use super::controller::{Controller, Terms};
use super::store::Sent;
use super::variant::Variant;

/// Changes a commit as the variant has it, which the machine has planned for these commands.
pub(super) fn tamper(
    controller: &Controller,
    terms: &Terms,
    commands: &[Sent],
    changes: &mut Changes,
) {
    let Some(state) = controller.machine.state() else {
        return;
    };
    let has = |is: fn(&Command) -> bool| commands.iter().any(|sent| is(&sent.command));
    let releases = || has(|command| matches!(command, Command::Release { .. }));
    match terms.variant {
        Variant::RepeatsAsAsked => {
            let mut plan = Plan::new(state, controller.env(terms).issuer(), usize::MAX);
            for sent in commands {
                plan.apply(&sent.command);
            }
            if let Some(as_asked) = plan.finish() {
                *changes = as_asked;
            }
        }
        Variant::HandsOverOnlyWhenFresh => {
            let again = |sent: &Sent| {
                let ask = sent.asker.and_then(|asker| controller.ask(asker));
                ask.is_some_and(|ask| ask.again)
            };
            if commands.iter().any(again) {
                take_grants_out(state, changes);
            }
        }
        Variant::ForgetsItsWaiters => leave_behind(state, changes, |_| true),
        Variant::ForgetsLateWaiters => leave_behind(state, changes, |entry| {
            controller.left_behind.contains(&entry.run)
        }),
        Variant::PromotesTheLatest => promote_the_latest(state, changes),
        Variant::CancelsWithoutHandOver if has(|c| matches!(c, Command::Cancel { .. })) => {
            take_grants_out(state, changes);
        }
        Variant::GrantsToItself if releases() => {
            for (entry, _) in grants(state, changes) {
                if let EntryState::Started { session, .. } = &mut entry.state {
                    *session = controller.session;
                }
            }
        }
        Variant::RepeatsTokens if releases() => {
            let last = state.head().last_token;
            for (entry, _) in grants(state, changes) {
                if let EntryState::Started { token, .. } = &mut entry.state {
                    *token = FencingToken::new(last.get());
                }
            }
            changes.head.last_token = last;
        }
        _ => {}
    }
}

/// The waiting runs that a commit starts, with their entries before.
fn grants<'a>(
    state: &'a RepositoryState,
    changes: &'a mut Changes,
) -> impl Iterator<Item = (&'a mut Entry, &'a Arc<Entry>)> {
    changes.entries.iter_mut().filter_map(|entry| {
        let known = state.entry(&entry.run).filter(|known| known.is_queued())?;
        entry.is_started().then(|| (Arc::make_mut(entry), known))
    })
}

fn promote_the_latest(state: &RepositoryState, changes: &mut Changes) {
    let Some(latest) = state.queue().last() else {
        return;
    };
    let session = latest.owner();
    for (entry, _) in grants(state, changes) {
        if let (
            EntryState::Started {
                token, orphaned, ..
            },
            Some(session),
        ) = (entry.state, session)
        {
            *entry = Entry {
                state: EntryState::Started {
                    token,
                    session,
                    orphaned,
                },
                ..Entry::clone(latest)
            };
            break;
        }
    }
}

fn take_grants_out(state: &RepositoryState, changes: &mut Changes) {
    let granted = grants(state, changes).map(|(entry, _)| entry.run.clone());
    let granted: Vec<_> = granted.collect();
    changes
        .entries
        .retain(|entry| !granted.contains(&entry.run));
    let count = u32::try_from(granted.len()).unwrap();
    changes.head.started -= count;
    changes.head.queued += count;
}

/// Takes out that runs of nobody, or of a session that is over, are waited for again.
fn leave_behind(state: &RepositoryState, changes: &mut Changes, left: impl Fn(&Entry) -> bool) {
    changes.entries.retain(|entry| {
        let known = state.entry(&entry.run);
        let waits = known.is_some_and(|known| known.is_queued()) && entry.is_queued();
        let reclaimed = waits && entry.owner().is_some();
        !(reclaimed && left(entry))
    });
}
