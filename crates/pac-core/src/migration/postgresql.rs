//! What the rows of the older layout on PostgreSQL say.

use std::collections::BTreeMap;

use super::legacy::{ClusterFacts, Collector, Does, LeftOut, LegacySource, LegacyState, is_final};
use crate::name::{PipelineRunKey, RepositoryKey};

/// A row of `concurrency_slots`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotRow {
    /// `repository_key`.
    pub repository: String,
    /// `pipeline_run_key`.
    pub run: String,
    /// `running`, `queued` or `released`.
    pub state: String,
    /// Whether `expires_at` has passed by the server's clock.
    pub is_past_expiry: bool,
}

/// Reads the older layout. `slots` are all rows of `concurrency_slots`, ordered by `created_at`,
/// then `id`; `states` are the keys and states of `pipeline_run_states`.
///
/// Rows past `expires_at` are taken as they are: running rows were never renewed, and waiting ones
/// expired after an hour. Only the state of the run says that it is over.
#[must_use]
pub fn postgresql(
    slots: &[SlotRow],
    states: &[(String, String)],
    facts: &ClusterFacts,
) -> LegacyState {
    let mut collector = Collector::new(LegacySource::Postgresql, facts);
    let states: BTreeMap<_, _> = states.iter().map(|(run, state)| (run, state)).collect();
    for slot in slots {
        let what = format!("slot of {:.80} in {:.80}", slot.run, slot.repository);
        let parsed = slot.repository.parse::<RepositoryKey>();
        let parsed = parsed.and_then(|key| Ok((key, slot.run.parse::<PipelineRunKey>()?)));
        let (repository, run) = match parsed {
            Ok(parsed) => parsed,
            Err(invalid) => {
                collector.leave(LeftOut::open(what, invalid.to_string()));
                continue;
            }
        };
        let does = match slot.state.as_str() {
            "running" => Does::Run,
            "queued" => Does::Wait,
            "released" => continue,
            other => {
                let why = format!(
                    "its state {other:.40?} is none of this layout: delete the row if the run is \
                     gone"
                );
                collector.leave(LeftOut::open(what, why));
                continue;
            }
        };
        if let Some(state) = states.get(&slot.run).filter(|state| is_final(state)) {
            let why = format!("it has ended: its state is {state}");
            collector.leave(LeftOut::over(run.as_str(), why));
            continue;
        }
        let remark = slot.is_past_expiry.then_some(match does {
            Does::Run => "its row has expired; rows of running runs were never renewed",
            Does::Wait => "its row has expired, as every row of a waiting run after an hour",
        });
        collector.add(&repository, &run, does, remark);
    }
    collector.finish()
}

#[cfg(test)]
mod tests {
    use super::super::legacy::RunFacts;
    use super::*;

    fn slot(repository: &str, run: &str, state: &str, is_past_expiry: bool) -> SlotRow {
        SlotRow {
            repository: repository.to_owned(),
            run: run.to_owned(),
            state: state.to_owned(),
            is_past_expiry,
        }
    }

    fn names(runs: &[super::super::LegacyRun]) -> Vec<(&str, bool)> {
        let named = runs.iter();
        named
            .map(|run| (run.run.as_str(), run.remark.is_some()))
            .collect()
    }

    #[test]
    fn rows_past_their_expiry_are_brought_along_in_their_order_and_say_so() {
        let slots = [
            slot("ci/web", "ci/b", "running", true),
            slot("ci/web", "ci/a", "running", false),
            slot("ci/web", "ci/z", "queued", true),
            slot("ci/web", "ci/y", "queued", false),
            slot("ci/api", "ci/y", "queued", false),
        ];
        let state = postgresql(&slots, &[], &ClusterFacts::default());
        let web = &state.repositories[&"ci/web".parse().unwrap()];
        assert_eq!(names(&web.running), [("ci/b", true), ("ci/a", false)]);
        assert_eq!(names(&web.queued), [("ci/z", true), ("ci/y", false)]);
        assert_eq!(state.repositories.len(), 2);
        assert_eq!(state.left_out, []);
    }

    #[test]
    fn released_and_ended_runs_are_left_behind_and_what_is_unreadable_keeps_the_old_state() {
        let mut facts = ClusterFacts::default();
        let gone = RunFacts {
            uid: "u".parse().unwrap(),
            repository: None,
            is_over: true,
        };
        facts.runs.insert("ci/c".parse().unwrap(), gone);
        let slots = [
            slot("ci/web", "ci/a", "released", true),
            slot("ci/web", "ci/b", "running", true),
            slot("ci/web", "ci/c", "queued", false),
            slot("ci/web", "ci/d", "paused", false),
            slot("CI", "ci/e", "queued", false),
        ];
        let states = [("ci/b".to_owned(), "failed".to_owned())];
        let state = postgresql(&slots, &states, &facts);
        assert!(state.repositories.is_empty());
        let left: Vec<_> = state.left_out.iter().map(|left| left.is_open).collect();
        assert_eq!(left, [false, false, true, true]);
    }
}
