//! Draws when each run waited and ran.

pub(crate) mod file;
mod lanes;
mod panel;
mod scale;

use svg::Document;
use svg::node::element::{Definitions, Group, Path, Pattern, Rectangle, Style, Text, Title};

use super::record::Replay;
use scale::Scale;

/// Left margin of the plot, for the labels of its rows.
const LEFT: f64 = 72.0;
const RIGHT: f64 = 96.0;
const HEADER: f64 = 64.0;
const BETWEEN_PANELS: f64 = 18.0;

/// Text colours are set together with the background, so that a browser's dark mode changes
/// neither.
const STYLE: &str = "
text { font: 11px system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif; fill: #475467; }
.title { font-size: 16px; font-weight: 600; fill: #101828; }
.name { font-size: 13px; font-weight: 600; fill: #101828; }
.day { font-weight: 600; fill: #101828; }
.side { text-anchor: end; font-size: 10px; }
.grid { stroke: #e4e7ec; fill: none; }
.midnight { stroke: #98a2b3; }
.area { fill: #a9c7ea; }
.limit { stroke: #b42318; stroke-width: 1.5; stroke-dasharray: 6 3; fill: none; }
.run rect { fill: #2f6fb7; }
.run text { font-size: 10px; fill: #ffffff; }
.wait rect { fill: url(#waiting); stroke: #d99a2b; stroke-width: 0.5; }
.run .cancel, .wait .cancel, .cancel { fill: #d92d20; stroke: none; }
g:hover > rect { opacity: 0.75; }";

/// Draws a panel per repository over one time axis.
pub(crate) fn draw(replay: &Replay) -> Document {
    let runs = || replay.repositories.iter().flat_map(|record| &record.runs);
    let scale = Scale::of(runs());
    let mut height = HEADER;
    let mut panels = Group::new();
    for record in &replay.repositories {
        let (panel, needed) = panel::draw(record, &scale);
        panels = panels.add(panel.set("transform", format!("translate(0 {})", px(height))));
        height += needed + BETWEEN_PANELS;
    }

    let width = LEFT + scale.width() + RIGHT;
    let (from, to) = scale.span();
    let title = format!(
        "pac replay: {} of {}, {} to {} UTC",
        counted(runs().count(), "run", "runs"),
        counted(replay.repositories.len(), "repository", "repositories"),
        scale::text(from, "%Y-%m-%d %H:%M"),
        scale::text(to, "%Y-%m-%d %H:%M"),
    );
    Document::new()
        .set("width", px(width))
        .set("height", px(height))
        .set("viewBox", format!("0 0 {} {}", px(width), px(height)))
        .add(Title::new(title.as_str()))
        .add(Style::new(STYLE))
        .add(Definitions::new().add(hatching()))
        .add(
            Rectangle::new()
                .set("width", "100%")
                .set("height", "100%")
                .set("fill", "#ffffff"),
        )
        .add(
            Text::new(title)
                .set("class", "title")
                .set("x", 16)
                .set("y", 26),
        )
        .add(legend())
        .add(panels)
}

/// Pixels, to a tenth.
fn px(pixels: f64) -> f64 {
    (pixels * 10.0).round() / 10.0
}

fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

fn hatching() -> Pattern {
    Pattern::new()
        .set("id", "waiting")
        .set("width", 6)
        .set("height", 6)
        .set("patternUnits", "userSpaceOnUse")
        .set("patternTransform", "rotate(45)")
        .add(
            Rectangle::new()
                .set("width", 6)
                .set("height", 6)
                .set("fill", "#fdeecb"),
        )
        .add(
            Rectangle::new()
                .set("width", 2)
                .set("height", 6)
                .set("fill", "#f0b849"),
        )
}

fn legend() -> Group {
    let swatch = |x: i32| {
        Rectangle::new()
            .set("x", x)
            .set("y", 38)
            .set("width", 24)
            .set("height", 11)
    };
    let label = |x: i32, text: &str| Text::new(text).set("x", x + 30).set("y", 48);
    let cap = Rectangle::new()
        .set("x", 227)
        .set("y", 38)
        .set("width", 3)
        .set("height", 11)
        .set("class", "cancel");
    let limit = Path::new().set("d", "M340 43.5h24").set("class", "limit");
    Group::new()
        .add(Group::new().set("class", "run").add(swatch(16)))
        .add(label(16, "running"))
        .add(Group::new().set("class", "wait").add(swatch(110)))
        .add(label(110, "waiting"))
        .add(Group::new().set("class", "run").add(swatch(206)).add(cap))
        .add(label(206, "cancelled there"))
        .add(limit)
        .add(label(340, "limit"))
        .add(swatch(420).set("class", "area"))
        .add(label(420, "how many run at once"))
        .add(
            Text::new("Point at a bar for its times. All times are UTC.")
                .set("x", 590)
                .set("y", 48),
        )
}

#[cfg(test)]
mod tests {
    use super::super::record::RunOutcome::{Cancelled, Completed};
    use super::super::record::{Rule, Violation};
    use super::super::summary::tests::{repository, run};
    use super::*;

    fn replay() -> Replay {
        let runs = vec![
            run(1, 0, Some(0), 600, Completed),
            run(2, 60, Some(600), 900, Cancelled),
            run(3, 60, None, 300, Cancelled),
        ];
        Replay {
            repositories: vec![repository(&[(0, 1), (700, 0), (800, 5)], runs)],
            unknown_cancels: Vec::new(),
        }
    }

    #[test]
    fn every_run_that_ran_and_every_one_that_waited_has_its_bar() {
        let text = draw(&replay()).to_string();
        assert_eq!(text.matches("ns/run-1\nqueued").count(), 1);
        assert_eq!(text.matches("ns/run-2\nqueued").count(), 2);
        assert_eq!(text.matches("ns/run-3\nqueued").count(), 1);
        assert!(text.contains("cancelled while it waited 2026-05-28T20:31:40.000Z"));
        assert!(text.contains("waited 9m 0s"));
        assert!(text.contains("limit 1→…→5 · 3 runs · peak 1 running · 1 waited"));
        // One at the end of run 2, one at the end of run 3's wait, one in the legend.
        assert_eq!(text.matches("class=\"cancel\"").count(), 3);
        assert_eq!(
            text.matches(">\nrun-1\n<").count(),
            1,
            "the label fits the bar"
        );
    }

    #[test]
    fn what_exceeded_the_limit_is_marked() {
        let mut replay = replay();
        replay.repositories[0].exceeded = vec![Violation {
            at: replay.repositories[0].runs[0].started_at.unwrap(),
            running: 2,
            rule: Rule::Limit(1),
        }];
        assert!(
            draw(&replay)
                .to_string()
                .contains("limit exceeded: 2 running, limit 1")
        );
    }

    #[test]
    fn nothing_to_draw_and_far_too_much_are_both_drawn() {
        let empty = draw(&Replay::default()).to_string();
        assert!(empty.contains("0 runs of 0 repositories"));
        let runs = (0..2_000)
            .map(|line| run(line, 0, Some(line as i64), 3_000, Completed))
            .collect();
        let replay = Replay {
            repositories: vec![repository(&[(0, 0)], runs)],
            unknown_cancels: Vec::new(),
        };
        let text = draw(&replay).to_string();
        assert!(text.contains("bars not drawn: more than 400 lanes"));
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}
