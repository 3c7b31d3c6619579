//! Judges what a controller takes back of its own accord: not what another asker of its
//! application was answered with.

use pac_core::protocol::Command;
use pac_core::state::{Entry, EntryState};

use super::book::Book;
use super::controller::{Controller, WaitingState};
use super::store::Parcel;

impl Controller {
    /// Whether a commit of this controller's leaves alone what its application holds and waits
    /// for. Whatever the application gives up, or ends, it has let go of before.
    pub(super) fn keeps_its_word(&self, parcel: &Parcel, before: &Book, after: &Book) -> bool {
        let taken = |command: &Command| match command {
            Command::Abandon { run, ticket, .. } => {
                let known = before.entry(run).filter(|known| known.ticket == *ticket);
                known.filter(|known| !known.is_finished() && !lives(known, after))
            }
            Command::Disown { run, token, .. } => {
                let known = before.entry(run).filter(|known| is_held(known));
                let known = known.filter(|known| known.token() == Some(*token));
                known.filter(|_| !after.entry(run).is_some_and(|now| is_held(now)))
            }
            _ => None,
        };
        let commands = parcel.commands.iter();
        let mut taken = commands.filter_map(|sent| taken(&sent.command));
        taken.all(|known| !self.was_given(known))
    }

    /// Whether the application holds this run, or waits for it.
    fn was_given(&self, known: &Entry) -> bool {
        let holds = self.leases.iter().any(|lease| {
            let same = lease.grant.entry.ticket == known.ticket;
            same && !lease.is_second && Some(lease.grant.token) == known.token()
        });
        let waits = self.waiting.iter().any(|waiting| {
            waiting.entry.ticket == known.ticket && waiting.state == WaitingState::Waits
        });
        holds || waits
    }
}

/// Whether a run goes on, in the place that it had.
fn lives(known: &Entry, after: &Book) -> bool {
    let now = after.entry(&known.run);
    now.is_some_and(|now| now.ticket == known.ticket && !now.is_finished())
}

fn is_held(entry: &Entry) -> bool {
    matches!(
        entry.state,
        EntryState::Started {
            orphaned: false,
            ..
        }
    )
}
