//! What annotations say about runs, and which runs supersede others of their groups.

use std::collections::HashMap;
use std::sync::Arc;

use pac_core::protocol::Supersedes;
use pac_core::{Group, RepositoryKey};

use super::super::options::Mode;
use super::super::phase::Phase;
use super::{RepositoryState, Seen};
use crate::error::ModelError;
use crate::model::RunView;
use crate::policy::{Policies, QueuePolicies, RepositoryPolicies};

impl Seen {
    /// What annotations of a run and of its Repository say about it; `None` where that Repository is
    /// there and cannot be understood.
    pub(in super::super) fn policies(
        &self,
        queue: &RepositoryKey,
        run: &RunView,
    ) -> Option<Policies> {
        match self.owner(queue, run) {
            Some(RepositoryState::Known(_, policies)) => Some(policies.of_run(run)),
            Some(RepositoryState::Unreadable(_)) => None,
            Some(RepositoryState::Deleted(_)) | None => {
                Some(RepositoryPolicies::default().of_run(run))
            }
        }
    }

    /// The annotations of a run, and of its Repository, that break their rules.
    pub(in super::super) fn faults(&self, queue: &RepositoryKey, run: &RunView) -> Vec<ModelError> {
        let policies = self.policies(queue, run).unwrap_or_default();
        let of_repository = match self.owner(queue, run) {
            Some(RepositoryState::Known(_, policies)) => policies.faults(),
            _ => &[],
        };
        [&policies.invalid, of_repository].concat()
    }

    /// The Repository whose annotations count for a run of a queue.
    fn owner(&self, queue: &RepositoryKey, run: &RunView) -> Option<&RepositoryState> {
        let of_lane = self.is_lane(queue).then(|| run.repository()).flatten();
        self.repository(of_lane.as_ref().unwrap_or(queue))
    }

    /// What annotations of a Repository say about its queue; `None` where it is not there or cannot
    /// be understood.
    pub(in super::super) fn queue_policies(&self, key: &RepositoryKey) -> Option<QueuePolicies> {
        match self.repository(key)? {
            RepositoryState::Known(view, _) => Some(QueuePolicies::of(view)),
            _ => None,
        }
    }

    /// Of the runs of a queue that supersede earlier ones, the newest of each group. One that waits
    /// and cannot get in takes nobody's place.
    pub(in super::super) fn superseding(
        &self,
        queue: &RepositoryKey,
        mode: Mode,
    ) -> HashMap<Group, Arc<RunView>> {
        let limit = self
            .limit(queue)
            .and_then(|effective| effective.limit.get());
        let mut newest: HashMap<Group, Arc<RunView>> = HashMap::new();
        for run in self.views_of(queue) {
            let phase = Phase::in_mode(run, true, mode);
            if !matches!(phase, Phase::Held | Phase::Running) || run.spec_status.is_cancel() {
                continue;
            }
            let policies = self.policies(queue, run);
            let Some(policies) = policies.filter(|one| one.supersedes != Supersedes::None) else {
                continue;
            };
            let Some(group) = policies.group else {
                continue;
            };
            let is_older = |known: &Arc<RunView>| known.created >= run.created;
            if newest.get(&group).is_some_and(is_older) {
                continue;
            }
            let fits = limit.is_none_or(|limit| u32::from(policies.weight.get()) <= limit);
            if phase == Phase::Running || (fits && self.refusal(queue, run).is_none()) {
                newest.insert(group, Arc::clone(run));
            }
        }
        newest
    }
}

/// Whether the place of a run that comes late belongs to another one of its group. Runs of one event
/// are of the same age, and so are those that were created in the same second.
pub(in super::super) fn is_superseded(run: &RunView, newest: &RunView) -> bool {
    newest.created > run.created && !run.is_of_event_of(newest)
}

#[cfg(test)]
mod tests {
    use pac_core::{Limit, Timestamp};

    use super::*;
    use crate::cluster::ClusterEvent;
    use crate::model::{RepositoryView, SpecStatus};
    use crate::vocabulary;

    fn website() -> RepositoryKey {
        "ci/website".parse().unwrap()
    }

    fn seen(annotations: &[(&str, &str)]) -> Seen {
        let mut seen = Seen::new(None);
        let mut view = RepositoryView::new(website()).with_limit(Limit::new(2));
        let annotations = annotations.iter();
        view.annotations
            .extend(annotations.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        seen.observe(ClusterEvent::RepositoryApplied(view));
        seen
    }

    /// A run that is held back, created so many seconds after the first.
    fn held(seen: &mut Seen, name: &str, created: i64, marks: &[(&str, &str)]) {
        let mut run = RunView::new(format!("ci/{name}").parse().unwrap(), name.parse().unwrap());
        run.spec_status = SpecStatus::Pending;
        run.created = Some(Timestamp::from_unix_millis(created * 1_000));
        let always = [
            (vocabulary::REPOSITORY, "website"),
            (vocabulary::HELD, "true"),
        ];
        let marks = always.iter().chain(marks);
        run.annotations
            .extend(marks.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        seen.observe(ClusterEvent::RunApplied(run));
    }

    fn superseding(seen: &Seen) -> Vec<(String, String)> {
        let newest = seen.superseding(&website(), Mode::Alone);
        let newest = newest.iter();
        let mut named: Vec<_> = newest
            .map(|(group, run)| (group.to_string(), run.key.name().to_owned()))
            .collect();
        named.sort();
        named
    }

    #[test]
    fn the_newest_run_of_a_group_that_gets_in_supersedes_the_others() {
        let mut seen = seen(&[(vocabulary::SUPERSEDE, "waiting")]);
        let of = |group: &'static str| (vocabulary::GROUP, group);
        held(&mut seen, "a1", 1, &[of("a")]);
        held(&mut seen, "a2", 5, &[of("a")]);
        held(&mut seen, "a3", 3, &[of("a")]);
        held(&mut seen, "a4", 9, &[of("a"), (vocabulary::WEIGHT, "3")]);
        held(&mut seen, "b", 1, &[of("b")]);
        held(
            &mut seen,
            "c",
            1,
            &[of("c"), (vocabulary::SUPERSEDE, "none")],
        );
        held(&mut seen, "d", 1, &[]);
        let wanted = [("a", "a2"), ("b", "b")];
        let wanted = wanted.map(|(group, run)| (group.to_owned(), run.to_owned()));
        assert_eq!(superseding(&seen), wanted);
    }

    /// Each run is read once: with each compared to each other, this takes minutes.
    #[test]
    fn many_runs_of_many_groups_are_read_in_a_moment() {
        const RUNS: i64 = 10_000;
        let mut seen = seen(&[(vocabulary::SUPERSEDE, "all")]);
        for number in 0..RUNS {
            let (name, group) = (format!("r{number}"), format!("g{}", number / 2));
            held(&mut seen, &name, number, &[(vocabulary::GROUP, &group)]);
        }
        let begun = std::time::Instant::now();
        assert_eq!(i64::try_from(superseding(&seen).len()).unwrap(), RUNS / 2);
        assert!(begun.elapsed().as_secs() < 10, "{:?}", begun.elapsed());
    }
}
