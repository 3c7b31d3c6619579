//! What cannot go wrong in a replay, and is a bug if it does.

use pac_concurrency::{Error, ErrorKind};

/// An error that says so.
pub(super) fn internal(message: String) -> Error {
    Error::new(ErrorKind::Internal, "replay", message)
}
