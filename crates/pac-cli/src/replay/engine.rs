//! Drives the manager with a trace.

use pac_concurrency::{Error, ErrorKind};

use super::Options;
use super::progress::Progress;
use super::record::Replay;
use super::trace::Trace;

/// Replays the trace.
pub(crate) async fn replay(
    _trace: &Trace,
    _options: &Options,
    _progress: &Progress,
) -> Result<Replay, Error> {
    Err(Error::new(ErrorKind::Internal, "replay", "not built yet"))
}
