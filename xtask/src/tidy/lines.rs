//! Rules for the lines of text files.
//!
//! The patterns are assembled by `concat!`, so that this file itself does not break the rules.

use super::{Breach, Tree, has_extension, numbered};

/// Marks of unfinished work.
const UNFINISHED: [&str; 4] = [
    concat!("to", "do!"),
    concat!("unimple", "mented!"),
    concat!("#[ig", "nore"),
    concat!("```", "ignore"),
];

/// The file that switches a test off by name, for a reason that `cargo xtask test` reads and
/// that CI must expect.
const SWITCHES_OFF: &str = "crates/pac-conformance/src/conformance.rs";

/// Directories of a particular machine.
const MACHINE_PATHS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ho", "me/"),
    concat!("/ro", "ot/"),
    concat!("/t", "mp/"),
];

/// A directory that exists beside a clone of the repository only on some machines.
const OUTSIDE: &str = concat!("../sha", "red");

/// The start of an attribute that relaxes a lint.
const RELAXED: [&str; 2] = [concat!("[al", "low("), concat!("[ex", "pect(")];

/// Source text has no mark of unfinished work, and switches no test off.
pub(super) fn unfinished(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        for (number, line) in numbered(text) {
            let marks = UNFINISHED.iter().filter(|mark| line.contains(**mark));
            for mark in marks.filter(|mark| path != SWITCHES_OFF || **mark != UNFINISHED[2]) {
                let cure = format!("finish what `{mark}` leaves open, or take it out");
                breaches.push(Breach::new(path, number, "unfinished", cure));
            }
        }
    }
    breaches
}

/// No text names a directory of the machine that it was written on.
pub(super) fn machine_paths(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in written_by_hand(tree) {
        for (number, line) in numbered(text) {
            for directory in MACHINE_PATHS.iter().filter(|dir| is_absolute_in(line, dir)) {
                let cure = format!("`{directory}` is a path of one machine; use a relative one");
                breaches.push(Breach::new(path, number, "machine-path", cure));
            }
        }
    }
    breaches
}

/// No text refers to anything outside the repository: a clone of it is enough.
pub(super) fn outside_the_repository(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in written_by_hand(tree) {
        for (number, _) in numbered(text).filter(|(_, line)| line.contains(OUTSIDE)) {
            let cure = "it is no part of the repository; copy what is needed";
            breaches.push(Breach::new(path, number, "outside", cure));
        }
    }
    breaches
}

/// Every relaxed lint has a reason.
pub(super) fn reasons(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        for start in RELAXED {
            for (at, _) in text.match_indices(start) {
                let rest = text.get(at..).unwrap_or_default();
                let attribute = rest
                    .split_once(")]")
                    .map_or(rest, |(attribute, _)| attribute);
                if !attribute.contains("reason =") {
                    let number = text.get(..at).unwrap_or_default().matches('\n').count() + 1;
                    let cure = "add `reason = \"…\"` to the relaxed lint";
                    breaches.push(Breach::new(path, number, "reasons", cure));
                }
            }
        }
    }
    breaches
}

/// All files except recorded data and those that cargo writes.
fn written_by_hand(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.files
        .iter()
        .filter(|(path, _)| *path != "Cargo.lock" && !has_extension(path, "jsonl"))
        .map(|(path, text)| (path.as_str(), text.as_str()))
}

/// Whether `directory` occurs in the line as the start of a path. Inside a longer path or an
/// address it does not refer to a machine.
fn is_absolute_in(line: &str, directory: &str) -> bool {
    line.match_indices(directory).any(|(at, _)| {
        let before = line.get(..at).and_then(|before| before.chars().next_back());
        before.is_none_or(|c| !c.is_alphanumeric() && !"._-~}/*".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::places;
    use super::*;

    #[test]
    fn every_mark_of_unfinished_work_is_found() {
        for mark in UNFINISHED {
            let text = format!("fn done() {{}}\n    {mark}\n");
            assert_eq!(places(unfinished, &[("a.rs", &text)]), ["a.rs:2"], "{mark}");
        }
        assert!(places(unfinished, &[("a.rs", "// nothing to do here\n")]).is_empty());
    }

    #[test]
    fn every_machine_path_is_found() {
        for directory in MACHINE_PATHS {
            let text = format!("see\n`{directory}x`\n");
            for file in ["a.md", "a.rs", ".ci/run"] {
                assert_eq!(
                    places(machine_paths, &[(file, &text)]),
                    [format!("{file}:2")]
                );
            }
            let at_the_start = format!("{directory}x");
            assert_eq!(
                places(machine_paths, &[("a.md", &at_the_start)]),
                ["a.md:1"]
            );
        }
    }

    #[test]
    fn a_path_inside_of_another_is_no_machine_path() {
        for directory in MACHINE_PATHS {
            let text = format!("docs{directory}a https://example.org{directory} ..{directory}");
            assert!(
                places(machine_paths, &[("a.md", &text)]).is_empty(),
                "{text}"
            );
        }
    }

    #[test]
    fn a_path_out_of_the_repository_is_found() {
        let text = format!("[package]\nx = {{ path = \"../{OUTSIDE}/x\" }}\n");
        assert_eq!(
            places(outside_the_repository, &[("Cargo.toml", &text)]),
            ["Cargo.toml:2"]
        );
        assert!(places(outside_the_repository, &[("a.jsonl", &text)]).is_empty());
    }

    #[test]
    fn a_relaxed_lint_without_a_reason_is_found() {
        for start in RELAXED {
            let bare = format!("fn a() {{}}\n#{start}dead_code)]\nfn b() {{}}\n");
            assert_eq!(places(reasons, &[("a.rs", &bare)]), ["a.rs:2"]);
            let inner = format!("#!{start}\n    dead_code,\n    unused\n)]\n");
            assert_eq!(places(reasons, &[("a.rs", &inner)]), ["a.rs:1"]);
            let reasoned = format!("#{start}\n    dead_code,\n    reason = \"x\"\n)]\n");
            assert!(places(reasons, &[("a.rs", &reasoned)]).is_empty());
        }
    }
}
