//! Rules for the files of the repository and their lengths.

use std::collections::BTreeSet;

use super::{Breach, Tree};
use crate::drivers::{DRIVERS, crate_name};

/// The files and directories allowed at the root of the repository.
const TOP_LEVEL: [&str; 22] = [
    ".cargo",
    ".ci",
    ".config",
    ".dockerignore",
    ".gitattributes",
    ".gitignore",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "Cargo.lock",
    "Cargo.toml",
    "Dockerfile",
    "LICENSE",
    "README.md",
    "SECURITY.md",
    "clippy.toml",
    "crates",
    "deny.toml",
    "docs",
    "rust-toolchain.toml",
    "rustfmt.toml",
    "tests",
    "xtask",
];

/// A longer file has more than one subject.
const MAX_LINES: usize = 500;

/// Source files that one driver has and the others need not have, with the
/// reason: `("crates/pac-x/src/file.rs", "why only x needs it")`.
const EXTRA_DRIVER_FILES: [(&str, &str); 69] = [
    (
        "crates/pac-etcd/src/client/open.rs",
        "opens the connection to one member, which a store in this process has none of",
    ),
    (
        "crates/pac-etcd/src/client/signs.rs",
        "whether a member lives, which its streams do not tell by themselves",
    ),
    (
        "crates/pac-etcd/src/client/tls.rs",
        "the client library takes certificates as text; PostgreSQL's takes rustls' settings",
    ),
    (
        "crates/pac-etcd/src/options/access.rs",
        "each connection to a member of etcd reads the files anew",
    ),
    (
        "crates/pac-etcd/src/sessions/dead.rs",
        "etcd has no statement that finds dead sessions: their keys are read and compared",
    ),
    (
        "crates/pac-etcd/src/sessions/info.rs",
        "etcd bounds its answers: what is known of many sessions is read in parts",
    ),
    (
        "crates/pac-etcd/src/sessions/witness.rs",
        "to renew an etcd lease takes no permission, so that it proves no life",
    ),
    (
        "crates/pac-etcd/src/store/batch/request.rs",
        "etcd counts the operations of a transaction by levels, and a condition of one fails all of it",
    ),
    (
        "crates/pac-etcd/src/store/chores.rs",
        "what is deleted in many steps would hold up the sweep",
    ),
    (
        "crates/pac-etcd/src/store/due.rs",
        "tidying reads the keys of a whole repository, so that it has to be worth it",
    ),
    (
        "crates/pac-etcd/src/store/entries.rs",
        "etcd has no condition on values: what is read of many entries goes by their keys and leases",
    ),
    (
        "crates/pac-etcd/src/store/left_behind.rs",
        "many keys that are deleted at once leave a member of etcd slow",
    ),
    (
        "crates/pac-etcd/src/store/listing.rs",
        "etcd has keys in the place of rows, and foreign keys among them",
    ),
    (
        "crates/pac-etcd/src/store/oddities.rs",
        "etcd has no constraints: foreign keys and values are passed over and named",
    ),
    (
        "crates/pac-etcd/src/store/pages.rs",
        "etcd bounds its answers by the number of keys, and its messages by their bytes",
    ),
    (
        "crates/pac-etcd/src/store/paced.rs",
        "a delete of many keys at once leaves etcd slow for all of its clients",
    ),
    (
        "crates/pac-etcd/src/store/upkeep.rs",
        "etcd keeps old versions until it is told to compact, and stops when it is full",
    ),
    (
        "crates/pac-postgres/src/client/connect.rs",
        "tries several servers for the one that takes writes; etcd's members all do",
    ),
    (
        "crates/pac-postgres/src/client/guard.rs",
        "PostgreSQL's client library believes a server before it has shown who it is",
    ),
    (
        "crates/pac-postgres/src/client/proof.rs",
        "what is said of a server of PostgreSQL that has not shown who it is",
    ),
    (
        "crates/pac-postgres/src/client/startup.rs",
        "PostgreSQL's client library has no bound for messages, and gives away passwords",
    ),
    (
        "crates/pac-postgres/src/client/link.rs",
        "PostgreSQL answers one statement at a time on a connection: one is kept for what is urgent",
    ),
    (
        "crates/pac-postgres/src/client/pool.rs",
        "PostgreSQL answers one statement at a time on a connection: there is a pool",
    ),
    (
        "crates/pac-postgres/src/client/session.rs",
        "a connection of PostgreSQL has statements of its own",
    ),
    (
        "crates/pac-postgres/src/lane.rs",
        "hints of PostgreSQL are sent by the process itself, whatever load it is under",
    ),
    (
        "crates/pac-etcd/src/record/entry.rs",
        "etcd has values in the place of columns: a run is one",
    ),
    (
        "crates/pac-etcd/src/record/fields.rs",
        "etcd has values in the place of columns: each is an array of fields",
    ),
    (
        "crates/pac-etcd/src/record/part.rs",
        "a value of etcd holds the terms of a run, or a policy, within it",
    ),
    (
        "crates/pac-etcd/src/record/session.rs",
        "etcd keeps a session as one value, in the place of columns",
    ),
    (
        "crates/pac-etcd/src/record/stamp.rs",
        "etcd compares whole values: a stamp is compared as the beginning of one",
    ),
    (
        "crates/pac-postgres/src/places.rs",
        "PostgreSQL keeps old versions of rows: where the current one is has to be remembered",
    ),
    (
        "crates/pac-postgres/src/snapshots.rs",
        "PostgreSQL keeps old versions of rows while a transaction elsewhere may need them",
    ),
    (
        "crates/pac-etcd/src/raw.rs",
        "what the store does by itself, which `pac bench` compares with",
    ),
    (
        "crates/pac-etcd/src/raw/peers.rs",
        "what people use on this store instead, which `pac bench` compares with",
    ),
    (
        "crates/pac-postgres/src/raw.rs",
        "what the store does by itself, which `pac bench` compares with",
    ),
    (
        "crates/pac-postgres/src/raw/peers.rs",
        "what people use on this store instead, which `pac bench` compares with",
    ),
    (
        "crates/pac-postgres/src/schema/trust.rs",
        "a database is shared with other roles, which can make schemas, functions and tables",
    ),
    (
        "crates/pac-postgres/src/schema/status.rs",
        "a database has a schema, with versions that people look at and apply",
    ),
    (
        "crates/pac-postgres/src/schema/privileges.rs",
        "a database has privileges for each table and function",
    ),
    (
        "crates/pac-etcd/src/legacy.rs",
        "what an older system has left in this store, to be brought along",
    ),
    (
        "crates/pac-postgres/src/legacy.rs",
        "what an older system has left in this store, to be brought along",
    ),
    (
        "crates/pac-etcd/src/store/held.rs",
        "what a session holds stands in keys of its own, which are written once",
    ),
    (
        "crates/pac-etcd/src/store/recent.rs",
        "etcd has no index of revisions: what has changed is kept from the stream of changes",
    ),
    (
        "crates/pac-etcd/src/store/refusal.rs",
        "a transaction of etcd does not say why it did not happen",
    ),
    (
        "crates/pac-etcd/src/client.rs",
        "the one file that talks to the client library",
    ),
    (
        "crates/pac-etcd/src/client/cluster.rs",
        "which member is asked, and who else when it fails",
    ),
    (
        "crates/pac-etcd/src/client/failure.rs",
        "the one function that maps the library's errors",
    ),
    ("crates/pac-etcd/src/keys.rs", "etcd has keys, not tables"),
    (
        "crates/pac-etcd/src/record.rs",
        "etcd stores bytes: records with a version",
    ),
    (
        "crates/pac-etcd/src/store/batch.rs",
        "one transaction for many repositories, and what came of each",
    ),
    (
        "crates/pac-etcd/src/store/removal.rs",
        "a removal is a transaction of its own",
    ),
    (
        "crates/pac-etcd/src/store/retention.rs",
        "finished runs go by leases, and by number",
    ),
    (
        "crates/pac-postgres/src/client.rs",
        "the one file that talks to the client library",
    ),
    (
        "crates/pac-postgres/src/client/failure.rs",
        "the one function that maps its errors, with a cure for each",
    ),
    (
        "crates/pac-postgres/src/record.rs",
        "records become rows and arrays; memory keeps them as they are",
    ),
    (
        "crates/pac-postgres/src/schema.rs",
        "tables and functions have versions, and have to be there",
    ),
    (
        "crates/pac-postgres/src/sessions/troubles.rs",
        "sessions are rows, which other programs can lock and spoil",
    ),
    (
        "crates/pac-postgres/src/store/batch.rs",
        "a commit as columns, and as arrays of them",
    ),
    (
        "crates/pac-postgres/src/store/commits.rs",
        "commits go by one of two statements",
    ),
    (
        "crates/pac-postgres/src/store/statement.rs",
        "the text of one of them, made for each shape of commits",
    ),
    (
        "crates/pac-postgres/src/store/retention.rs",
        "finished runs go by two statements, and reads leave out what they have not reached",
    ),
    (
        "crates/pac-postgres/src/tls.rs",
        "libpq's meanings of the SSL modes, which the client library has not",
    ),
    (
        "crates/pac-postgres/src/watch/floods.rs",
        "any role of the database can send notifications",
    ),
    (
        "crates/pac-postgres/src/watch/outbox.rs",
        "hints travel as texts of a largest size",
    ),
    (
        "crates/pac-postgres/src/watch/poll.rs",
        "behind a proxy that pools transactions no notification arrives",
    ),
    (
        "crates/pac-postgres/src/watch/seal.rs",
        "any role of the database hears notifications",
    ),
    (
        "crates/pac-etcd/src/fuzz.rs",
        "reads keys and values that other programs may have written",
    ),
    (
        "crates/pac-postgres/src/record/fuzz.rs",
        "reads rows that other programs may have written",
    ),
    (
        "crates/pac-postgres/src/watch/fuzz.rs",
        "reads notifications that other programs may have sent",
    ),
];

