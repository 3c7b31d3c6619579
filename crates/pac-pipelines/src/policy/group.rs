//! The group of a run, by what Pipelines-as-Code says about it.

use pac_core::Group;

use crate::model::RunView;
use crate::vocabulary;

/// How the group of a run is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Grouping {
    /// It has one only where it supersedes others: the one that Pipelines-as-Code cancels in
    /// progress.
    #[default]
    IfSuperseding,
    /// Its Pipeline on its branch.
    Branch,
    /// Its Pipeline for its pull request.
    PullRequest,
    /// This one.
    Named(Group),
}

impl Grouping {
    /// From the value of [`vocabulary::GROUP`].
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text {
            "branch" => Some(Self::Branch),
            "pull-request" => Some(Self::PullRequest),
            other => other.parse().ok().map(Self::Named),
        }
    }

    /// The group of a run; `supersedes` says whether it supersedes others. `None` where it has none:
    /// a run for no pull request, or one that no Pipeline of Pipelines-as-Code was made from.
    pub(super) fn of(&self, run: &RunView, supersedes: bool) -> Option<Group> {
        match self {
            Self::Named(group) => Some(group.clone()),
            Self::Branch => of_branch(run),
            Self::PullRequest => of_pull_request(run),
            Self::IfSuperseding if !supersedes => None,
            Self::IfSuperseding => match says(run, vocabulary::PULL_REQUEST) {
                Some(_) => of_pull_request(run),
                None => of_branch(run),
            },
        }
    }
}

fn of_branch(run: &RunView) -> Option<Group> {
    let branch = says(run, vocabulary::SOURCE_BRANCH)?;
    let branch = branch.strip_prefix("refs/heads/").unwrap_or(branch);
    named("branch", branch, run)
}

fn of_pull_request(run: &RunView) -> Option<Group> {
    named("pull-request", says(run, vocabulary::PULL_REQUEST)?, run)
}

/// With the name of the Pipeline: the runs of one event are of different ones, and must not supersede
/// each other.
fn named(kind: &str, which: &str, run: &RunView) -> Option<Group> {
    let pipeline = says(run, vocabulary::ORIGINAL_NAME)?;
    format!("{kind} {which} {pipeline}").parse().ok()
}

fn says<'a>(run: &'a RunView, name: &str) -> Option<&'a str> {
    let said = run.annotation(name).or_else(|| run.label(name));
    said.filter(|said| !said.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(marks: &[(&str, &str)]) -> RunView {
        let mut run = RunView::new("ci/a".parse().unwrap(), "u".parse().unwrap());
        let marks = marks.iter();
        let marks = marks.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        run.annotations.extend(marks);
        run
    }

    fn group(grouping: &str, run: &RunView) -> Option<String> {
        let group = Grouping::parse(grouping).unwrap().of(run, false);
        group.map(|group| group.to_string())
    }

    const PUSH: &[(&str, &str)] = &[
        (vocabulary::ORIGINAL_NAME, "unit"),
        (vocabulary::SOURCE_BRANCH, "refs/heads/main"),
    ];

    const PULL: &[(&str, &str)] = &[
        (vocabulary::ORIGINAL_NAME, "unit"),
        (vocabulary::SOURCE_BRANCH, "fix"),
        (vocabulary::PULL_REQUEST, "7"),
    ];

    #[test]
    fn a_group_is_a_pipeline_on_a_branch_or_for_a_pull_request() {
        let (push, pull) = (run(PUSH), run(PULL));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(group("branch", &push), some("branch main unit"));
        assert_eq!(group("branch", &pull), some("branch fix unit"));
        assert_eq!(group("pull-request", &push), None);
        assert_eq!(group("pull-request", &pull), some("pull-request 7 unit"));
        assert_eq!(group("deploy", &push), some("deploy"));
        assert_eq!(Grouping::parse(" a"), None);
        assert_eq!(Grouping::parse(""), None);
    }

    #[test]
    fn without_a_word_it_is_what_would_be_cancelled_in_progress() {
        let (push, pull) = (run(PUSH), run(PULL));
        let of = |run, supersedes| Grouping::default().of(run, supersedes);
        assert_eq!(of(&push, false), None);
        assert_eq!(of(&push, true), Grouping::Branch.of(&push, true));
        assert_eq!(of(&pull, true), Grouping::PullRequest.of(&pull, true));
        let without_pipeline = run(&PULL[1..]);
        assert_eq!(of(&without_pipeline, true), None);
        let long = "x".repeat(300);
        let long = run(&[PULL[0], (vocabulary::SOURCE_BRANCH, &long)]);
        assert_eq!(of(&long, true), None);
    }
}
