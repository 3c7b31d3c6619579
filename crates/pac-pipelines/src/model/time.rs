//! Times as Kubernetes writes them.

use pac_core::Timestamp;

/// From RFC 3339, as in `2026-06-01T14:47:16Z`; `None` for anything else.
pub(super) fn parse(text: &str) -> Option<Timestamp> {
    // The parser takes more shapes than the RFC's; a date with a time has at least this length.
    let plausible = text.len() >= "2026-06-01T14:47:16Z".len() && !text.contains('[');
    let time: jiff::Timestamp = text.parse().ok().filter(|_| plausible)?;
    Some(Timestamp::from_unix_millis(time.as_millisecond()))
}
