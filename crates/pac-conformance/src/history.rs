//! A record, kept by the tasks that hold slots, of when each run asked for, held and gave back
//! its slot.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use pac_core::FencingToken;

/// The history of runs on one logical clock, a counter. A span begins after a slot was granted
/// and ends before it is given back, so two overlapping spans mean two slots held at once.
#[derive(Debug, Default)]
pub struct History {
    clock: AtomicU64,
    spans: Mutex<Vec<Moments>>,
}

#[derive(Debug, Clone)]
#[allow(dead_code, reason = "`run` is for the message when a check fails")]
struct Moments {
    run: String,
    asked: u64,
    answered: u64,
    held: u64,
    given_back: u64,
    token: FencingToken,
}

/// The history of one run, recorded into a [`History`] when it ends.
#[derive(Debug)]
pub struct Span {
    history: Arc<History>,
    moments: Moments,
}

impl History {
    /// Starts a span. Call it before asking for the slot.
    pub fn ask(self: &Arc<Self>, run: &str) -> Span {
        let asked = self.tick();
        Span {
            history: Arc::clone(self),
            moments: Moments {
                run: run.to_owned(),
                asked,
                answered: u64::MAX,
                held: u64::MAX,
                given_back: u64::MAX,
                token: FencingToken::default(),
            },
        }
    }

    /// The number of finished spans.
    pub fn len(&self) -> usize {
        self.spans.lock().unwrap().len()
    }

    /// Whether there is no finished span.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Asserts that at no time more than `limit` runs held a slot. Returns the highest number
    /// that did.
    pub fn assert_limit(&self, limit: usize) -> usize {
        let mut edges = Vec::new();
        for span in self.sorted_by(|span| span.held) {
            edges.push((span.held, 1));
            edges.push((span.given_back, -1));
        }
        edges.sort_unstable();
        let (mut now, mut peak) = (0, 0);
        for (_, step) in edges {
            now += step;
            peak = peak.max(now);
        }
        let peak = usize::try_from(peak).unwrap();
        assert!(peak <= limit, "{peak} slots held at once, limit {limit}");
        peak
    }

    /// Asserts that no token came twice, and that no token is below that of a slot given back
    /// before its run asked. (A slot given back before the run *held* its own proves nothing: a
    /// grant takes a while to arrive.)
    pub fn assert_tokens_increase(&self) {
        let spans = self.sorted_by(|span| span.asked);
        let tokens: BTreeSet<_> = spans.iter().map(|span| span.token).collect();
        assert_eq!(tokens.len(), spans.len(), "a token came twice");
        let mut ended = self
            .sorted_by(|span| span.given_back)
            .into_iter()
            .peekable();
        let mut highest = FencingToken::default();
        for span in &spans {
            while let Some(earlier) = ended.next_if(|ended| ended.given_back < span.asked) {
                highest = highest.max(earlier.token);
            }
            assert!(span.token > highest, "{span:?} after token {highest}");
        }
    }

    /// Asserts that a run which was queued before another one asked was granted its slot before
    /// it.
    pub fn assert_first_in_first_out(&self) {
        let mut answered = self.sorted_by(|span| span.answered).into_iter().peekable();
        let mut highest: Option<Moments> = None;
        for span in self.sorted_by(|span| span.asked) {
            while let Some(earlier) = answered.next_if(|other| other.answered < span.asked) {
                if highest.as_ref().is_none_or(|h| h.token < earlier.token) {
                    highest = Some(earlier);
                }
            }
            if let Some(highest) = &highest {
                assert!(highest.token < span.token, "{span:?} overtook {highest:?}");
            }
        }
    }

    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn sorted_by(&self, key: impl Fn(&Moments) -> u64) -> Vec<Moments> {
        let mut spans = self.spans.lock().unwrap().clone();
        spans.sort_by_key(key);
        spans
    }
}

impl Span {
    /// Records the answer, a slot or a place in the queue. Call it when the answer has come.
    pub fn answered(&mut self) {
        self.moments.answered = self.history.tick();
    }

    /// Records the slot. Call it when the slot has come.
    pub fn held(&mut self, token: FencingToken) {
        self.moments.token = token;
        self.moments.held = self.history.tick();
    }

    /// Ends the span. Call it before giving the slot back.
    pub fn gives_back(mut self) {
        self.moments.given_back = self.history.tick();
        self.history.spans.lock().unwrap().push(self.moments);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(spans: &[(u64, u64, u64, u64, u64)]) -> History {
        let span = |&(asked, answered, held, given_back, token)| Moments {
            run: String::new(),
            asked,
            answered,
            held,
            given_back,
            token: FencingToken::new(token),
        };
        History {
            clock: AtomicU64::default(),
            spans: Mutex::new(spans.iter().map(span).collect()),
        }
    }

    fn is_refused(check: impl FnOnce() + std::panic::UnwindSafe) -> bool {
        std::panic::catch_unwind(check).is_err()
    }

    #[test]
    fn one_after_the_other_is_right() {
        let history = history(&[(0, 1, 2, 3, 1), (4, 5, 6, 7, 2)]);
        assert_eq!(history.assert_limit(1), 1);
        history.assert_tokens_increase();
        history.assert_first_in_first_out();
    }

    #[test]
    fn two_at_once_are_found() {
        let spans = [(0, 1, 2, 6, 1), (3, 4, 5, 7, 2)];
        assert_eq!(history(&spans).assert_limit(2), 2);
        assert!(is_refused(move || {
            history(&spans).assert_limit(1);
        }));
    }

    #[test]
    fn a_token_that_falls_or_comes_twice_is_found() {
        for second in [1, 2] {
            let spans = [(0, 1, 2, 3, 2), (4, 5, 6, 7, second)];
            assert!(is_refused(move || history(&spans).assert_tokens_increase()));
        }
    }

    #[test]
    fn overtaking_is_found_and_a_tie_is_none() {
        let waits = [(0, 1, 8, 9, 2), (2, 3, 4, 5, 1)];
        assert!(is_refused(
            move || history(&waits).assert_first_in_first_out()
        ));
        history(&[(0, 2, 8, 9, 2), (1, 3, 4, 5, 1)]).assert_first_in_first_out();
    }
}
