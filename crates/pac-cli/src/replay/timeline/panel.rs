//! The panel of one repository: the number of running runs, and bars for running and waiting
//! runs.

use std::fmt::Write as _;

use pac_concurrency::Timestamp;
use svg::node::element::{Group, Path, Rectangle, Text, Title};

use super::lanes::pack;
use super::scale::Scale;
use super::{LEFT, px};
use crate::replay::record::{RepositoryRecord, RunOutcome, RunRecord};
use crate::replay::summary::{self, Summary};
use crate::time::{humanise, rfc3339};

/// Height of the title, of the chart, of the axis, and of the gaps between them.
const TITLE: f64 = 24.0;
const CHART: f64 = 52.0;
const AXIS: f64 = 34.0;
const GAP: f64 = 8.0;
/// More lanes than this are not drawn; the panel says how many runs are left out.
const MOST_LANES: usize = 400;
/// A long picture repeats its titles at this distance, so that one is always in sight.
const TITLE_EVERY: f64 = 1_600.0;
/// Width of a character of a bar's label, of the narrowest bar that can still be seen, and of
/// the gap that tells a bar from the next one in its lane.
const CHARACTER: f64 = 6.0;
const NARROWEST: f64 = 1.0;
const SEAM: f64 = 0.8;
/// Bars lower than this have no label.
const LABELLED: f64 = 12.0;

/// The panel of one repository and its height in pixels.
pub(super) fn draw(record: &RepositoryRecord, scale: &Scale) -> (Group, f64) {
    let running = Lanes::new(&record.runs, 16.0, |run| {
        Some((run.started_at?, run.completed_at?))
    });
    let waiting = Lanes::new(&record.runs, 10.0, |run| {
        let until = run.started_at.or(run.completed_at)?;
        Some((run.queued_at?, until)).filter(|(from, until)| from < until)
    });
    let chart_top = TITLE;
    let running_top = chart_top + CHART + GAP;
    let waiting_top = running_top + running.height() + if waiting.is_empty() { 0.0 } else { GAP };
    let bottom = waiting_top + waiting.height();

    let mut panel = titles(record, scale, running.hidden + waiting.hidden)
        .add(grid(scale, chart_top, bottom))
        .add(chart(record, scale, chart_top))
        .add(running.draw("run", scale, running_top))
        .add(waiting.draw("wait", scale, waiting_top))
        .add(side("running", running_top + 11.0));
    if !waiting.is_empty() {
        panel = panel.add(side("waiting", waiting_top + 9.0));
    }
    (axis(panel, scale, bottom), bottom + AXIS)
}

/// Bars of one kind, packed.
struct Lanes<'a> {
    bars: Vec<Bar<'a>>,
    count: usize,
    pitch: f64,
    hidden: usize,
}

struct Bar<'a> {
    run: &'a RunRecord,
    from: Timestamp,
    until: Timestamp,
    lane: usize,
}

impl<'a> Lanes<'a> {
    fn new(
        runs: &'a [RunRecord],
        pitch: f64,
        interval: impl Fn(&RunRecord) -> Option<(Timestamp, Timestamp)>,
    ) -> Self {
        let mut bars: Vec<_> = runs
            .iter()
            .filter_map(|run| interval(run).map(|(from, until)| (from, run.line, until, run)))
            .collect();
        bars.sort_by_key(|(from, line, ..)| (*from, *line));
        let intervals: Vec<_> = bars
            .iter()
            .map(|(from, _, until, _)| (*from, *until))
            .collect();
        let (lanes, count) = pack(&intervals);
        let all = bars.len();
        let bars: Vec<_> = bars
            .into_iter()
            .zip(lanes)
            .filter(|(_, lane)| *lane < MOST_LANES)
            .map(|((from, _, until, run), lane)| Bar {
                run,
                from,
                until,
                lane,
            })
            .collect();
        Self {
            hidden: all - bars.len(),
            bars,
            count: count.min(MOST_LANES),
            // Many lanes are drawn thinner, so that a panel fits the screen.
            pitch: match count {
                0..=24 => pitch,
                25..=64 => pitch / 2.0,
                _ => pitch / 4.0,
            },
        }
    }

    fn is_empty(&self) -> bool {
        self.bars.is_empty()
    }

