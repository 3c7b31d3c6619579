//! Rules for the manifests of the workspace's members.

use super::{Breach, Tree, numbered};

/// The package data that every member inherits from the workspace.
const INHERITED: [&str; 3] = ["version", "edition", "license"];

/// Every crate inherits the lints of the workspace.
pub(super) fn lints_are_inherited(tree: &Tree) -> Vec<Breach> {
    members(tree)
        .filter(|(_, text)| !section(text, "[lints]").any(|(_, line)| line == "workspace = true"))
        .map(|(path, _)| Breach::new(path, 1, "lints", "add `[lints]` with `workspace = true`"))
        .collect()
}

/// Every crate inherits version, edition and license from the workspace, since all are released
/// together.
pub(super) fn package_data_is_inherited(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (path, text) in members(tree) {
        for key in INHERITED {
            let wanted = format!("{key}.workspace = true");
            if !section(text, "[package]").any(|(_, line)| line == wanted) {
                let cure = format!("write `{wanted}` below `[package]`");
                breaches.push(Breach::new(path, 1, "package-data", cure));
            }
        }
    }
    breaches
}

/// Where a manifest lists its test programs, each file of tests is one of them or a module of
/// `tests/main.rs`: another one would never run.
pub(super) fn every_test_file_runs(tree: &Tree) -> Vec<Breach> {
    let mut breaches = Vec::new();
    for (manifest, text) in members(tree) {
        if !section(text, "[package]").any(|(_, line)| line == "autotests = false") {
            continue;
        }
        let directory = manifest.replace("Cargo.toml", "tests/");
        let main = format!("{directory}main.rs");
        let modules = tree.text(&main).unwrap_or_default();
        for (path, _) in tree.with_extension("rs") {
            let name = path.strip_prefix(&directory);
            let Some(name) = name.and_then(|name| name.strip_suffix(".rs")) else {
                continue;
            };
            let program = format!("name = \"{name}\"");
            let module = format!("mod {name};");
            let runs = name == "main"
                || name.contains('/')
                || modules.lines().any(|line| line == module)
                || text.lines().any(|line| code(line) == program);
            if !runs {
                let cure = format!("write `{module}` in {main}");
                breaches.push(Breach::new(path, 1, "tests", cure));
            }
        }
    }
    breaches
}

/// xtask depends on no crate of the workspace, so that it builds even if the crates that it
/// checks do not.
pub(super) fn xtask_stands_apart(tree: &Tree) -> Vec<Breach> {
    let path = "xtask/Cargo.toml";
    numbered(tree.text(path).unwrap_or_default())
        .filter(|(_, line)| code(line).contains("pac-"))
        .map(|(number, _)| {
            let cure = "xtask depends on no crate of the workspace; call it through cargo";
            Breach::new(path, number, "xtask", cure)
        })
        .collect()
}

/// The manifests of all packages, without that of the workspace itself.
fn members(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.with_extension("toml")
        .filter(|(path, _)| path.ends_with("/Cargo.toml"))
}

/// The lines below a header, up to the next one.
fn section<'a>(text: &'a str, header: &'a str) -> impl Iterator<Item = (usize, &'a str)> {
    numbered(text)
        .map(|(number, line)| (number, code(line)))
        .skip_while(move |(_, line)| *line != header)
        .skip(1)
        .take_while(|(_, line)| !line.starts_with('['))
}

/// A line without its comment and the white space around it.
fn code(line: &str) -> &str {
    line.split_once('#').map_or(line, |(code, _)| code).trim()
}

#[cfg(test)]
mod tests {
    use super::super::tests::places;
    use super::*;

    const GOOD: &str = "[package]\nname = \"x\"\nversion.workspace = true\n\
        edition.workspace = true\nlicense.workspace = true\n\n\
        [lints] # ours\nworkspace = true\n\n[dependencies]\n";

    #[test]
    fn a_good_manifest_passes() {
        let files = [("Cargo.toml", "[workspace]\n"), ("xtask/Cargo.toml", GOOD)];
        for rule in [
            lints_are_inherited,
            package_data_is_inherited,
            xtask_stands_apart,
        ] {
            assert!(places(rule, &files).is_empty());
        }
    }

    #[test]
    fn a_test_file_that_never_runs_is_found() {
        let listed = GOOD.replace(
            "[lints]",
            "autotests = false\n[[test]]\nname = \"own\"\n[lints]",
        );
        let files = [
            ("x/Cargo.toml", listed.as_str()),
            ("x/tests/main.rs", "mod known;\n"),
            ("x/tests/known.rs", ""),
            ("x/tests/own.rs", ""),
            ("x/tests/support/mod.rs", ""),
            ("x/tests/forgotten.rs", ""),
            ("y/Cargo.toml", GOOD),
            ("y/tests/found_by_cargo.rs", ""),
        ];
        assert_eq!(
            places(every_test_file_runs, &files),
            ["x/tests/forgotten.rs:1"]
        );
    }

    #[test]
    fn lints_of_its_own_are_found() {
        for bad in [
            GOOD.replace("[lints]", "[other]"),
            GOOD.replace("[lints] # ours\n", ""),
        ] {
            let places = places(lints_are_inherited, &[("tests/Cargo.toml", &bad)]);
            assert_eq!(places, ["tests/Cargo.toml:1"]);
        }
    }

    #[test]
    fn package_data_of_its_own_is_found() {
        for key in INHERITED {
            let bad = GOOD.replace(&format!("{key}.workspace = true"), "");
            let places = places(package_data_is_inherited, &[("crates/x/Cargo.toml", &bad)]);
            assert_eq!(places, ["crates/x/Cargo.toml:1"], "{key}");
        }
    }

    #[test]
    fn a_dependency_of_xtask_on_the_workspace_is_found() {
        for dependency in [
            "pac-memory.workspace = true",
            "m = { package = \"pac-etcd\" }",
        ] {
            let bad = format!("{GOOD}{dependency}\n");
            assert_eq!(
                places(xtask_stands_apart, &[("xtask/Cargo.toml", &bad)]),
                ["xtask/Cargo.toml:11"]
            );
        }
    }
}
