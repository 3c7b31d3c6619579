//! Which runs ask for which sections, as the cluster shows it.

use std::collections::{BTreeMap, BTreeSet};

use pac_core::{Limit, PipelineRunKey, RepositoryKey};

use super::{RepositoryState, Seen};
use crate::integration::limits::EffectiveLimit;
use crate::model::{ResourceVersion, RunView};
use crate::sections::{SectionName, limit_of, sections_of};

/// The runs of each section, and what has changed since it was asked for last.
#[derive(Debug, Default)]
pub(super) struct SectionIndex {
    runs: BTreeMap<RepositoryKey, BTreeSet<PipelineRunKey>>,
    changed: BTreeSet<RepositoryKey>,
    /// The highest version of any Repository, or list of them, that was seen: changes come in
    /// order, so all up to this version are known.
    repositories: Option<ResourceVersion>,
}

impl SectionIndex {
    /// A run was like `before` and is like `after`.
    pub(super) fn replace(&mut self, before: Option<&RunView>, after: Option<&RunView>) {
        // What has ended asks for nothing.
        let of = |view: Option<&RunView>| {
            let view = view.filter(|view| !view.is_done());
            view.map(sections_of).unwrap_or_default()
        };
        let (asked, asks) = (of(before), of(after));
        let Some(run) = after.or(before).map(|view| &view.key) else {
            return;
        };
        for section in asked.difference(&asks) {
            if let Some(runs) = self.runs.get_mut(section) {
                runs.remove(run);
                if runs.is_empty() {
                    self.runs.remove(section);
                }
            }
        }
        for section in &asks {
            let runs = self.runs.entry(section.clone()).or_default();
            runs.insert(run.clone());
        }
        self.changed.extend(asked);
        self.changed.extend(asks);
    }

    /// Repositories were seen of this version.
    pub(super) fn saw_repositories(&mut self, version: Option<ResourceVersion>) {
        self.repositories = self.repositories.max(version);
    }
}

impl Seen {
    /// The sections whose runs have changed since the last call.
    pub(crate) fn take_changed_sections(&mut self) -> BTreeSet<RepositoryKey> {
        std::mem::take(&mut self.sections.changed)
    }

    /// All sections that runs ask for.
    pub(crate) fn sections(&self) -> Vec<RepositoryKey> {
        self.sections.runs.keys().cloned().collect()
    }

    /// The sections of a namespace that runs ask for.
    pub(crate) fn sections_in(&self, namespace: &str) -> Vec<RepositoryKey> {
        let all = self.sections.runs.keys();
        all.filter(|section| section.namespace() == namespace)
            .cloned()
            .collect()
    }

    /// The runs that ask for a section and have not ended.
    pub(crate) fn runs_in_section(&self, section: &RepositoryKey) -> BTreeSet<PipelineRunKey> {
        self.sections.runs.get(section).cloned().unwrap_or_default()
    }

    /// The limit in force for a section, and what it is the newest announcement of. While a
    /// Repository of the namespace cannot be understood, what was `announced` before stays.
    pub(crate) fn section_limit(
        &self,
        section: &RepositoryKey,
        name: &SectionName,
        announced: Option<Limit>,
    ) -> EffectiveLimit {
        let announced = announced.filter(|_| self.is_unsure_in(section.namespace()));
        if let Some(limit) = announced {
            return EffectiveLimit::alone(limit, None);
        }
        let limit = limit_of(name, self.repositories_in(section.namespace()));
        EffectiveLimit::alone(limit, self.sections.repositories.map(Into::into))
    }

    /// Whether there is a Repository in a namespace.
    pub(crate) fn has_repositories_in(&self, namespace: &str) -> bool {
        let mut all = self.repositories.iter();
        all.any(|(key, state)| key.namespace() == namespace && state.exists())
    }

    /// Whether a Repository of a namespace cannot be understood, so that its limits of sections are
    /// not known.
    fn is_unsure_in(&self, namespace: &str) -> bool {
        let mut all = self.repositories.iter();
        all.any(|(key, state)| {
            key.namespace() == namespace && matches!(state, RepositoryState::Unreadable(_))
        })
    }

