//! The group of a run, by what Pipelines-as-Code says about it.

use pac_core::Group;

use crate::model::{RunView, stable_hash};
use crate::vocabulary;

/// How the group of a run is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Grouping {
    /// It has one only where it supersedes others: the one that Pipelines-as-Code cancels in
    /// progress.
    #[default]
    IfSuperseding,
    /// Its Pipeline on its branch; for its pull request, where it is for one.
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
            Self::PullRequest => of_pull_request(run),
            Self::IfSuperseding if !supersedes => None,
            // The branch of a pull request may be a fork's, of the same name as one of the
            // Repository's own.
            Self::Branch | Self::IfSuperseding => match pull_request(run) {
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
    named("pull-request", pull_request(run)?, run)
}

/// The pull request that a run is for. A push that has merged one bears its number, too, and is for
/// a branch.
fn pull_request(run: &RunView) -> Option<&str> {
    let event = says(run, vocabulary::EVENT_TYPE).unwrap_or_default();
    let is_push = ["push", "incoming"]
        .iter()
        .any(|one| event.eq_ignore_ascii_case(one));
    says(run, vocabulary::PULL_REQUEST).filter(|_| !is_push)
}

/// With the name of the Pipeline, since the runs of one event are of different ones and must not
/// supersede each other; and with that of the Repository, since several may share a lane.
fn named(kind: &str, which: &str, run: &RunView) -> Option<Group> {
    let pipeline = says(run, vocabulary::ORIGINAL_NAME)?;
    let text = match run.repository() {
        Some(repository) => format!("{kind} {which} {}/{pipeline}", repository.name()),
        None => format!("{kind} {which} {pipeline}"),
    };
    text.parse().ok().or_else(|| shortened(&text))
}

/// The group of a text that is too long for one, or has characters in it that do not show
/// themselves: as much of it as fits, and its hash.
fn shortened(text: &str) -> Option<Group> {
    const MOST: usize = 200;
    let shown: String = text.chars().filter(|c| !c.is_control()).collect();
    let start = shown.get(..shown.floor_char_boundary(MOST.min(shown.len())))?;
    let hash = stable_hash(&[text]);
    let with_start = format!("{start}~{hash:016x}").parse();
    with_start.or_else(|_| format!("~{hash:016x}").parse()).ok()
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
        (vocabulary::REPOSITORY, "website"),
        (vocabulary::SOURCE_BRANCH, "refs/heads/main"),
    ];

    const PULL: &[(&str, &str)] = &[
        (vocabulary::ORIGINAL_NAME, "unit"),
        (vocabulary::REPOSITORY, "website"),
        (vocabulary::SOURCE_BRANCH, "fix"),
        (vocabulary::PULL_REQUEST, "7"),
    ];

    #[test]
    fn a_group_is_a_pipeline_on_a_branch_or_for_a_pull_request() {
        let (push, pull) = (run(PUSH), run(PULL));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(group("branch", &push), some("branch main website/unit"));
        assert_eq!(group("pull-request", &push), None);
        let seventh = some("pull-request 7 website/unit");
        assert_eq!(group("pull-request", &pull), seventh);
        // Its branch may be a fork's.
        assert_eq!(group("branch", &pull), seventh);
        assert_eq!(group("deploy", &push), some("deploy"));
        assert_eq!(Grouping::parse(" a"), None);
        assert_eq!(Grouping::parse(""), None);
        let of_none = run(&[PUSH[0], PUSH[2]]);
        assert_eq!(group("branch", &of_none), some("branch main unit"));
    }

    #[test]
    fn a_push_that_has_merged_a_pull_request_is_one_of_its_branch() {
        let merged = |event: &'static str| {
            let event = (vocabulary::EVENT_TYPE, event);
            let marks = [PUSH, &[(vocabulary::PULL_REQUEST, "7"), event]].concat();
            Grouping::default().of(&run(&marks), true).unwrap()
        };
        for event in ["push", "Push", "incoming"] {
            assert_eq!(merged(event).as_str(), "branch main website/unit");
        }
        for event in ["pull_request", "Merge_Request", "test-comment"] {
            assert_eq!(merged(event).as_str(), "pull-request 7 website/unit");
        }
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
    }

    #[test]
    fn a_branch_whose_name_no_group_can_have_is_a_group_all_the_same() {
        let of = |branch: &str| {
            let branch = (vocabulary::SOURCE_BRANCH, branch);
            let run = run(&[PUSH[0], PUSH[1], branch]);
            Grouping::Branch.of(&run, true).unwrap()
        };
        let long = |end: &str| of(&format!("{}{end}", "x".repeat(300)));
        assert_eq!(long("a"), long("a"));
        assert_ne!(long("a"), long("b"));
        assert!(long("a").as_str().starts_with("branch xxx"));
        for odd in ["a\u{7}b", "a\u{202e}b", "ä\u{200b}"] {
            assert_eq!(of(odd), of(odd));
            assert_ne!(of(odd), of("ab"));
        }
        // The same in every version: the store may have groups that another one has made.
        assert!(long("a").as_str().ends_with("~ab76e9a51aef832f"));
    }
}