    fn height(&self) -> f64 {
        self.count as f64 * self.pitch
    }

    fn draw(&self, class: &str, scale: &Scale, top: f64) -> Group {
        let height = self.pitch - (self.pitch / 8.0).min(1.5);
        let mut group = Group::new().set("class", class);
        for bar in &self.bars {
            let y = top + bar.lane as f64 * self.pitch;
            group = group.add(bar.draw(scale, y, height));
        }
        group
    }
}

impl Bar<'_> {
    fn draw(&self, scale: &Scale, y: f64, height: f64) -> Group {
        let x = LEFT + scale.x(self.from);
        let width = (LEFT + scale.x(self.until) - x - SEAM).max(NARROWEST);
        let mut group = Group::new()
            .add(Title::new(tooltip(self.run)))
            .add(rectangle(x, y, width, height));
        let name = self.run.run.name();
        if height >= LABELLED && width >= name.len() as f64 * CHARACTER + 6.0 {
            group = group.add(text(name, x + 3.0, y + height - 3.5));
        }
        let ended_here = self.run.completed_at == Some(self.until);
        if self.run.outcome == RunOutcome::Cancelled && ended_here {
            let cap = width.min(3.0);
            let mark = rectangle(x + width - cap, y, cap, height);
            group = group.add(mark.set("class", "cancel"));
        }
        group
    }
}

fn titles(record: &RepositoryRecord, scale: &Scale, hidden: usize) -> Group {
    let summary = Summary::of(&record.runs);
    let limit = match summary::limits(record).as_str() {
        "none" => "no limit".to_owned(),
        limits => format!("limit {limits}"),
    };
    let mut figures = format!(
        "{limit} · {} runs · peak {} running · {} waited",
        summary.runs, record.peak_running, summary.waited
    );
    let mut add = |text: String| {
        figures.push_str(" · ");
        figures.push_str(&text);
    };
    if let Some(waits) = summary.waits.filter(|waits| !waits.max.is_zero()) {
        let (mean, max) = (humanise(waits.mean), humanise(waits.max));
        add(format!("{mean} on average, {max} at most"));
    }
    if summary.cancelled > 0 {
        add(format!("{} cancelled", summary.cancelled));
    }
    if hidden > 0 {
        add(format!(
            "{hidden} bars not drawn: more than {MOST_LANES} lanes"
        ));
    }

    let mut group = Group::new();
    let mut x = 0.0;
    while x == 0.0 || x + TITLE_EVERY / 2.0 < scale.width() {
        // The first title starts in the left margin, in line with the picture's title.
        let left = if x == 0.0 { 16.0 } else { LEFT + x };
        let repository = record.repository.as_str();
        let name = text(repository, left, 15.0).set("class", "name");
        let beside = left + repository.len() as f64 * 8.0 + 16.0;
        group = group.add(name).add(text(&figures, beside, 15.0));
        x += TITLE_EVERY;
    }
    group
}

/// The number of running runs as an area, the limit as a line, and the excess above it.
fn chart(record: &RepositoryRecord, scale: &Scale, top: f64) -> Group {
    let peak = record.peak_running.max(1);
    let limits = record
        .limit_changes
        .iter()
        .filter_map(|(_, limit)| limit.get());
    // A limit far above the peak would press the area flat; it is drawn at the top instead.
    let highest = limits
        .max()
        .unwrap_or(0)
        .min(peak.saturating_mul(4))
        .max(peak);
    let y = |count: u32| {
        let share = f64::from(count.min(highest)) / f64::from(highest);
        top + CHART - share * (CHART - 6.0)
    };

    let mut area = format!("M{} {}", px(LEFT), px(y(0)));
    for (at, count) in summary::running(&record.runs) {
        step(&mut area, LEFT + scale.x(at), y(count));
    }
    let _ = write!(area, "V{}Z", px(y(0)));

    let mut group = Group::new()
        .add(Path::new().set("class", "area").set("d", area))
        .add(
            Path::new()
                .set("class", "limit")
                .set("d", limit_line(record, scale, y)),
        )
        .add(side(&highest.to_string(), y(highest) + 4.0))
        .add(side("0", y(0)));
    for violation in &record.exceeded {
        let x = LEFT + scale.x(violation.at);
        let what = format!(
            "limit exceeded: {} running, {}\n{}",
            violation.running,
            violation.rule,
            rfc3339(violation.at)
        );
        let mark = format!("M{} {}l-5 -9h10z", px(x), px(y(violation.running)));
        group = group.add(
            Path::new()
                .set("class", "cancel")
                .set("d", mark)
                .add(Title::new(what)),
        );
    }
    group
}

