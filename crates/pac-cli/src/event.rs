//! What a run was made for, as it is shown.

use serde::Serialize;

use crate::format::cell;

/// How many characters of a branch a table shows.
const BRANCH: usize = 40;

/// How many characters of a commit a table shows.
const COMMIT: usize = 7;

/// What a run was made for, as JSON and YAML have it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(crate) struct EventShape<'a> {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub(crate) kind: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) source_branch: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pull_request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sha: Option<&'a str>,
}

impl EventShape<'_> {
    /// Whether nothing is known of it.
    pub(crate) fn is_empty(&self) -> bool {
        *self == EventShape::default()
    }

    /// It in a cell of a table: `pull_request 12, fix → main, 4f1e2ab` or `push, main, 4f1e2ab`.
    /// A long branch is cut at its end.
    pub(crate) fn words(&self) -> String {
        let event = [self.kind, self.pull_request].into_iter().flatten();
        let event = event.collect::<Vec<_>>().join(" ");
        let branches = [self.source_branch, self.branch].into_iter().flatten();
        let mut branches: Vec<_> = branches.map(branch).collect();
        // A push has the same branch twice.
        branches.dedup();
        let commit: String = self.sha.unwrap_or_default().chars().take(COMMIT).collect();
        let mut parts = vec![event, branches.join(" → "), commit];
        parts.retain(|part| !part.is_empty());
        cell(&parts.join(", "))
    }
}

fn branch(name: &str) -> String {
    let name = name.strip_prefix("refs/heads/").unwrap_or(name);
    if name.chars().count() <= BRANCH {
        return name.to_owned();
    }
    let cut: String = name.chars().take(BRANCH - 1).collect();
    format!("{cut}…")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_says_event_branches_and_commit() {
        let pull_request = EventShape {
            kind: Some("pull_request"),
            branch: Some("main"),
            source_branch: Some("fix/door"),
            pull_request: Some("12"),
            sha: Some("4f1e2ab9c"),
        };
        assert_eq!(
            pull_request.words(),
            "pull_request 12, fix/door → main, 4f1e2ab"
        );
        let push = EventShape {
            kind: Some("push"),
            branch: Some("refs/heads/main"),
            source_branch: Some("main"),
            ..EventShape::default()
        };
        assert_eq!(push.words(), "push, main");
        assert_eq!(EventShape::default().words(), "");
        let long = "ü".repeat(60);
        let cut = EventShape {
            branch: Some(&long),
            ..EventShape::default()
        };
        assert_eq!(cut.words(), format!("{}…", "ü".repeat(39)));
    }
}
