//! Converts time to pixels, and chooses the labels of the axis.

use std::time::Duration;

use jiff::tz::Offset;
use pac_concurrency::Timestamp;

use crate::replay::record::RunRecord;
use crate::time::to_jiff;

/// The narrowest and widest plot, in pixels: what fits a window, and what a browser scrolls
/// well.
const WIDTH: (f64, f64) = (1_200.0, 24_000.0);
/// The bar width of a run of median duration that the scale aims at.
const MEDIAN_BAR: f64 = 36.0;
/// Room for a label on the axis.
const LABEL: f64 = 92.0;

const SECOND: i64 = 1_000;
const MINUTE: i64 = 60 * SECOND;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Steps between ticks, in milliseconds.
const STEPS: [i64; 22] = [
    100,
    500,
    SECOND,
    2 * SECOND,
    5 * SECOND,
    15 * SECOND,
    30 * SECOND,
    MINUTE,
    2 * MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    30 * MINUTE,
    HOUR,
    2 * HOUR,
    3 * HOUR,
    6 * HOUR,
    12 * HOUR,
    DAY,
    2 * DAY,
    7 * DAY,
    28 * DAY,
    364 * DAY,
];
/// The format of a day on the axis.
const DATE: &str = "%a %Y-%m-%d";
/// A Monday, so that weeks start with one.
const EPOCH: i64 = 4 * DAY;

/// The time axis: the same for all panels.
#[derive(Debug)]
pub(super) struct Scale {
    from: i64,
    to: i64,
    width: f64,
}

/// A labelled moment on the axis. The label is empty if it would only repeat the one before.
#[derive(Debug, PartialEq)]
pub(super) struct Tick {
    pub(super) x: f64,
    pub(super) time: String,
    pub(super) date: String,
    pub(super) midnight: bool,
}

impl Scale {
    /// An axis from the first to the last moment of `runs`, wide enough for the median run.
    pub(super) fn of<'a>(runs: impl Iterator<Item = &'a RunRecord>) -> Self {
        let mut from = i64::MAX;
        let mut to = i64::MIN;
        let mut lengths = Vec::new();
        for run in runs {
            let times = [run.queued_at, run.started_at, run.completed_at];
            for time in times.into_iter().flatten() {
                from = from.min(time.as_unix_millis());
                to = to.max(time.as_unix_millis());
            }
            if let (Some(start), Some(end)) = (run.started_at, run.completed_at) {
                lengths.push(end.since(start));
            }
        }
        if from > to {
            (from, to) = (0, 0);
        }
        let to = to.max(from.saturating_add(SECOND));
        let wanted = match median(lengths).as_millis() {
            0 => WIDTH.0,
            median => (to - from) as f64 / median as f64 * MEDIAN_BAR,
        };
        Self {
            from,
            to,
            width: wanted.clamp(WIDTH.0, WIDTH.1).round(),
        }
    }

    /// The first and the last moment.
    pub(super) fn span(&self) -> (Timestamp, Timestamp) {
        let time = Timestamp::from_unix_millis;
        (time(self.from), time(self.to))
    }

    /// Width in pixels.
    pub(super) fn width(&self) -> f64 {
        self.width
    }

    /// The position of `time`, in pixels from the left end; moments outside are moved to the
    /// ends.
    pub(super) fn x(&self, time: Timestamp) -> f64 {
        let time = time.as_unix_millis().clamp(self.from, self.to);
        (time - self.from) as f64 / (self.to - self.from) as f64 * self.width
    }

    /// The labelled moments, in order.
    pub(super) fn ticks(&self) -> Vec<Tick> {
        let milli = self.width / (self.to - self.from) as f64;
        let step = STEPS
            .into_iter()
            .find(|step| *step as f64 * milli >= LABEL)
            .unwrap_or(364 * DAY);
        let format = match step {
            ..SECOND => "%H:%M:%S%.1f",
            SECOND..MINUTE => "%H:%M:%S",
            MINUTE..DAY => "%H:%M",
            _ => "",
        };
        let mut at = EPOCH + (self.from - EPOCH).div_euclid(step) * step;
        let mut ticks: Vec<Tick> = Vec::new();
        while at <= self.to {
            let time = Timestamp::from_unix_millis(at);
            if at >= self.from {
                let midnight = at.rem_euclid(DAY) == 0;
                let date = if midnight {
                    text(time, DATE)
                } else {
                    String::new()
                };
                ticks.push(Tick {
                    x: (at - self.from) as f64 * milli,
                    time: text(time, format),
                    date,
                    midnight,
                });
            }
            at += step;
        }
        // The first day has no midnight in the picture: its first tick shows the date, unless
        // the next midnight is so close that the labels would overlap.
        let midnight = ticks.iter().find(|tick| tick.midnight).map(|tick| tick.x);
        let (from, _) = self.span();
        if let Some(first) = ticks.first_mut()
            && midnight.is_none_or(|x| x - first.x > LABEL)
        {
            first.date = text(from, DATE);
        }
        ticks
    }
}

/// `time` in UTC, as strftime formats it.
pub(super) fn text(time: Timestamp, format: &str) -> String {
    let time = Offset::UTC.to_datetime(to_jiff(time));
    time.strftime(format).to_string()
}

fn median(mut lengths: Vec<Duration>) -> Duration {
    lengths.sort_unstable();
    lengths.get(lengths.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::record::RunOutcome::Completed;
    use crate::replay::summary::tests::run;

    fn scale(seconds: i64, length: i64) -> Scale {
        let runs = [
            run(1, 0, Some(0), length, Completed),
            run(
                2,
                seconds - length,
                Some(seconds - length),
                seconds,
                Completed,
            ),
        ];
        Scale::of(runs.iter())
    }

    #[test]
    fn short_traces_fill_the_window_and_long_ones_scroll() {
        assert_eq!(scale(60, 10).width(), 1_200.0);
        assert_eq!(scale(86_400, 600).width(), 5_184.0);
        let month = scale(30 * 86_400, 600);
        assert_eq!(month.width(), 24_000.0);
        let (from, to) = month.span();
        assert_eq!((month.x(from), month.x(to)), (0.0, 24_000.0));
        let ten_minutes = month.x(from.plus(Duration::from_secs(600)));
        assert!(ten_minutes > 5.0, "{ten_minutes}");
    }

    #[test]
    fn ticks_are_far_enough_apart_and_every_day_is_dated() {
        for (seconds, length) in [
            (1, 1),
            (90, 20),
            (7_200, 300),
            (86_400, 60),
            (2_592_000, 600),
        ] {
            let scale = scale(seconds, length);
            let ticks = scale.ticks();
            assert!(ticks.len() > 2, "{seconds} s: {ticks:?}");
            assert!(
                ticks
                    .windows(2)
                    .all(|pair| pair[1].x - pair[0].x >= LABEL - 0.01)
            );
            assert!(
                ticks.iter().any(|tick| !tick.date.is_empty()),
                "{seconds} s"
            );
        }
        let ticks = scale(2_592_000, 600).ticks();
        assert!(ticks.iter().filter(|tick| !tick.date.is_empty()).count() >= 30);
    }

    #[test]
    fn no_run_and_centuries_are_no_trouble() {
        assert_eq!(Scale::of([].into_iter()).width(), 1_200.0);
        assert!(scale(200 * 365 * 86_400, 1).ticks().len() < 300);
    }
}