/// The root contains only the expected files and directories.
pub(super) fn top_level(tree: &Tree) -> Vec<Breach> {
    let entries: BTreeSet<&str> = tree
        .paths()
        .map(|path| {
            path.split_once('/')
                .map_or(path, |(directory, _)| directory)
        })
        .collect();
    entries
        .into_iter()
        .filter(|entry| !TOP_LEVEL.contains(entry))
        .map(|entry| Breach::new(entry, 1, "top-level", "move it below crates, docs or tests"))
        .collect()
}

/// No Rust file is longer than [`MAX_LINES`].
pub(super) fn file_length(tree: &Tree) -> Vec<Breach> {
    tree.with_extension("rs")
        .map(|(path, text)| (path, text.lines().count()))
        .filter(|(_, lines)| *lines > MAX_LINES)
        .map(|(path, lines)| {
            let cure = format!("split its {lines} lines by subject; at most {MAX_LINES}");
            Breach::new(path, MAX_LINES + 1, "file-length", cure)
        })
        .collect()
}

/// All drivers have the same source files, so that knowing one means knowing all.
pub(super) fn drivers_alike(tree: &Tree) -> Vec<Breach> {
    let mut drivers = DRIVERS
        .iter()
        .map(|driver| (crate_name(driver), source_files(tree, driver)))
        .filter(|(_, files)| !files.is_empty());
    let Some((model, model_files)) = drivers.next() else {
        return Vec::new();
    };
    let mut breaches = Vec::new();
    for (name, files) in drivers {
        let full = |file: &str| format!("crates/{name}/src/{file}");
        let missing = model_files.difference(&files).map(|file| {
            let cure = format!("add it: {model} has it, and drivers have the same files");
            Breach::new(&full(file), 1, "drivers-alike", cure)
        });
        let extra = files
            .difference(&model_files)
            .filter(|file| {
                !EXTRA_DRIVER_FILES
                    .iter()
                    .any(|(path, _)| *path == full(file))
            })
            .map(|file| {
                let cure = format!(
                    "{model} has no such file: merge it into one that both have, \
                     or give the reason in EXTRA_DRIVER_FILES in {}",
                    file!()
                );
                Breach::new(&full(file), 1, "drivers-alike", cure)
            });
        breaches.extend(missing.chain(extra));
    }
    breaches
}

