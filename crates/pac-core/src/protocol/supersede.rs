//! Superseding more runs than one commit can change: in rounds before the run is admitted.
//!
//! Each round ends as many of the group's waiting runs, or asks as many running ones to end, as go into
//! one commit. The last commit ends what is left and admits the run: so nobody of the group waits, or runs
//! without having been asked to end, once the run has its place. The waiting run whose place the new one
//! gets, or else the first one, is left to the last commit, which is how the place survives the rounds.
//! Where the limit was lowered between two rounds so that the run is too heavy, what the first of them
//! ended has ended.
//!
//! A process that dies between two rounds leaves what it would have left had it died right after the
//! admission, but for the run itself: one of a cluster is admitted by whoever sees it there next, and goes
//! on with the rounds.

use super::command::{Command, Outcome};
use super::plan::Plan;
use super::request::{RunRequest, Supersedes};
use crate::name::PipelineRunKey;
use crate::state::{Entry, Rank, RunOutcome};
use crate::value::Ticket;

impl Plan<'_> {
    /// The round that has to go before an admission, which supersedes more runs than this plan has room
    /// for; `None` where it does not.
    pub(crate) fn round_before(&self, command: &Command) -> Option<Command> {
        let Command::Admit(request) = command else {
            return None;
        };
        request.supersedes()?;
        let left = self.to_change(request).count();
        // One is always left to the admission itself.
        let fits = left <= 1 || self.len().saturating_add(left) <= self.budget();
        let is_let_in = || self.comes(request) && self.refusal(request).is_none();
        (!fits && is_let_in()).then(|| Command::MakeWay(request.clone()))
    }

    /// One round. Starts nothing: what waits behind may be of the group, and the admission comes next.
    pub(super) fn make_way(&mut self, request: &RunRequest) -> Outcome {
        let mut affected = Vec::new();
        if self.comes(request) {
            let place = self.place_for(request).map(|(_, run)| run);
            let kept = place.or_else(|| self.first_superseded(request));
            let entries = self.to_change(request);
            let mut entries: Vec<Entry> = entries
                .filter(|entry| Some(&entry.run) != kept)
                .cloned()
                .collect();
            entries.sort_unstable_by_key(|entry| (entry.is_started(), Rank::of(entry)));
            for entry in entries {
                if self.budget_is_spent() {
                    break;
                }
                affected.push(entry.run.clone());
                match entry.is_started() {
                    true => self.ask_to_end(entry),
                    false => self.end(entry, RunOutcome::Superseded),
                }
            }
        }
        Outcome::Swept {
            affected,
            promoted: Vec::new(),
        }
    }

    /// Whether no store would take more in one commit. Only runs of one name, asked for together, come to
    /// that: they may leave no round to be made before the first of them.
    pub(super) fn is_full(&self) -> bool {
        // A plan leaves half of a commit free, and the run itself needs its record.
        self.len().saturating_add(1) >= self.budget().saturating_mul(2)
    }

    /// The place that a request gets, and the run that has it: the first of those that it supersedes and
    /// that are at least as urgent, so that it goes before nobody whom it would have come after.
    pub(super) fn place_for(&self, request: &RunRequest) -> Option<(Ticket, &PipelineRunKey)> {
        let waiting = self.superseded(request);
        let as_urgent = waiting.filter(|entry| entry.admitted_as() >= request.priority);
        as_urgent.map(|entry| (entry.ticket, &entry.run)).min()
    }

    /// The first waiting run that a request supersedes: as long as there is one, a full queue refuses
    /// the request no more than it did before the first round.
    fn first_superseded(&self, request: &RunRequest) -> Option<&PipelineRunKey> {
        let first = self.superseded(request).min_by_key(|entry| Rank::of(entry));
        first.map(|entry| &entry.run)
    }

    /// The runs whose records a request changes for its group's sake, and this plan has not changed yet.
    fn to_change(&self, request: &RunRequest) -> impl Iterator<Item = &Entry> {
        let (group, supersedes) = request.supersedes().unzip();
        let asks = supersedes == Some(Supersedes::All);
        let runs = group.into_iter().flat_map(|group| self.group(group));
        runs.filter(move |entry| {
            let is_meant = match entry.is_started() {
                true => asks && !entry.is_asked_to_end(),
                false => entry.run != request.run,
            };
            is_meant && self.is_untouched(entry)
        })
    }
}
