//! `cargo xtask features`: builds the combinations of features without warnings, and checks
//! that the default one depends on no client of a server.
//!
//! cargo-hack does the first part well. But installing it on a new machine takes longer than
//! this whole stage, and it does not do the second part; the few lines here need only cargo.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run::CommandLine;

/// A program that uses the facade with default features must build none of these.
const NOT_BY_DEFAULT: [&str; 9] = [
    "deadpool",
    "etcd-client",
    "kube",
    "pac-etcd",
    "pac-kubernetes",
    "pac-postgres",
    "rustls",
    "tokio-postgres",
    "tonic",
];

/// The most features for which every combination is built. Of more, each one, each two and all are.
const POWERSET_LIMIT: usize = 3;

/// No program built for production has any of these: they are for tests.
const NOT_IN_PRODUCTION: [&str; 3] = ["pac-etcd-mock", "pac-fuzz", "pac-kubernetes-mock"];

/// The features of production builds, of the facade and of `pac`.
const PRODUCTION: [(&str, &str); 2] = [
    ("pac-concurrency", "full,kubernetes"),
    ("pac-cli", "postgres,etcd,kubernetes"),
];

/// Features that meet no other one in the code: built alone, in no pairs.
const APART: [&str; 11] = [
    "bench",
    "channel",
    "dist",
    "expressions",
    "full",
    "kubernetes",
    "mock",
    "model",
    "mutants",
    "random",
    "testing",
];

/// Built with all others only, by the stage before: alone, their clients would be built anew.
const WITH_ALL_ONLY: [&str; 3] = ["channel", "kubernetes", "mock"];

/// The features of one crate: what each of them enables.
type Features = BTreeMap<String, Vec<String>>;

/// Builds the combinations, then checks the dependencies of the default one.
pub(crate) fn run(root: &Path) -> Result<()> {
    let metadata = CommandLine::new("cargo metadata --format-version 1 --no-deps --locked");
    for (package, features) in packages(&metadata.output(root)?)? {
        let mut combinations = combinations(&features);
        combinations.retain(|some| !some.iter().any(|name| WITH_ALL_ONLY.contains(name)));
        for combination in combinations {
            // Clippy includes all checks of `cargo check`, and denies the warnings of this crate
            // only: RUSTFLAGS would rebuild the dependencies too.
            CommandLine::new("cargo clippy --quiet --locked --no-default-features --package")
                .arg(&package)
                .arg("--features")
                .arg(combination.join(","))
                .arg("--")
                .arg("-Dwarnings")
                .run(root)?;
        }
    }
    let tree = CommandLine::new("cargo tree --package pac-concurrency --edges normal")
        .arg("--prefix=none")
        .arg("--format={p}")
        .arg("--locked");
    prove_default_is_light(&tree.output(root)?)?;
    for (package, features) in PRODUCTION {
        let tree = CommandLine::new("cargo tree --edges normal --prefix=none --locked")
            .arg("--format={p}")
            .arg("--package")
            .arg(package)
            .arg("--features")
            .arg(features);
        prove_no_mock(package, &tree.output(root)?)?;
    }
    println!(
        "the combinations of features build; the default one has no server's client, and no \
         production build has a mock"
    );
    Ok(())
}

/// The members of the workspace with features other than `default`.
fn packages(metadata: &str) -> Result<Vec<(String, Features)>> {
    let metadata: Value = serde_json::from_str(metadata).context("cargo metadata")?;
    let members = metadata.get("packages").and_then(Value::as_array);
    let mut packages = Vec::new();
    for member in members.context("cargo metadata lists no packages")? {
        let name = member.get("name").and_then(Value::as_str);
        let features = member.get("features").cloned().unwrap_or_default();
        let mut features: Features = serde_json::from_value(features).context("features")?;
        features.remove("default");
        if !features.is_empty() {
            packages.push((
                name.context("a package without a name")?.to_owned(),
                features,
            ));
        }
    }
    Ok(packages)
}

/// The combinations to build; all features together are linted before. If two amount to the
/// same, because one feature enables another, only one of them is built.
fn combinations(features: &Features) -> Vec<Vec<&str>> {
    let all = features.keys().map(String::as_str);
    let (apart, names): (Vec<&str>, Vec<&str>) = all.partition(|name| APART.contains(name));
    let mut subsets = if names.len() <= POWERSET_LIMIT {
        powerset(&names)
    } else {
        none_one_two_and_all(&names)
    };
    subsets.extend(apart.into_iter().map(|name| vec![name]));
    let mut seen = BTreeSet::new();
    subsets
        .into_iter()
        .filter(|subset| seen.insert(closure(features, subset)))
        .collect()
}

fn powerset<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut subsets = vec![Vec::new()];
    for name in names {
        let with_name: Vec<Vec<&str>> = subsets
            .iter()
            .map(|subset| subset.iter().copied().chain([*name]).collect())
            .collect();
        subsets.extend(with_name);
    }
    subsets
}

fn none_one_two_and_all<'a>(names: &[&'a str]) -> Vec<Vec<&'a str>> {
    let mut subsets = vec![Vec::new(), names.to_vec()];
    for (at, first) in names.iter().enumerate() {
        subsets.push(vec![first]);
        subsets.extend(
            names
                .iter()
                .skip(at + 1)
                .map(|second| vec![*first, *second]),
        );
    }
    subsets
}

