//! The drivers of the project, and which of them exist.

use std::path::Path;

/// All drivers; the layout of the first one is the model for the others.
pub(crate) const DRIVERS: [&str; 3] = ["memory", "etcd", "postgres"];

/// The crate of a driver.
pub(crate) fn crate_name(driver: &str) -> String {
    format!("pac-{driver}")
}

/// The drivers that are part of this workspace, in the order of [`DRIVERS`].
pub(crate) fn present(root: &Path) -> Vec<&'static str> {
    DRIVERS
        .into_iter()
        .filter(|driver| {
            let manifest = format!("crates/{}/Cargo.toml", crate_name(driver));
            root.join(manifest).is_file()
        })
        .collect()
}
