//! The manifests in `docs/deploy` are those that are generated.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use pac_kubernetes::install::{Install, StepActions, to_document};

const DEPLOY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/deploy");
const REWRITE: &str = "PAC_WRITE_MANIFESTS";

#[test]
fn the_manifests_in_the_documents_are_what_is_installed() {
    is_written(
        "kubernetes.yaml",
        &to_document(&Install::default()).unwrap(),
    );
    is_written(
        "stepactions.yaml",
        &StepActions::default().to_document().unwrap(),
    );
}

fn is_written(file: &str, generated: &str) {
    let path = format!("{DEPLOY}/{file}");
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(path, generated).unwrap();
        return;
    }
    let written = std::fs::read_to_string(path).unwrap();
    assert!(
        written == generated,
        "docs/deploy/{file} is out of date; write it anew with\n    \
         {REWRITE}=1 cargo xtask test -- the_manifests_in_the_documents"
    );
}