/// All features that are enabled when those of `subset` are.
fn closure<'a>(features: &'a Features, subset: &[&'a str]) -> BTreeSet<&'a str> {
    let mut enabled = BTreeSet::new();
    let mut open = subset.to_vec();
    while let Some(name) = open.pop() {
        // A name that is not a feature of this crate (`dep:name`, `name/feature`) has no entry
        // and is skipped.
        if let Some((name, enables)) = features.get_key_value(name)
            && enabled.insert(name.as_str())
        {
            open.extend(enables.iter().map(String::as_str));
        }
    }
    enabled
}

/// The names of the packages in `tree`: one package per line, its name first.
fn crates(tree: &str) -> BTreeSet<&str> {
    let lines = tree.lines();
    lines.filter_map(|line| line.split(' ').next()).collect()
}

/// `package` was listed with all features of a production build.
fn prove_no_mock(package: &str, tree: &str) -> Result<()> {
    let crates = crates(tree);
    // Otherwise an empty tree would pass, and one without the driver that the mock stands behind.
    for expected in [package, "pac-etcd"] {
        ensure!(
            crates.contains(expected),
            "{expected} is not in the dependency tree of {package}"
        );
    }
    for banned in NOT_IN_PRODUCTION {
        ensure!(
            !crates.contains(banned),
            "{package} depends on {banned} in production; only its feature `mock` may"
        );
    }
    Ok(())
}

fn prove_default_is_light(tree: &str) -> Result<()> {
    let crates = crates(tree);
    // Otherwise an empty tree would pass.
    for expected in ["pac-concurrency", "pac-core"] {
        ensure!(
            crates.contains(expected),
            "{expected} is not in its own dependency tree"
        );
    }
    for banned in NOT_BY_DEFAULT {
        ensure!(
            !crates.contains(banned),
            "pac-concurrency depends on {banned} by default; \
             see `cargo tree -p pac-concurrency -i {banned}`"
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn features(pairs: &[(&str, &[&str])]) -> Features {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        pairs
            .iter()
            .map(|(name, on)| ((*name).to_owned(), owned(on)))
            .collect()
    }

    #[test]
    fn combinations_that_come_to_the_same_are_built_once() {
        let features = features(&[
            ("etcd", &["dep:pac-etcd"]),
            ("every", &["etcd", "memory"]),
            ("memory", &["dep:pac-memory"]),
        ]);
        let combinations = combinations(&features);
        assert_eq!(
            combinations,
            [
                vec![],
                vec!["etcd"],
                vec!["every"],
                vec!["memory"],
                vec!["etcd", "memory"]
            ]
        );
    }

    #[test]
    fn a_feature_that_stands_apart_is_built_in_no_pairs() {
        let features = features(&[("etcd", &[]), ("kubernetes", &[]), ("memory", &[])]);
        assert_eq!(
            combinations(&features),
            [
                vec![],
                vec!["etcd"],
                vec!["memory"],
                vec!["etcd", "memory"],
                vec!["kubernetes"]
            ]
        );
    }

    #[test]
    fn many_features_are_built_alone_in_pairs_and_all_together() {
        let names: Vec<String> = (0..=POWERSET_LIMIT).map(|n| format!("f{n}")).collect();
        let pairs: Vec<(&str, &[&str])> = names.iter().map(|n| (n.as_str(), &[][..])).collect();
        let n = names.len();
        assert_eq!(
            combinations(&features(&pairs)).len(),
            1 + n + n * (n - 1) / 2 + 1
        );
    }

    #[test]
    fn features_are_read_from_the_metadata() {
        let metadata = r#"{"packages": [
            {"name": "plain", "features": {}},
            {"name": "facade", "features": {"default": ["memory"], "memory": ["dep:m"]}}
        ]}"#;
        let packages = packages(metadata).unwrap();
        assert_eq!(
            packages,
            [("facade".to_owned(), features(&[("memory", &["dep:m"])]))]
        );
        assert!(super::packages("{}").is_err());
    }

    #[test]
    fn a_mock_in_a_production_build_is_found() {
        let tree = "pac-cli v0.1.0 (path)\npac-etcd v0.1.0 (path)\ntokio v1.54.0\n";
        prove_no_mock("pac-cli", tree).unwrap();
        for banned in NOT_IN_PRODUCTION {
            let mocked = format!("{tree}{banned} v0.1.0 (path)\n");
            let error = prove_no_mock("pac-cli", &mocked).unwrap_err().to_string();
            assert!(error.contains(banned), "{error}");
        }
        assert!(prove_no_mock("pac-cli", "").is_err());
        assert!(prove_no_mock("pac-cli", "pac-cli v0.1.0\n").is_err());
    }

    #[test]
    fn a_server_s_client_by_default_is_found() {
        let light = "pac-concurrency v0.1.0 (path)\npac-core v0.1.0 (path)\ntokio v1.54.0\n";
        prove_default_is_light(light).unwrap();
        for banned in NOT_BY_DEFAULT {
            let heavy = format!("{light}{banned} v1.0.0\n");
            let error = prove_default_is_light(&heavy).unwrap_err().to_string();
            assert!(error.contains(banned), "{error}");
        }
        assert!(prove_default_is_light("").is_err());
    }
}
