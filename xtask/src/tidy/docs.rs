//! Rules for the content of the documents.

use super::{Breach, Tree, numbered};
use crate::ci::TEST_COMMAND;

/// The beginning of the command that demonstrates the main job.
const MAIN_COMMAND: &str = "cargo run --release -p pac-cli -- replay ";

/// The command that the CI script must run.
const CI_COMMAND: &str = "cargo xtask ci";

/// A relative link in a Markdown file leads to a file of the repository.
pub(super) fn links_resolve(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in tree.with_extension("md") {
        for (number, line) in prose(text) {
            for link in links(&without_code(line)) {
                let resolved = resolve(path, link);
                if !resolved.is_some_and(|target| tree.contains(&target)) {
                    let cure = format!("`{link}` leads nowhere; correct it or add the file");
                    breaches.push(Breach::new(path, number, "links", cure));
                }
            }
        }
    }
    breaches
}

/// The README contains both commands, and CI runs the tests by the same one.
pub(super) fn readme_commands(tree: &Tree) -> Vec<Breach> {
    let path = "README.md";
    let text = tree.text(path).unwrap_or_default();
    let has = |wanted: &dyn Fn(&str) -> bool| text.lines().any(|line| wanted(line.trim()));
    let mut breaches = Vec::new();
    if !has(&|line| line.starts_with(MAIN_COMMAND)) {
        let cure = format!(
            "show the main job on a line that starts `{}`",
            MAIN_COMMAND.trim()
        );
        breaches.push(Breach::new(path, 1, "commands", cure));
    }
    if !has(&|line| line == TEST_COMMAND) {
        let cure = format!("give `{TEST_COMMAND}`, which CI runs, a line of its own");
        breaches.push(Breach::new(path, 1, "commands", cure));
    }
    breaches
}

/// Each test that SECURITY.md names beside a promise exists: a name with three underscores or more in
/// backquotes.
pub(super) fn promised_tests_exist(tree: &Tree) -> Vec<Breach> {
    let path = "SECURITY.md";
    let mut breaches = Vec::new();
    for (number, line) in numbered(tree.text(path).unwrap_or_default()) {
        for name in line.split('`').skip(1).step_by(2) {
            let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
            if !name.chars().all(plain) || name.matches('_').count() < 3 {
                continue;
            }
            let wanted = format!("fn {name}(");
            if !tree
                .with_extension("rs")
                .any(|(_, text)| text.contains(&wanted))
            {
                let cure =
                    format!("no test is called `{name}`; name the one that holds the promise");
                breaches.push(Breach::new(path, number, "promises", cure));
            }
        }
    }
    breaches
}

/// The CI script runs the same command as a person would.
pub(super) fn ci_script(tree: &Tree) -> Vec<Breach> {
    let path = ".ci/run";
    let script = tree.text(path).unwrap_or_default();
    if script.lines().any(|line| line == CI_COMMAND) {
        return Vec::new();
    }
    let cure = format!("run `{CI_COMMAND}` on a line of its own");
    vec![Breach::new(path, 1, "ci-script", cure)]
}

/// The lines of a Markdown text outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    numbered(text).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fence && !fenced
    })
}

/// A line without its `code spans`.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The targets of links to files of the repository.
fn links(line: &str) -> Vec<&str> {
    let inline = after_each(line, "](", ')');
    let html = after_each(line, "src=\"", '"').chain(after_each(line, "href=\"", '"'));
    let reference = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]: "))
        .map(|(_, target)| target);
    inline
        .chain(html)
        .chain(reference)
        // A title may follow the target.
        .filter_map(|target| target.split_whitespace().next())
        .filter(|target| !target.starts_with('#'))
        .filter(|target| !target.contains("://") && !target.starts_with("mailto:"))
        .collect()
}

fn after_each<'a>(line: &'a str, start: &'a str, end: char) -> impl Iterator<Item = &'a str> {
    line.split(start)
        .skip(1)
        .filter_map(move |rest| rest.split(end).next())
}

/// The path from the root that a link in the file `from` leads to; `None` if it leads out of the
/// repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    let target = link.split('#').next().unwrap_or_default();
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::places;
    use super::*;

    #[test]
    fn a_promise_without_its_test_is_found() {
        let promises = "| a | `is_held_by_it`, `Debug`, `a_b` |\n| b | `is_held_by_none` |\n";
        let test = "    fn is_held_by_it() {}\n";
        let files = [("SECURITY.md", promises), ("x.rs", test)];
        assert_eq!(places(promised_tests_exist, &files), ["SECURITY.md:2"]);
    }

    #[test]
    fn a_dead_link_is_found_in_every_form() {
        for link in [
            "see [x](gone.md)",
            "![x](gone.svg \"a title\")",
            "[x]: gone.md",
            "<img src=\"gone.svg\">",
            "[x](../../outside.md)",
            "`code` and [x](gone.md#there)",
        ] {
            let text = format!("# Title\n\n{link}\n");
            assert_eq!(
                places(links_resolve, &[("docs/a.md", &text)]),
                ["docs/a.md:3"],
                "{link}"
            );
        }
    }

    #[test]
    fn good_links_and_code_pass() {
        let text = "[a](b.md), [up](../README.md#title), [dir](../crates), [here](#here),\n\
            [web](https://example.org/x), `[code](gone.md)`\n```rust\na[x](gone);\n```\n";
        let files = [
            ("docs/a.md", text),
            ("docs/b.md", ""),
            ("README.md", ""),
            ("crates/x", ""),
        ];
        assert_eq!(places(links_resolve, &files), [""; 0]);
    }

    #[test]
    fn a_missing_command_is_found() {
        let good = format!("# x\n```sh\n{MAIN_COMMAND}trace.jsonl\n{TEST_COMMAND}\n```\n");
        assert!(places(readme_commands, &[("README.md", &good)]).is_empty());
        for gone in [MAIN_COMMAND, TEST_COMMAND] {
            let bad = good.replace(gone, "other ");
            assert_eq!(
                places(readme_commands, &[("README.md", &bad)]),
                ["README.md:1"]
            );
        }
        assert_eq!(places(readme_commands, &[]).len(), 2);
    }

    #[test]
    fn a_ci_script_that_does_something_else_is_found() {
        let good = format!("#!/bin/bash\n{CI_COMMAND}\n");
        assert!(places(ci_script, &[(".ci/run", &good)]).is_empty());
        assert_eq!(
            places(ci_script, &[(".ci/run", "cargo test\n")]),
            [".ci/run:1"]
        );
    }
}
