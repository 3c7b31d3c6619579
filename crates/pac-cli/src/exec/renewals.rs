//! Says that the session of this process cannot be renewed, and that it can again.

use std::convert::Infallible;
use std::future::pending;

use pac_concurrency::{Event, Events, Heard};

use crate::output::note;
use crate::time::humanise;

/// What to say of an event, if it is about renewals. `meanwhile` is what the time means that is
/// left; it is put before that.
pub(crate) fn news(heard: &Heard, meanwhile: &str) -> Option<String> {
    match heard {
        Heard::Event(Event::NotRenewed {
            remaining, cause, ..
        }) => Some(format!(
            "the session cannot be renewed, trying again: {cause}; {meanwhile} {}",
            humanise(*remaining)
        )),
        Heard::Event(Event::Renewed(_)) => Some("the session is renewed again".to_owned()),
        _ => None,
    }
}

/// Says it of all that comes, while a slot is held. Never ends. Cancel-safe.
pub(crate) async fn tell(mut events: Events) -> Infallible {
    while let Some(heard) = events.next().await {
        if let Some(news) = news(&heard, "without an answer the slot is lost in") {
            note(news);
        }
    }
    pending().await
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_cause_is_said_and_what_is_left() {
        let session = pac_concurrency::SessionId::new(7);
        let failed = Heard::Event(Event::NotRenewed {
            session,
            remaining: Duration::from_millis(8_300),
            cause: "keep alive: store unavailable: no connection left".to_owned(),
        });
        let said = news(&failed, "the slot is lost in").unwrap();
        assert!(said.contains("no connection left"), "{said}");
        assert!(said.ends_with("the slot is lost in 8.3s"), "{said}");
        let again = news(&Heard::Event(Event::Renewed(session)), "").unwrap();
        assert!(again.contains("renewed again"), "{again}");
        assert_eq!(news(&Heard::Event(Event::SessionLost(session)), ""), None);
    }
}
