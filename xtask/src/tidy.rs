//! `cargo xtask tidy`: the rules of this repository that no other tool checks.
//!
//! A rule is a function from the [`Tree`] to its breaches. It reads neither the disk nor the
//! environment, so that a test can pass it a tree with a breach.

mod docs;
mod layout;
mod lines;
mod manifests;
mod sql;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::run::CommandLine;
use crate::tools;

/// Every rule, in the order in which they report.
const RULES: [fn(&Tree) -> Vec<Breach>; 17] = [
    layout::top_level,
    layout::file_length,
    layout::drivers_alike,
    lines::unfinished,
    lines::machine_paths,
    lines::outside_the_repository,
    lines::reasons,
    manifests::lints_are_inherited,
    manifests::package_data_is_inherited,
    manifests::every_test_file_runs,
    manifests::xtask_stands_apart,
    sql::calls_are_qualified,
    sql::functions_are_bound,
    docs::links_resolve,
    docs::readme_commands,
    docs::promised_tests_exist,
    docs::ci_script,
];

/// Checks all rules and prints every breach.
pub(crate) fn run(root: &Path) -> Result<()> {
    tools::ensure(root, &tools::GIT)?;
    let tree = Tree::read(root)?;
    let breaches: Vec<Breach> = RULES.iter().flat_map(|rule| rule(&tree)).collect();
    for breach in &breaches {
        println!("{breach}");
    }
    if !breaches.is_empty() {
        bail!(
            "rules of this repository broken in {} places",
            breaches.len()
        );
    }
    println!("{} files keep the rules", tree.files.len());
    Ok(())
}

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    path: String,
    /// Counted from 1; a breach of the whole file is at line 1.
    line: usize,
    rule: &'static str,
    cure: String,
}

impl Breach {
    fn new(path: &str, line: usize, rule: &'static str, cure: impl Into<String>) -> Self {
        let (path, cure) = (path.to_owned(), cure.into());
        Self {
            path,
            line,
            rule,
            cure,
        }
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}: {}: {}",
            self.path, self.line, self.rule, self.cure
        )
    }
}

/// The files of the repository by their path from its root. The text of a
/// file that is not UTF-8 is empty.
#[derive(Debug)]
struct Tree {
    files: BTreeMap<String, String>,
}

impl Tree {
    /// Reads the committed files, and those that `git add --all` would add.
    fn read(root: &Path) -> Result<Self> {
        let list = CommandLine::new("git ls-files -z --cached --others --exclude-standard");
        let mut files = BTreeMap::new();
        for path in list.output(root)?.split_terminator('\0') {
            let absolute = root.join(path);
            // The index still lists files that were just removed.
            if absolute.is_file() {
                let bytes = std::fs::read(&absolute).with_context(|| format!("reading {path}"))?;
                files.insert(
                    path.to_owned(),
                    String::from_utf8(bytes).unwrap_or_default(),
                );
            }
        }
        Ok(Self { files })
    }

    fn text(&self, path: &str) -> Option<&str> {
        self.files.get(path).map(String::as_str)
    }

    fn paths(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// The files of one kind: `(path, text)`.
    fn with_extension(&self, extension: &str) -> impl Iterator<Item = (&str, &str)> {
        self.files
            .iter()
            .filter(move |(path, _)| has_extension(path, extension))
            .map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Whether `path` is a file or a directory that contains one; the root is "".
    fn contains(&self, path: &str) -> bool {
        let directory = format!("{path}/");
        path.is_empty()
            || self.files.contains_key(path)
            || self.paths().any(|file| file.starts_with(&directory))
    }
}

fn has_extension(path: &str, extension: &str) -> bool {
    Path::new(path)
        .extension()
        .is_some_and(|found| found == extension)
}

/// The lines of a text with their numbers, counted from 1.
fn numbered(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tree of the given files.
    pub(super) fn tree(files: &[(&str, &str)]) -> Tree {
        let owned = |&(path, text): &(&str, &str)| (path.to_owned(), text.to_owned());
        Tree {
            files: files.iter().map(owned).collect(),
        }
    }

    /// `file:line` of each breach of one rule.
    pub(super) fn places(rule: fn(&Tree) -> Vec<Breach>, files: &[(&str, &str)]) -> Vec<String> {
        let breaches = rule(&tree(files));
        breaches
            .iter()
            .map(|breach| format!("{}:{}", breach.path, breach.line))
            .collect()
    }

    #[test]
    fn a_breach_names_its_place_its_rule_and_its_cure() {
        let breach = Breach::new("src/lib.rs", 7, "rule", "do this");
        assert_eq!(breach.to_string(), "src/lib.rs:7: rule: do this");
    }

    #[test]
    fn this_repository_is_read_from_git() {
        let tree = Tree::read(&crate::run::root()).unwrap();
        assert!(
            tree.text("xtask/src/tidy.rs")
                .is_some_and(|text| text.contains("RULES"))
        );
        assert!(tree.contains("xtask/src") && tree.contains("Cargo.toml"));
        assert!(!tree.contains("target") && !tree.contains("xtask/sr"));
    }
}
