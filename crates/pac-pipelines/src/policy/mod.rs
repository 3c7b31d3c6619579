//! What annotations of a PipelineRun, or of its Repository, say about how it is treated.
//!
//! | annotation (all begin with `concurrency.pipelinesascode.tekton.dev/`) | on | value | without it |
//! | --- | --- | --- | --- |
//! | `priority` | PipelineRun, else Repository | a whole number that fits 32 bits with its sign, such as `10` or `-1`; the runs with the highest start first, in their order of arrival | 0 |
//! | `weight` | PipelineRun, else Repository | how many slots the run takes, all at once: a whole number from 1 to 65535 | 1 |
//! | `group` | PipelineRun, else Repository | `branch`: the runs of its Repository and Pipeline on its branch, or, where it is for a pull request, for that; `pull-request`: only those for its pull request; any other text of at most 253 bytes: the runs of the queue that say the same | none; of a run that supersedes others, its pull request, or else its branch |
//! | `supersede` | PipelineRun, else Repository | `waiting`: the run takes the place of the earlier runs of its group that wait; `all`: those that run are asked to end, too; `none` | `all` where the run has `pipelinesascode.tekton.dev/cancel-in-progress: "true"`, else `none`. Any other value of that one on a run is `none`, and beats the Repository's `supersede` |
//! | `max-wait` | PipelineRun and Repository: the lower holds | how long the run may wait: a number with `s`, `m` or `h`, such as `90s` or `2h` | for ever |
//! | `max-hold` | PipelineRun and Repository: the lower holds | how long the run may hold its slots, likewise; then it is asked to end, and its slots are free 30 s later at the latest | for ever |
//! | `max-queued` | Repository | how many of its runs may wait: a whole number of at least 0; one more is cancelled | any number |
//! | `order` | Repository | `strict`, or `backfill:K`: up to K lighter runs go before one that does not fit | `strict` |
//! | `pause` | Repository | none of its runs starts: the text says why, `true` says nothing, and `false` is no pause | no pause |
//! | `limit` | Repository, gate mode | a whole number of at least 1: how many of its runs run at once ([`LIMIT`](vocabulary::LIMIT)) | the limit of its Namespace, else the global limit |
//! | `limit`, `lane-labels`, `lane`, `lane-limit` | Namespace, gate mode | which queue a run belongs to, and how many of it run at once: see [`lanes`](crate::lanes) | Repositories, and their limits |
//!
//! A value that breaks the rule counts as absent, and what is wrong with it is told; only a limit
//! that breaks it, where there is no other, has new runs wait until it is mended. A value on the
//! PipelineRun beats one on the Repository, but for the two times, of which the lower holds. A change is heard while a run waits, unless the
//! run could not wait so; what a run does to its group it does once, when it is queued. While a Repository
//! cannot be understood, its runs wait on as they did.
//!
//! A pause that an annotation has begun says so in its reason, and ends with the annotation; one that
//! was begun by other means is neither changed nor ended by it.

mod group;
mod queue;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use pac_core::protocol::{RunRequest, Supersedes};
use pac_core::state::{Terms, Weight};
use pac_core::{Group, Priority};

pub use queue::{PauseStep, QueuePolicies};

use group::Grouping;
use value::{duration, supersedes, whole_number};

use crate::error::ModelError;
use crate::model::{RepositoryView, RunView};
use crate::sections::broken_items;
use crate::vocabulary;

/// What the annotations say about one run.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Policies {
    /// Its priority.
    pub priority: Priority,
    /// How many slots it takes.
    pub weight: Weight,
    /// The group that it belongs to.
    pub group: Option<Group>,
    /// What becomes of the earlier runs of its group.
    pub supersedes: Supersedes,
    /// How long it may wait.
    pub max_wait: Option<Duration>,
    /// How long it may hold its slots.
    pub max_hold: Option<Duration>,
    /// The values that break the rule of their annotation, and count as absent.
    pub invalid: Vec<ModelError>,
    grouping: Grouping,
}

/// What the annotations of a Repository say about its runs, read once for all of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct RepositoryPolicies {
    /// About a run that says nothing itself.
    of_runs: Policies,
    /// The values that break the rule of their annotation, also those about the queue and about
    /// sections.
    faults: Vec<ModelError>,
}

impl RepositoryPolicies {
    /// Reads them off a Repository.
    pub(crate) fn of(repository: &RepositoryView) -> Self {
        let marks = Marks::on_repository(repository);
        let mut of_runs = Policies::default();
        of_runs.read(marks);
        let mut faults = std::mem::take(&mut of_runs.invalid);
        faults.extend(QueuePolicies::of(repository).invalid);
        if let Some(list) = repository.annotations.get(vocabulary::SECTION_LIMITS) {
            let broken = broken_items(list);
            faults.extend(
                broken.map(|item| marks.fault(vocabulary::SECTION_LIMITS, OF_A_SECTION, item)),
            );
        }
        Self { of_runs, faults }
    }