fn source_files<'a>(tree: &'a Tree, driver: &str) -> BTreeSet<&'a str> {
    let directory = format!("crates/{}/src/", crate_name(driver));
    tree.with_extension("rs")
        .filter_map(|(path, _)| path.strip_prefix(&directory))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{places, tree};
    use super::*;

    #[test]
    fn a_stranger_at_the_root_is_found() {
        let files = [
            ("Cargo.toml", ""),
            ("xtask/src/main.rs", ""),
            ("notes/a.md", ""),
            ("x", ""),
        ];
        assert_eq!(places(top_level, &files), ["notes:1", "x:1"]);
    }

    #[test]
    fn a_long_file_is_found() {
        let (at_most, too_long) = ("//\n".repeat(MAX_LINES), "//\n".repeat(MAX_LINES + 1));
        let files = [
            ("a.rs", at_most.as_str()),
            ("b.rs", &too_long),
            ("c.jsonl", &too_long),
        ];
        assert_eq!(places(file_length, &files), ["b.rs:501"]);
    }

    #[test]
    fn a_driver_with_other_files_is_found() {
        let files = [
            ("crates/pac-memory/src/lib.rs", ""),
            ("crates/pac-memory/src/watch.rs", ""),
            ("crates/pac-postgres/src/lib.rs", ""),
            ("crates/pac-postgres/src/sql/tables.rs", ""),
        ];
        let found = drivers_alike(&tree(&files));
        let paths: Vec<&str> = found.iter().map(|breach| breach.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "crates/pac-postgres/src/watch.rs",
                "crates/pac-postgres/src/sql/tables.rs"
            ]
        );
    }

    #[test]
    fn drivers_with_the_same_files_pass() {
        let files = [
            ("crates/pac-memory/src/lib.rs", ""),
            ("crates/pac-etcd/src/lib.rs", ""),
        ];
        assert!(drivers_alike(&tree(&files)).is_empty());
        assert!(drivers_alike(&tree(&[])).is_empty());
    }
}
