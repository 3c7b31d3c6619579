//! A certificate that others keep in a directory, such as cert-manager in a mounted Secret.

use std::path::PathBuf;
use std::time::Duration;

use pac_core::file;

use super::certificate::Pair;
use super::error::WebhookError;

/// A chain and a key are a few KiB.
const LIMIT: u64 = 1 << 20;

/// How long the file system may take.
const WITHIN: Duration = Duration::from_secs(10);

/// The directory.
#[derive(Debug)]
pub(super) struct Directory(pub(super) PathBuf);

impl Directory {
    /// Reads `tls.crt` and `tls.key`. A mounted Secret changes as a whole; a pair of which one file
    /// is new is refused by the server and read again.
    ///
    /// # Errors
    /// Names the file that cannot be read.
    pub(super) async fn read(&self) -> Result<Pair, WebhookError> {
        Ok(Pair {
            certificates: self.text("tls.crt").await?,
            key: self.text("tls.key").await?,
        })
    }

    async fn text(&self, name: &str) -> Result<String, WebhookError> {
        let path = self.0.join(name);
        let read = {
            let path = path.clone();
            file::apart(WITHIN, move || file::read(&path, LIMIT)).await
        };
        let read = read.unwrap_or_else(Err);
        read.map_err(|reason| {
            let message = format!("{reason}; put the certificate there");
            WebhookError::certificate(path.display(), message)
        })
    }
}