    /// The values that break the rule of their annotation.
    pub(crate) fn faults(&self) -> &[ModelError] {
        &self.faults
    }

    /// What they and the annotations of a run say about it.
    pub(crate) fn of_run(&self, run: &RunView) -> Policies {
        let mut policies = self.of_runs.clone();
        if run.annotations.keys().any(|name| is_policy(name)) {
            policies.read(Marks::on_run(run));
        }
        let supersedes = policies.supersedes != Supersedes::None;
        policies.group = policies.grouping.of(run, supersedes);
        policies
    }
}

impl Policies {
    /// Reads them off a run and its Repository. The faults of both are among
    /// [`invalid`](Self::invalid).
    #[must_use]
    pub fn of(run: &RunView, repository: Option<&RepositoryView>) -> Self {
        let repository = repository.map(RepositoryPolicies::of).unwrap_or_default();
        let mut policies = repository.of_run(run);
        policies.invalid.extend(repository.faults);
        policies
    }

    /// The values on a Repository that break the rule of their annotation, and count as absent for
    /// all of its runs.
    #[must_use]
    pub fn faults(repository: &RepositoryView) -> Vec<ModelError> {
        RepositoryPolicies::of(repository).faults
    }

    /// Takes in what the annotations of an object say; a good value counts in place of what was read
    /// before.
    fn read(&mut self, object: Marks<'_>) {
        for policy in POLICIES {
            policy.read(object, self, |policies| &mut policies.invalid);
        }
    }

    /// A request for a run that is treated so.
    #[must_use]
    pub(crate) fn put_into(&self, request: RunRequest) -> RunRequest {
        let mut request = request
            .with_priority(self.priority)
            .with_weight(self.weight);
        if let Some(group) = &self.group {
            request = request.in_group(group.clone()).superseding(self.supersedes);
        }
        if let Some(longest) = self.max_wait {
            request = request.with_max_wait(longest);
        }
        if let Some(longest) = self.max_hold {
            request = request.with_max_hold(longest);
        }
        request
    }

    /// Whether a run waits as it is to be treated. Where an operator has moved it, its place is the
    /// operator's.
    pub(crate) fn are_those_of(&self, priority: Priority, terms: &Terms) -> bool {
        terms.admitted_as.unwrap_or(priority) == self.priority
            && (terms.weight, &terms.group) == (self.weight, &self.group)
            && (terms.max_wait, terms.max_hold) == (self.max_wait, self.max_hold)
    }
}

/// An annotation that says how a run, or the queue of a Repository, is treated.
struct Policy<P> {
    /// Its name. Views of Repositories have to keep it, and those of runs where it is about runs.
    annotation: &'static str,
    /// What a value has to be, for people.
    rule: &'static str,
    /// Takes a value in; false, and nothing is changed, when it breaks the rule.
    take: fn(&str, &mut P) -> bool,
}

/// All annotations about runs: a further one is a row here, a field of [`Policies`], and its name in
/// [`vocabulary::ANNOTATIONS`] and [`vocabulary::REPOSITORY_ANNOTATIONS`].
const POLICIES: &[Policy<Policies>] = &[
    Policy {
        annotation: vocabulary::PRIORITY,
        rule: "must be a whole number from -2147483648 to 2147483647, such as \"10\"",
        take: |value, policies| {
            let priority = whole_number(value).map(Priority::new);
            set(&mut policies.priority, priority)
        },
    },
    Policy {
        annotation: vocabulary::WEIGHT,
        rule: "must be a whole number from 1 to 65535, such as \"2\"",
        take: |value, policies| {
            let weight = whole_number(value).and_then(Weight::new);
            set(&mut policies.weight, weight)
        },
    },
    Policy {
        annotation: vocabulary::GROUP,
        rule: "must be \"branch\", \"pull-request\", or a text of 1 to 253 bytes of visible characters, \
               without a space at its ends",
        take: |value, policies| set(&mut policies.grouping, Grouping::parse(value)),
    },
    // What Pipelines-as-Code calls it counts as ours, where ours is not there, or breaks its rule.
    Policy {
        annotation: vocabulary::CANCEL_IN_PROGRESS,
        rule: "must be a text",
        take: |value, policies| {
            policies.supersedes = match value {
                "true" => Supersedes::All,
                _ => Supersedes::None,
            };
            true
        },
    },
    Policy {
        annotation: vocabulary::SUPERSEDE,
        rule: "must be \"none\", \"waiting\" or \"all\"",
        take: |value, policies| set(&mut policies.supersedes, supersedes(value)),
    },
    Policy {
        annotation: vocabulary::MAX_WAIT,
        rule: A_TIME,
        take: |value, policies| set_at_most(&mut policies.max_wait, duration(value)),
    },
    Policy {
        annotation: vocabulary::MAX_HOLD,
        rule: A_TIME,
        take: |value, policies| set_at_most(&mut policies.max_hold, duration(value)),
    },
];