    fn repositories_in<'a>(
        &'a self,
        namespace: &'a str,
    ) -> impl Iterator<Item = &'a crate::model::RepositoryView> {
        let all = self.repositories.iter();
        all.filter_map(move |(key, state)| match state {
            RepositoryState::Known(view, _) if key.namespace() == namespace => Some(view),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::{ClusterEvent, Listing};
    use crate::model::{Condition, ConditionStatus, RepositoryView};
    use crate::vocabulary;

    fn run(version: u64, sections: &[&str]) -> RunView {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        run.version = Some(ResourceVersion::new(version));
        for section in sections {
            let name = format!("{}{section}", vocabulary::SECTION_PREFIX);
            run.annotations.insert(name, "5-a run".to_owned());
        }
        run
    }

    fn texts(keys: impl IntoIterator<Item = RepositoryKey>) -> Vec<String> {
        keys.into_iter().map(|key| key.to_string()).collect()
    }

    #[test]
    fn a_run_is_in_the_sections_that_it_asks_for_until_it_has_ended() {
        let mut seen = Seen::default();
        let applied = |seen: &mut Seen, run| seen.observe(ClusterEvent::RunApplied(run));
        applied(&mut seen, run(5, &["gpu", "staging"]));
        assert_eq!(texts(seen.take_changed_sections()).len(), 2);
        applied(&mut seen, run(6, &["gpu"]));
        // Both have changed: one run less, and perhaps the request of the other.
        assert_eq!(texts(seen.take_changed_sections()).len(), 2);
        assert_eq!(texts(seen.sections_in("ci")), ["ci/section.gpu"]);
        assert!(seen.sections_in("other").is_empty());
        // A list that shows what is known changes nothing.
        applied(&mut seen, run(6, &["gpu"]));
        assert!(seen.take_changed_sections().is_empty());
        let mut ended = run(7, &["gpu"]);
        ended.succeeded = Some(Condition::new(ConditionStatus::True, "Succeeded"));
        applied(&mut seen, ended);
        assert_eq!(texts(seen.take_changed_sections()), ["ci/section.gpu"]);
        assert!(seen.sections().is_empty());
        applied(&mut seen, run(8, &["gpu"]));
        seen.observe(ClusterEvent::RunDeleted(run(9, &["gpu"])));
        assert!(seen.sections().is_empty());
        assert_eq!(texts(seen.take_changed_sections()), ["ci/section.gpu"]);
    }

    #[test]
    fn a_limit_is_announced_as_of_the_newest_repository_that_was_seen() {
        let mut seen = Seen::default();
        let section: RepositoryKey = "ci/section.gpu".parse().unwrap();
        let limit = |seen: &Seen| {
            let limit = seen.section_limit(&section, &"gpu".parse().unwrap(), None);
            (
                limit.limit.get(),
                limit.version.map(pac_core::LimitVersion::get),
            )
        };
        assert_eq!(limit(&seen), (Some(1), None));
        let repository = |name: &str, version: u64, limits: &str| {
            let mut view = RepositoryView::new(RepositoryKey::new("ci", name).unwrap());
            view.version = Some(ResourceVersion::new(version));
            let name = vocabulary::SECTION_LIMITS.to_owned();
            view.annotations.insert(name, limits.to_owned());
            view
        };
        let applied = ClusterEvent::RepositoryApplied;
        seen.observe(applied(repository("a", 5, "gpu=3")));
        seen.observe(applied(repository("b", 7, "gpu=2")));
        assert_eq!(limit(&seen), (Some(2), Some(7)));
        seen.observe(ClusterEvent::RepositoryDeleted(repository("b", 9, "gpu=2")));
        assert_eq!(limit(&seen), (Some(3), Some(9)));
        assert!(seen.has_repositories_in("ci"));
        let listing = |items| Listing::new(items, Some(ResourceVersion::new(12)));
        seen.replace(listing(Vec::new()), Listing::new(Vec::new(), None));
        assert_eq!(limit(&seen), (Some(1), Some(12)));
        assert!(!seen.has_repositories_in("ci"));
    }
}
