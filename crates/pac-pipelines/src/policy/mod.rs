//! What annotations of a PipelineRun, or of its Repository, say about how it is treated.
//!
//! | annotation (all begin with `concurrency.pipelinesascode.tekton.dev/`) | on | value | without it |
//! | --- | --- | --- | --- |
//! | `priority` | PipelineRun, else Repository | a whole number that fits 32 bits with its sign, such as `10` or `-1`; the runs with the highest start first, in their order of arrival. A change moves a run that waits | 0 |
//! | `limit` | Repository, gate mode | a whole number of at least 1: how many of its runs run at once ([`LIMIT`](vocabulary::LIMIT)) | the limit of its Namespace, else the global limit |
//! | `limit`, `lane-labels`, `lane`, `lane-limit` | Namespace, gate mode | which queue a run belongs to, and how many of it run at once: see [`lanes`](crate::lanes) | Repositories, and their limits |
//!
//! A value that breaks the rule counts as absent, and what is wrong with it is told; only a limit
//! that breaks it, where there is no other, has new runs wait until it is mended. A value on the PipelineRun beats one on
//! the Repository.

use pac_core::Priority;

use crate::error::ModelError;
use crate::model::{RepositoryView, RunView};
use crate::vocabulary;

/// What the annotations say about one run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Policies {
    /// Its priority.
    pub priority: Priority,
    /// The values that break the rule of their annotation, and count as absent.
    pub invalid: Vec<ModelError>,
}

impl Policies {
    /// Reads them off a run and its Repository.
    #[must_use]
    pub fn of(run: &RunView, repository: Option<&RepositoryView>) -> Self {
        let mut policies = Self::default();
        for policy in POLICIES {
            policy.read(run, repository, &mut policies);
        }
        policies
    }
}

/// An annotation that says how a run is treated.
struct Policy {
    /// Its name. Views of runs and of Repositories have to keep it.
    annotation: &'static str,
    /// What a value has to be, for people.
    rule: &'static str,
    /// Takes a value in; false, and nothing is changed, when it breaks the rule.
    take: fn(&str, &mut Policies) -> bool,
}

/// All of them: a further one is a row here, a field of [`Policies`], and its name in
/// [`vocabulary::ANNOTATIONS`] and [`vocabulary::REPOSITORY_ANNOTATIONS`].
const POLICIES: &[Policy] = &[Policy {
    annotation: vocabulary::PRIORITY,
    rule: "must be a whole number from -2147483648 to 2147483647, such as \"10\"",
    take: |value, policies| {
        let number = whole_number(value);
        policies.priority = number.map_or(policies.priority, Priority::new);
        number.is_some()
    },
}];

impl Policy {
    fn read(&self, run: &RunView, repository: Option<&RepositoryView>, policies: &mut Policies) {
        let on_run = run.annotation(self.annotation);
        let on_run = on_run.map(|value| (value, format!("PipelineRun {}", run.key)));
        let on_repository = repository.and_then(|repository| {
            let value = repository.annotations.get(self.annotation)?;
            Some((value.as_str(), format!("Repository {}", repository.key)))
        });
        for (value, object) in on_run.into_iter().chain(on_repository) {
            if (self.take)(value, policies) {
                return;
            }
            let shown: String = value.chars().take(60).collect();
            let field = format!("metadata.annotations.{}", self.annotation);
            let rule = format!("{}, not {shown:?}; it counts as absent", self.rule);
            policies.invalid.push(ModelError::new(object, field, rule));
        }
    }
}

/// A number without blanks, leading zeros or a sign that says nothing.
fn whole_number(text: &str) -> Option<i32> {
    let number: i32 = text.parse().ok()?;
    Some(number).filter(|number| number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(run: Option<&str>, repository: Option<&str>) -> (i32, Vec<String>) {
        let annotation = |value: &str| (vocabulary::PRIORITY.to_owned(), value.to_owned());
        let mut view = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        view.annotations.extend(run.map(annotation));
        let mut owner = RepositoryView::new("ci/website".parse().unwrap());
        owner.annotations.extend(repository.map(annotation));
        let policies = Policies::of(&view, Some(&owner));
        let told = policies.invalid.iter().map(ToString::to_string).collect();
        (policies.priority.get(), told)
    }

    #[test]
    fn the_run_beats_the_repository_and_both_beat_the_default() {
        assert_eq!(of(None, None), (0, vec![]));
        assert_eq!(of(None, Some("-3")), (-3, vec![]));
        assert_eq!(of(Some("10"), Some("-3")), (10, vec![]));
        assert_eq!(of(Some("0"), Some("5")), (0, vec![]));
        let alone = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        assert_eq!(Policies::of(&alone, None).priority, Priority::default());
    }

    #[test]
    fn a_bad_value_is_told_and_counts_as_absent() {
        for bad in [
            "",
            " 1",
            "1 ",
            "+1",
            "01",
            "-0",
            "1.0",
            "high",
            "2147483648",
        ] {
            let (priority, told) = of(Some(bad), Some("4"));
            assert_eq!((priority, told.len()), (4, 1), "{bad:?}");
            assert!(
                told[0].starts_with("PipelineRun ci/a: metadata.annotations."),
                "{told:?}"
            );
            assert!(told[0].contains("counts as absent"), "{told:?}");
        }
        let (priority, told) = of(Some("x"), Some("y"));
        assert_eq!((priority, told.len()), (0, 2));
        assert!(told[1].starts_with("Repository ci/website: "), "{told:?}");
    }

    #[test]
    fn the_views_keep_every_annotation_that_a_policy_reads() {
        for policy in POLICIES {
            assert!(vocabulary::ANNOTATIONS.contains(&policy.annotation));
            assert!(vocabulary::REPOSITORY_ANNOTATIONS.contains(&policy.annotation));
        }
    }
}
