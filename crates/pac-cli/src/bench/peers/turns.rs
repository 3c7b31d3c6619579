//! What is told of the turns that tasks took: how many, and who overtook whom.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::bench::contended::Held;

/// One turn of a task, by the clock that all processes of the machine share, in nanoseconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Turn {
    /// It asked.
    pub(super) asked: u64,
    /// It ran.
    pub(super) got: u64,
    /// It began to give its place back.
    pub(super) gave: u64,
}

/// The time of what had not happened when the round ended.
const NEVER: u64 = u64::MAX;

impl Turn {
    /// One that had not come when the round ended.
    pub(super) fn awaited(asked: u64) -> Self {
        Self {
            asked,
            got: NEVER,
            gave: NEVER,
        }
    }

    /// When the task ran, if it did.
    pub(super) fn held(&self) -> Option<Held> {
        let held = Held {
            from: self.got,
            to: self.gave,
        };
        (self.got != NEVER).then_some(held)
    }
}

/// The turns of one process in one round.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) turns: Vec<Turn>,
    /// When all its tasks were at work, by the same clock.
    pub(super) from: u64,
    pub(super) to: u64,
}

/// The time in which all processes were at work.
fn common(parts: &[Part]) -> Range<u64> {
    let from = parts.iter().map(|part| part.from).max();
    let to = parts.iter().map(|part| part.to).min();
    from.unwrap_or_default()..to.unwrap_or_default()
}

/// Turns a second, over the time in which all processes were at work.
pub(super) fn rate(parts: &[Part]) -> f64 {
    let common = common(parts);
    let turns = parts.iter().flat_map(|part| &part.turns);
    let within = turns.filter(|turn| common.contains(&turn.gave)).count();
    let seconds = common.end.saturating_sub(common.start) as f64 / 1e9;
    if seconds > 0.0 {
        within as f64 / seconds
    } else {
        0.0
    }
}

/// The most turns that were asked for after another one and came before it. Of the time in which
/// all processes were at work: one that starts earlier overtakes nobody.
pub(super) fn overtaken(parts: &[Part]) -> usize {
    let common = common(parts);
    let mut by_asking: Vec<_> = parts.iter().flat_map(|part| &part.turns).collect();
    by_asking.retain(|turn| common.contains(&turn.asked));
    by_asking.sort_unstable_by_key(|turn| turn.asked);
    let later = |(place, turn): (usize, &&Turn)| {
        let after = by_asking.get(place + 1..).unwrap_or_default();
        // Those that asked after it ran cannot have overtaken it.
        let while_it_waited = after.iter().take_while(|other| other.asked < turn.got);
        while_it_waited.filter(|other| other.got < turn.got).count()
    };
    by_asking.iter().enumerate().map(later).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(asked: u64, got: u64, gave: u64) -> Turn {
        Turn { asked, got, gave }
    }

    fn part(turns: &[Turn]) -> [Part; 1] {
        [Part {
            turns: turns.to_vec(),
            from: 1,
            to: 100,
        }]
    }

    #[test]
    fn a_turn_is_overtaken_by_those_who_asked_later_and_came_before() {
        let in_order = [turn(1, 4, 5), turn(2, 5, 6), turn(3, 6, 7)];
        assert_eq!(overtaken(&part(&in_order)), 0);
        let late = turn(9, 11, 12);
        let starved = [turn(1, 9, 10), turn(2, 5, 6), turn(3, 6, 7), late];
        assert_eq!(overtaken(&part(&starved)), 2);
        let never = [Turn::awaited(1), turn(2, 5, 6), turn(3, 6, 7), late];
        assert_eq!(overtaken(&part(&never)), 3);
        let before_all_were_there = [turn(0, 9, 10), turn(2, 5, 6)];
        assert_eq!(overtaken(&part(&before_all_were_there)), 0);
        assert_eq!(overtaken(&[]), 0);
    }

    #[test]
    fn only_turns_while_all_processes_are_at_work_make_the_rate() {
        let second = 1_000_000_000;
        let turns = vec![
            turn(0, 0, second / 2),
            turn(0, 0, second),
            turn(0, 0, 3 * second),
        ];
        let early = Part {
            turns,
            from: 0,
            to: 2 * second,
        };
        let late = Part {
            turns: Vec::new(),
            from: second,
            to: 4 * second,
        };
        assert_eq!(rate(&[early, late]), 1.0);
        assert_eq!(rate(&[]), 0.0);
    }
}