const OF_A_SECTION: &str =
    "must be the name of a section and a whole number of at least 1, such as \"gpu=2\"";

const A_TIME: &str =
    "must be a whole number with s, m or h, from \"1s\" to \"8760h\", such as \"90s\" or \"2h\"";

/// Sets a field to what was read; false, and nothing is changed, where that is nothing.
fn set<T>(field: &mut T, read: Option<T>) -> bool {
    let is_read = read.is_some();
    if let Some(value) = read {
        *field = value;
    }
    is_read
}

/// Sets a time to what was read, but to no longer one than was read before: a run asks for no more
/// than its Repository allows.
fn set_at_most(field: &mut Option<Duration>, read: Option<Duration>) -> bool {
    let most = *field;
    let read = read.map(|time| Some(most.map_or(time, |most| time.min(most))));
    set(field, read)
}

/// Whether an annotation of a run is one of those that are read here.
fn is_policy(name: &str) -> bool {
    POLICIES.iter().any(|policy| policy.annotation == name)
}

/// The annotations of an object.
#[derive(Clone, Copy)]
struct Marks<'a> {
    annotations: &'a BTreeMap<String, String>,
    kind: &'static str,
    object: &'a dyn fmt::Display,
}

impl<'a> Marks<'a> {
    fn on_run(run: &'a RunView) -> Self {
        Self {
            annotations: &run.annotations,
            kind: "PipelineRun",
            object: &run.key,
        }
    }

    fn on_repository(repository: &'a RepositoryView) -> Self {
        Self {
            annotations: &repository.annotations,
            kind: "Repository",
            object: &repository.key,
        }
    }

    /// A value of this object that breaks the rule of its annotation.
    fn fault(&self, annotation: &str, rule: &str, value: &str) -> ModelError {
        let shown: String = value.chars().take(60).collect();
        let field = format!("metadata.annotations.{annotation}");
        let rule = format!("{rule}, not {shown:?}; it counts as absent");
        ModelError::new(format!("{} {}", self.kind, self.object), field, rule)
    }
}

impl<P> Policy<P> {
    /// Takes a value in that keeps the rule, and notes one that does not.
    fn read(
        &self,
        object: Marks<'_>,
        policies: &mut P,
        invalid: fn(&mut P) -> &mut Vec<ModelError>,
    ) {
        let Some(value) = object.annotations.get(self.annotation) else {
            return;
        };
        if !(self.take)(value, policies) {
            invalid(policies).push(object.fault(self.annotation, self.rule, value));
        }
    }
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

