//! Which repositories are due for tidying: those in which this process has seen enough runs end.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use pac_core::RepositoryKey;

/// Most repositories for which the ends of runs are counted. Beyond that all counts are dropped:
/// those repositories are tidied later.
const COUNTED: usize = 10_000;

/// A repository is due for tidying when the number of finished runs that it keeps, divided by this,
/// has ended there since it was last tidied.
const LOOK_AFTER: usize = 4;

/// Tidying reads all entries of the repository, those of waiting runs too. It waits until it reads
/// at most this many for each run that ended since the last time.
const READ_PER_END: usize = 16;

/// The ends of runs, counted by repository.
#[derive(Debug)]
pub(crate) struct Due {
    /// How many runs of a repository have to end before it is due.
    enough: usize,
    ended: Mutex<HashMap<RepositoryKey, Ended>>,
    /// How often this process has tidied.
    rounds: AtomicU64,
}

/// What happened in a repository since it was last tidied.
#[derive(Debug, Default)]
struct Ended {
    /// Runs that ended.
    runs: usize,
    /// Entries that were left then; 0 if there were too few to matter.
    entries: usize,
    /// The round of tidying that did not come to the end of it; 0: there was none.
    unfinished: u64,
}

impl Due {
    /// For a store that keeps so many finished runs of each repository.
    pub(super) fn new(per_repository: usize) -> Self {
        Self {
            enough: (per_repository / LOOK_AFTER).max(1),
            ended: Mutex::default(),
            rounds: AtomicU64::new(0),
        }
    }

    fn ended(&self) -> MutexGuard<'_, HashMap<RepositoryKey, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that runs of a repository have ended.
    pub(super) fn note(&self, repository: &RepositoryKey, ended: usize) {
        if ended > 0 {
            let mut all = self.ended();
            make_room(&mut all, repository);
            all.entry(repository.clone()).or_default().runs += ended;
        }
    }

    /// Begins a round of tidying, in which every repository has one turn.
    pub(super) fn begin_round(&self) -> u64 {
        self.rounds.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The next repository that is due for tidying in this round, and how many runs have ended
    /// there: the one with the most. Those to whose end earlier rounds did not come wait behind the
    /// others, the latest of them last.
    pub(super) fn next(&self, round: u64) -> Option<(RepositoryKey, usize)> {
        let enough = self.enough;
        let ended = self.ended();
        let due = ended.iter().filter(|(_, ended)| {
            ended.unfinished < round && ended.runs >= enough.max(ended.entries / READ_PER_END)
        });
        let first = due.min_by_key(|(_, ended)| (ended.unfinished, Reverse(ended.runs)))?;
        Some((first.0.clone(), first.1.runs))
    }

    /// Notes that a repository was not tidied to the end in this round. It is still due.
    pub(super) fn note_unfinished(&self, repository: &RepositoryKey, round: u64) {
        if let Some(ended) = self.ended().get_mut(repository) {
            ended.unfinished = round;
        }
    }

    /// Makes a repository due for tidying at once.
    pub(super) fn mark(&self, repository: &RepositoryKey) {
        let enough = self.enough;
        let mut all = self.ended();
        make_room(&mut all, repository);
        let ended = all.entry(repository.clone()).or_default();
        ended.runs = ended.runs.max(enough);
        ended.entries = 0;
    }

    /// Notes that a repository was tidied after so many of its runs had ended, and has so many
    /// entries left.
    pub(super) fn tidied(&self, repository: &RepositoryKey, counted: usize, entries: usize) {
        let matter = entries / READ_PER_END > self.enough;
        let mut all = self.ended();
        let Some(ended) = all.get_mut(repository) else {
            return;
        };
        ended.runs = ended.runs.saturating_sub(counted);
        ended.unfinished = 0;
        ended.entries = if matter { entries } else { 0 };
        if ended.runs == 0 && ended.entries == 0 {
            all.remove(repository);
        }
    }
}

fn make_room(ended: &mut HashMap<RepositoryKey, Ended>, repository: &RepositoryKey) {
    if ended.len() >= COUNTED && !ended.contains_key(repository) {
        ended.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_repositories_is_counted_for_ever() {
        let due = Due::new(40);
        for n in 0..=COUNTED {
            let repository = format!("ns/repository-{n}").parse().unwrap();
            due.note(&repository, 1);
        }
        assert_eq!(due.ended().len(), 1);
    }

    #[test]
    fn the_more_entries_there_are_the_more_ends_are_worth_a_look() {
        let due = Due::new(40);
        let [web, api] = ["team/web", "team/api"].map(|key| key.parse::<RepositoryKey>().unwrap());
        due.note(&web, 1);
        due.tidied(&web, 1, 3_200);
        for (ends, expected) in [
            (9, Vec::new()),
            (1, vec![&api]),
            (180, vec![&api]),
            (9, Vec::new()),
            (1, vec![&web, &api]),
        ] {
            due.note(&web, ends);
            due.note(&api, ends);
            let round = due.begin_round();
            let mut had_turns = Vec::new();
            while let Some((repository, counted)) = due.next(round) {
                let left = if repository == web { 3_200 } else { 100 };
                due.tidied(&repository, counted, left);
                had_turns.push(repository);
            }
            let had_turns: Vec<_> = had_turns.iter().collect();
            assert_eq!(had_turns, expected, "after {ends} more");
        }
    }

    /// The largest first; and one that takes too long keeps no other from its turn.
    #[test]
    fn every_repository_has_its_turn() {
        let due = Due::new(40);
        let key = |n: usize| format!("ns/{n}").parse::<RepositoryKey>().unwrap();
        for n in 0..6 {
            due.note(&key(n), 100 - n);
        }
        let mut turns = Vec::new();
        for _ in 0..4 {
            // A round has time for two, and does not come to the end of some.
            let round = due.begin_round();
            for _ in 0..2 {
                let (next, counted) = due.next(round).unwrap();
                // Meanwhile more runs end everywhere.
                for n in 0..6 {
                    due.note(&key(n), 1);
                }
                if next == key(0) || next == key(3) {
                    due.note_unfinished(&next, round);
                } else {
                    due.tidied(&next, counted, 0);
                }
                turns.push(next);
            }
        }
        assert_eq!(turns, [0, 1, 2, 3, 4, 5, 0, 3].map(key));
        // What ended after a turn began is not forgotten with it.
        assert_eq!(due.ended().get(&key(1)).unwrap().runs, 7);
    }
}
