//! Where the programs of this cluster find it: the kubeconfig, and the settings as pods have them
//! mounted.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tempfile::{NamedTempFile, TempDir};

use crate::common::cluster::kubeconfig;

/// The Secret of the controller's settings.
pub(crate) const SECRET: &str = "pac-concurrency-secret";

/// The directories of the pods: those of the ConfigMap and of the Secret.
const MOUNTS: [&str; 2] = ["/etc/pac/config", "/etc/pac/secret"];

/// Clones are the same place.
#[derive(Clone)]
pub(crate) struct Place {
    kubeconfig: Arc<NamedTempFile>,
    directory: Arc<TempDir>,
}

impl Place {
    pub(crate) fn new(url: &str) -> Self {
        Self {
            kubeconfig: Arc::new(kubeconfig(url)),
            directory: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    /// `pac`, for this cluster.
    pub(crate) fn pac(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pac"));
        command.env("KUBECONFIG", self.kubeconfig.path());
        command
    }

    /// `pac`, for this cluster, with the settings of its pods.
    pub(crate) fn pac_with_settings(&self) -> Command {
        let mut command = self.pac();
        for mount in MOUNTS {
            command.arg("--config").arg(self.mounted(mount));
        }
        command
    }

    /// An argument of a pod, as it is here.
    pub(crate) fn argument(&self, argument: &str) -> String {
        match argument.strip_prefix("--config=") {
            Some(mount) => format!("--config={}", self.mounted(mount).display()),
            None => argument.to_owned(),
        }
    }

    /// Mounts the ConfigMap and the Secret: a directory for each, with a file per key.
    pub(crate) fn mount(&self, config_map: &Value, secret: &Value) {
        let plain = |value: &str| value.as_bytes().to_vec();
        let coded = |value: &str| STANDARD.decode(value).unwrap();
        let [config, secrets] = MOUNTS;
        self.write(config, config_map, plain);
        self.write(secrets, secret, coded);
    }

    fn write(&self, mount: &str, object: &Value, read: impl Fn(&str) -> Vec<u8>) {
        let directory = self.mounted(mount);
        std::fs::create_dir_all(&directory).unwrap();
        for (key, value) in object["data"].as_object().unwrap() {
            let value = read(value.as_str().unwrap());
            std::fs::write(directory.join(key), value).unwrap();
        }
    }

    fn mounted(&self, mount: &str) -> PathBuf {
        self.directory.path().join(mount.trim_start_matches('/'))
    }
}