    fn run(annotations: &[(&str, &str)]) -> RunView {
        let mut view = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        let annotations = annotations.iter();
        view.annotations
            .extend(annotations.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        view
    }

    #[test]
    fn each_annotation_is_a_part_of_the_request() {
        let view = run(&[
            (vocabulary::WEIGHT, "2"),
            (vocabulary::GROUP, "deploy"),
            (vocabulary::SUPERSEDE, "waiting"),
            (vocabulary::MAX_WAIT, "15m"),
            (vocabulary::MAX_HOLD, "2h"),
        ]);
        let policies = Policies::of(&view, None);
        assert!(policies.invalid.is_empty(), "{policies:?}");
        let request = RunRequest::durable(view.key.clone(), view.uid.clone());
        let request = policies.put_into(request);
        let terms = request.terms().unwrap();
        assert_eq!(terms.weight.get(), 2);
        assert_eq!(terms.group.as_ref().unwrap().as_str(), "deploy");
        assert_eq!(terms.max_wait, Some(Duration::from_secs(15 * 60)));
        assert_eq!(terms.max_hold, Some(Duration::from_secs(2 * 60 * 60)));
        assert!(policies.are_those_of(Priority::default(), terms));
        assert!(!policies.are_those_of(Priority::new(1), terms));
        let plain = RunRequest::durable(view.key.clone(), view.uid.clone());
        let unchanged = Policies::of(&run(&[]), None).put_into(plain.clone());
        assert_eq!(unchanged, plain);
    }

    #[test]
    fn bad_values_of_all_of_them_are_told_and_count_as_absent() {
        let view = run(&[
            (vocabulary::WEIGHT, "0"),
            (vocabulary::GROUP, " x"),
            (vocabulary::SUPERSEDE, "some"),
            (vocabulary::MAX_WAIT, "1d"),
            (vocabulary::MAX_HOLD, "soon"),
        ]);
        let mut owner = RepositoryView::new("ci/website".parse().unwrap());
        owner
            .annotations
            .insert(vocabulary::MAX_QUEUED.to_owned(), "x".to_owned());
        let policies = Policies::of(&view, Some(&owner));
        assert_eq!(policies.invalid.len(), 6, "{:?}", policies.invalid);
        owner
            .annotations
            .insert(vocabulary::WEIGHT.to_owned(), "0".to_owned());
        assert_eq!(Policies::faults(&owner).len(), 2);
        let request = RunRequest::durable(view.key.clone(), view.uid.clone());
        assert_eq!(policies.put_into(request.clone()), request);
    }

    #[test]
    fn cancel_in_progress_supersedes_all_unless_ours_says_otherwise() {
        let pipeline = (vocabulary::ORIGINAL_NAME, "unit");
        let pull = (vocabulary::PULL_REQUEST, "7");
        let of = |marks: &[(&str, &str)], repository: Option<&str>| {
            let mut owner = RepositoryView::new("ci/website".parse().unwrap());
            let annotation = |value: &str| (vocabulary::SUPERSEDE.to_owned(), value.to_owned());
            owner.annotations.extend(repository.map(annotation));
            let policies = Policies::of(&run(marks), Some(&owner));
            (
                policies.supersedes,
                policies.group.map(|group| group.to_string()),
            )
        };
        let cancels = (vocabulary::CANCEL_IN_PROGRESS, "true");
        let cancels_not = (vocabulary::CANCEL_IN_PROGRESS, "false");
        let ours = (vocabulary::SUPERSEDE, "waiting");
        let group = Some("pull-request 7 unit".to_owned());
        let all = (Supersedes::All, group.clone());
        assert_eq!(of(&[pipeline, pull], None), (Supersedes::None, None));
        assert_eq!(of(&[pipeline, pull, cancels], None), all);
        assert_eq!(of(&[pipeline, pull, cancels], Some("none")), all);
        assert_eq!(of(&[pipeline, pull], Some("all")), all);
        assert_eq!(
            of(&[pipeline, pull, cancels_not], Some("all")),
            (Supersedes::None, None)
        );
        let waiting = (Supersedes::Waiting, group);
        assert_eq!(of(&[pipeline, pull, cancels, ours], None), waiting);
        // One that breaks the rule counts as absent.
        let broken = (vocabulary::SUPERSEDE, "some");
        assert_eq!(of(&[pipeline, pull, cancels, broken], None), all);
        assert_eq!(of(&[pipeline, pull, broken], Some("all")), all);
    }

    #[test]
    fn a_run_waits_and_holds_no_longer_than_its_repository_allows() {
        let of = |on_run: &str, on_repository: &str| {
            let names = [vocabulary::MAX_WAIT, vocabulary::MAX_HOLD];
            let mut owner = RepositoryView::new("ci/website".parse().unwrap());
            let marks = names.map(|name| (name.to_owned(), on_repository.to_owned()));
            owner.annotations.extend(marks);
            let policies = Policies::of(&run(&names.map(|name| (name, on_run))), Some(&owner));
            assert_eq!(policies.max_wait, policies.max_hold);
            policies.max_wait.map(|time| time.as_secs())
        };
        assert_eq!(of("10s", "1m"), Some(10));
        assert_eq!(of("2h", "1m"), Some(60));
        assert_eq!(of("2h", "never"), Some(2 * 60 * 60));
        assert_eq!(of("never", "1m"), Some(60));
    }

    #[test]
    fn the_views_keep_every_annotation_that_a_policy_reads() {
        for policy in POLICIES {
            assert!(vocabulary::ANNOTATIONS.contains(&policy.annotation));
            // Pipelines-as-Code reads its own on runs alone.
            let is_of_both = policy.annotation != vocabulary::CANCEL_IN_PROGRESS;
            let on_repository = vocabulary::REPOSITORY_ANNOTATIONS.contains(&policy.annotation);
            assert_eq!(on_repository, is_of_both);
        }
        for policy in queue::POLICIES {
            assert!(vocabulary::REPOSITORY_ANNOTATIONS.contains(&policy.annotation));
        }
        assert!(vocabulary::keeps_annotation(vocabulary::CANCEL_IN_PROGRESS));
        assert!(vocabulary::keeps_annotation(vocabulary::SOURCE_BRANCH));
    }
}