fn limit_line(record: &RepositoryRecord, scale: &Scale, y: impl Fn(u32) -> f64) -> String {
    let mut line = String::new();
    let mut before = None;
    for (at, limit) in &record.limit_changes {
        let x = LEFT + scale.x(*at);
        let limit = limit.get();
        match (before, limit) {
            (Some(before), Some(limit)) if before == limit => {}
            (Some(_), Some(limit)) => step(&mut line, x, y(limit)),
            (Some(_), None) => {
                let _ = write!(line, "H{}", px(x));
            }
            (None, Some(limit)) => {
                let _ = write!(line, "M{} {}", px(x), px(y(limit)));
            }
            (None, None) => {}
        }
        before = limit;
    }
    if before.is_some() {
        let _ = write!(line, "H{}", px(LEFT + scale.width()));
    }
    line
}

fn grid(scale: &Scale, top: f64, bottom: f64) -> Group {
    let mut hours = format!("M{} {}h{}", px(LEFT), px(bottom), px(scale.width()));
    let mut days = String::new();
    for tick in scale.ticks() {
        let lines = if tick.midnight { &mut days } else { &mut hours };
        let x = LEFT + tick.x;
        let _ = write!(lines, "M{} {}V{}", px(x), px(top), px(bottom + 4.0));
    }
    Group::new()
        .add(Path::new().set("class", "grid").set("d", hours))
        .add(Path::new().set("class", "grid midnight").set("d", days))
}

fn axis(mut panel: Group, scale: &Scale, bottom: f64) -> Group {
    for tick in scale.ticks() {
        let x = LEFT + tick.x;
        if !tick.time.is_empty() {
            panel = panel.add(text(&tick.time, x, bottom + 14.0));
        }
        if !tick.date.is_empty() {
            let y = bottom + if tick.time.is_empty() { 14.0 } else { 27.0 };
            panel = panel.add(text(&tick.date, x, y).set("class", "day"));
        }
    }
    panel
}

fn tooltip(run: &RunRecord) -> String {
    let mut text = run.run.to_string();
    let mut add = |line: String| {
        text.push('\n');
        text.push_str(&line);
    };
    if run.priority.get() != 0 {
        add(format!("priority {}", run.priority));
    }
    if let Some(at) = run.queued_at {
        add(format!("queued {}", rfc3339(at)));
    }
    if let Some(at) = run.started_at {
        add(format!("started {}", rfc3339(at)));
    }
    if let Some(at) = run.completed_at {
        let how = match (run.outcome, run.started_at) {
            (RunOutcome::Completed, _) => "completed",
            (RunOutcome::Cancelled, Some(_)) => "cancelled",
            (RunOutcome::Cancelled, None) => "cancelled while it waited",
            (RunOutcome::Superseded, _) => "superseded",
            (RunOutcome::Waiting, _) => "waiting",
        };
        add(format!("{how} {}", rfc3339(at)));
    }
    match run.wait() {
        Some(wait) if !wait.is_zero() => add(format!("waited {}", humanise(wait))),
        Some(_) => add("did not wait".to_owned()),
        None => {}
    }
    text
}

fn step(path: &mut String, x: f64, y: f64) {
    // Writing to a string does not fail.
    let _ = write!(path, "H{}V{}", px(x), px(y));
}

fn side(label: &str, y: f64) -> Text {
    text(label, LEFT - 8.0, y).set("class", "side")
}

fn text(content: &str, x: f64, y: f64) -> Text {
    Text::new(content).set("x", px(x)).set("y", px(y))
}

fn rectangle(x: f64, y: f64, width: f64, height: f64) -> Rectangle {
    Rectangle::new()
        .set("x", px(x))
        .set("y", px(y))
        .set("width", px(width))
        .set("height", px(height))
}
