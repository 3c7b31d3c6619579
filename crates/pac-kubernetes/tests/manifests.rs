//! The manifests in `docs/deploy` are those that are generated.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use pac_kubernetes::install::{Install, to_document};

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../docs/deploy/kubernetes.yaml"
);
const REWRITE: &str = "PAC_WRITE_MANIFESTS";

#[test]
fn the_manifests_in_the_documents_are_what_is_installed() {
    let generated = to_document(&Install::default()).unwrap();
    if std::env::var_os(REWRITE).is_some() {
        std::fs::write(FILE, generated).unwrap();
        return;
    }
    let written = std::fs::read_to_string(FILE).unwrap();
    assert!(
        written == generated,
        "docs/deploy/kubernetes.yaml is out of date; write it anew with\n    \
         {REWRITE}=1 cargo xtask test -- the_manifests_in_the_documents"
    );
}
