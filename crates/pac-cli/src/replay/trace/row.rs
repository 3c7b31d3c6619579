//! Converts one line of a trace, a JSON object, to a typed [`Row`].

use std::fmt;
use std::time::Duration;

use pac_concurrency::{Limit, Priority, Supersedes, Weight};
use serde_json::Value;

use super::fields::{Fields, shown};
use super::{Event, Row};
use crate::time::parse_rfc3339;

/// The fields that determine the kind of a row. One of them must be present.
const KINDS: [&str; 4] = ["run", "set_limit", "cancel", "pause"];
/// Longest duration of a run, in seconds: a leap year.
const MAX_DURATION_S: f64 = 366.0 * 86_400.0;

/// Parses one line. The error names the problem and the rule.
pub(super) fn parse(line: usize, text: &[u8]) -> Result<Row, String> {
    let mut fields = Fields::parse(text)?;
    let at = parse_rfc3339(&fields.text("at")?).map_err(|why| format!("\"at\" {why}"))?;
    let repository = fields.key("repository")?;
    let event = match fields.kind()? {
        "run" => fields.run()?,
        "pause" => Event::Pause(fields.pause()?),
        "set_limit" => Event::SetLimit(fields.limit("set_limit")?),
        _ => Event::Cancel(fields.key("cancel")?),
    };
    fields.nothing_left(&event)?;
    Ok(Row {
        line,
        at,
        repository,
        event,
    })
}

impl Fields {
    fn required(&mut self, name: &str) -> Result<Value, String> {
        self.take(name)
            .ok_or_else(|| format!("{name:?} is missing"))
    }

    fn text(&mut self, name: &str) -> Result<String, String> {
        match self.required(name)? {
            Value::String(text) => Ok(text),
            other => Err(format!("{name:?} must be a string, not {}", json(&other))),
        }
    }

    fn key<K: std::str::FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Result<K, String> {
        let text = self.text(name)?;
        text.parse().map_err(|error| format!("{name:?}: {error}"))
    }

    fn kind(&self) -> Result<&'static str, String> {
        let mut kinds = KINDS.into_iter().filter(|kind| self.has(kind));
        match (kinds.next(), kinds.next()) {
            (Some(kind), None) => Ok(kind),
            (Some(one), Some(other)) => Err(format!(
                "{one:?} and {other:?} in one row; a row has exactly one of \"run\", \
                 \"set_limit\", \"cancel\" and \"pause\""
            )),
            (None, _) => Err(
                "the row says nothing to do; it must have exactly one of \"run\", \"set_limit\", \
                 \"cancel\" and \"pause\""
                    .to_owned(),
            ),
        }
    }

    fn limit(&mut self, name: &str) -> Result<Limit, String> {
        let value = self.required(name)?;
        let limit = value.as_u64().and_then(|limit| u32::try_from(limit).ok());
        limit.map(Limit::new).ok_or_else(|| {
            format!(
                "{name:?} must be a whole number from 0 (no limit) to {}, not {}",
                u32::MAX,
                json(&value)
            )
        })
    }

    fn duration(&mut self) -> Result<Duration, String> {
        let value = self.required("duration_s")?;
        let seconds = value
            .as_f64()
            .filter(|seconds| (0.0..=MAX_DURATION_S).contains(seconds));
        seconds
            .map(|seconds| Duration::from_millis((seconds * 1_000.0).round() as u64))
            .ok_or_else(|| {
                format!(
                    "\"duration_s\" must be a number of seconds from 0 to {MAX_DURATION_S} \
                     (366 days), not {}",
                    json(&value)
                )
            })
    }

    fn priority(&mut self) -> Result<Priority, String> {
        let Some(value) = self.take("priority") else {
            return Ok(Priority::default());
        };
        let priority = value.as_i64().and_then(|number| i32::try_from(number).ok());
        priority.map(Priority::new).ok_or_else(|| {
            format!(
                "\"priority\" must be a whole number from {} to {}, not {}",
                i32::MIN,
                i32::MAX,
                json(&value)
            )
        })
    }

    fn run(&mut self) -> Result<Event, String> {
        let (limit, weight) = (self.limit("limit")?, self.weight()?);
        if !limit.admits_all(0, weight.get().into()) {
            return Err(format!(
                "\"weight\" {weight} is more than the limit, which is {limit}: such a run is refused"
            ));
        }
        let group = match self.has("group") {
            true => Some(self.key("group")?),
            false => None,
        };
        let supersedes = self.supersedes()?;
        if supersedes != Supersedes::None && group.is_none() {
            return Err("\"supersede\" without \"group\" does not say whose runs".to_owned());
        }
        Ok(Event::Run {
            run: self.key("run")?,
            limit,
            duration: self.duration()?,
            priority: self.priority()?,
            weight,
            group,
            supersedes,
        })
    }

    fn weight(&mut self) -> Result<Weight, String> {
        let Some(value) = self.take("weight") else {
            return Ok(Weight::ONE);
        };
        let weight = value.as_u64().and_then(|slots| u16::try_from(slots).ok());
        weight.and_then(Weight::new).ok_or_else(|| {
            format!(
                "\"weight\" must be a whole number of slots from 1 to {}, not {}",
                u16::MAX,
                json(&value)
            )
        })
    }

    fn supersedes(&mut self) -> Result<Supersedes, String> {
        match self.take("supersede") {
            None => Ok(Supersedes::None),
            Some(Value::String(which)) if which == "waiting" => Ok(Supersedes::Waiting),
            Some(Value::String(which)) if which == "all" => Ok(Supersedes::All),
            Some(other) => Err(format!(
                "\"supersede\" must be \"waiting\" or \"all\", not {}",
                json(&other)
            )),
        }
    }

    fn pause(&mut self) -> Result<bool, String> {
        match self.required("pause")? {
            Value::Bool(paused) => Ok(paused),
            other => Err(format!(
                "\"pause\" must be true or false, not {}",
                json(&other)
            )),
        }
    }

    fn nothing_left(&self, event: &Event) -> Result<(), String> {
        let kind = match event {
            Event::Run { .. } => return Ok(()),
            Event::SetLimit(_) => "set_limit",
            Event::Cancel(_) => "cancel",
            Event::Pause(_) => "pause",
        };
        match self.any() {
            Some(field) => Err(format!(
                "{field:?} in a {kind:?} row; only rows with \"run\" have it"
            )),
            None => Ok(()),
        }
    }
}

fn json(value: &Value) -> String {
    shown(&value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMON: &str = r#""at":"2026-06-01T10:00:00Z","repository":"ns/r""#;
    const RUN: &str = r#""limit":2,"run":"ns/a","duration_s":1.5"#;

    fn event(fields: &str) -> Event {
        parse(7, format!("{{{COMMON},{fields}}}").as_bytes())
            .unwrap()
            .event
    }

    fn error(text: &str) -> String {
        parse(7, text.as_bytes()).unwrap_err()
    }

    fn refused(fields: &str, fragment: &str) {
        let message = error(&format!("{{{COMMON},{fields}}}"));
        assert!(message.contains(fragment), "{fields}: {message}");
        assert!(message.len() < 400, "{message}");
    }

    fn duration_of(text: &str) -> Duration {
        match event(&format!(r#""limit":0,"run":"ns/a","duration_s":{text}"#)) {
            Event::Run { duration, .. } => duration,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_kinds_of_rows() {
        let run = Event::Run {
            run: "ns/a".parse().unwrap(),
            limit: Limit::new(2),
            duration: Duration::from_millis(1_500),
            priority: Priority::new(0),
            weight: Weight::ONE,
            group: None,
            supersedes: Supersedes::None,
        };
        assert_eq!(event(RUN), run);
        assert_eq!(event(&format!("{RUN},\"priority\":null")), run);
        let urgent = event(&format!("{RUN},\"priority\":-3"));
        assert!(matches!(urgent, Event::Run { priority, .. } if priority.get() == -3));
        assert_eq!(event(r#""set_limit":0"#), Event::SetLimit(Limit::UNLIMITED));
        assert_eq!(
            event(r#""cancel":"ns/a""#),
            Event::Cancel("ns/a".parse().unwrap())
        );
    }

    #[test]
    fn a_run_may_weigh_more_and_supersede_those_of_its_group() {
        let heavy = event(&format!(
            r#"{RUN},"weight":2,"group":"pr-7","supersede":"all""#
        ));
        let Event::Run {
            weight,
            group,
            supersedes,
            ..
        } = heavy
        else {
            panic!("{heavy:?}");
        };
        assert_eq!((weight.get(), supersedes), (2, Supersedes::All));
        assert_eq!(group, Some("pr-7".parse().unwrap()));
        assert_eq!(event(r#""pause":true"#), Event::Pause(true));
        for (fields, part) in [
            (r#""weight":0"#, "from 1 to 65535, not 0"),
            (r#""weight":3"#, "more than the limit, which is 2"),
            (r#""supersede":"all""#, "does not say whose"),
            (r#""group":"a","supersede":true"#, "\"waiting\" or \"all\""),
            (r#""group":7"#, "\"group\" must be a string"),
        ] {
            refused(&format!("{RUN},{fields}"), part);
        }
        refused(r#""pause":"yes""#, "\"pause\" must be true or false");
        refused(
            r#""pause":true,"weight":2"#,
            "only rows with \"run\" have it",
        );
    }

    #[test]
    fn durations_are_rounded_to_milliseconds() {
        for (text, millis) in [
            ("0", 0),
            ("-0.0", 0),
            ("0.0004", 0),
            ("0.0005", 1),
            ("282.5", 282_500),
            ("0.1", 100),
            ("1e2", 100_000),
            ("31622400", 31_622_400_000),
        ] {
            assert_eq!(duration_of(text), Duration::from_millis(millis), "{text}");
        }
    }

    #[test]
    fn values_outside_their_range_are_refused_with_the_range() {
        for value in ["-1", "31622400.1", "1e300", "\"5\"", "true", "[1]", "{}"] {
            refused(
                &format!(r#""limit":1,"run":"ns/a","duration_s":{value}"#),
                "\"duration_s\" must be a number of seconds from 0 to 31622400 (366 days), not ",
            );
        }
        for value in [
            "-1",
            "1.5",
            "3.0",
            "4294967296",
            "99999999999999999999",
            "\"3\"",
            "true",
        ] {
            let rule = "must be a whole number from 0 (no limit) to 4294967295, not ";
            refused(
                &format!(r#""limit":{value},"run":"ns/a","duration_s":1"#),
                rule,
            );
            refused(&format!(r#""set_limit":{value}"#), rule);
        }
        for value in ["2147483648", "-2147483649", "0.5", "\"1\"", "[]"] {
            refused(
                &format!("{RUN},\"priority\":{value}"),
                "\"priority\" must be a whole number from -2147483648 to 2147483647, not ",
            );
        }
        for value in ["NaN", "1e999", "-Infinity", "0x10", "01", "+1", "'1'"] {
            refused(&format!("\"set_limit\":{value}"), "not valid JSON: ");
        }
    }

    #[test]
    fn a_row_is_of_exactly_one_kind_and_has_only_its_fields() {
        refused(r#""priority":1"#, "must have exactly one of");
        refused(
            &format!("{RUN},\"set_limit\":1"),
            "\"run\" and \"set_limit\" in one row",
        );
        refused(
            &format!("{RUN},\"cancel\":\"ns/a\""),
            "\"run\" and \"cancel\" in one row",
        );
        refused(
            r#""set_limit":1,"cancel":"ns/a""#,
            "\"set_limit\" and \"cancel\" in one row",
        );
        refused(
            r#""cancel":"ns/a","limit":1"#,
            "\"limit\" in a \"cancel\" row",
        );
        refused(
            r#""set_limit":1,"duration_s":1"#,
            "\"duration_s\" in a \"set_limit\" row",
        );
    }

    #[test]
    fn missing_unknown_and_repeated_fields_are_named() {
        assert_eq!(error("{}"), "\"at\" is missing");
        assert_eq!(
            error(r#"{"at":"2026-06-01T10:00:00Z"}"#),
            "\"repository\" is missing"
        );
        refused(r#""run":"ns/a","duration_s":1"#, "\"limit\" is missing");
        refused(
            r#""run":"ns/a","duration_s":1,"limit":null"#,
            "\"limit\" is missing",
        );
        refused(r#""run":"ns/a","limit":1"#, "\"duration_s\" is missing");
        for (unknown, nearest) in [
            ("limt", "limit"),
            ("duration", "duration_s"),
            ("setLimit", "set_limit"),
            ("repo", "repository"),
            ("Priority", "priority"),
        ] {
            refused(
                &format!("{RUN},{unknown:?}:1"),
                &format!("unknown field {unknown:?}; the nearest known one is {nearest:?}"),
            );
        }
        refused(&format!("{RUN},\"limit\":2"), "\"limit\" is there twice");
        refused(&format!("{RUN},\"at\":null"), "\"at\" is there twice");
        refused(
            &format!("{RUN},\"{}\":1", "x".repeat(100_000)),
            "unknown field",
        );
    }

    #[test]
    fn what_is_no_object_is_refused() {
        for text in ["[]", "3", "\"x\"", "null", "nonsense", "\u{1b}[31m"] {
            let message = error(text);
            assert!(message.contains("a row must be a JSON object"), "{message}");
            assert!(!message.contains('\u{1b}'));
        }
        let whole = format!("{{{COMMON},{RUN}}}");
        for end in 1..whole.len() {
            assert_eq!(
                error(&whole[..end]),
                "the line ends before its JSON object does",
                "{end}"
            );
        }
        assert!(error(&format!("{whole} {whole}")).contains("trailing characters at column"));
        assert!(error(&format!("{{\"at\":{}", "[".repeat(10_000))).contains("recursion limit"));
        let message = parse(1, b"{\"at\":\"\xff\"}").unwrap_err();
        assert_eq!(message, "byte 8 is not UTF-8; a trace is UTF-8 text");
    }

    #[test]
    fn names_and_times_are_held_to_their_rules() {
        let message = error(r#"{"at":"yesterday","repository":"ns/r","set_limit":1}"#);
        assert!(
            message.starts_with("\"at\" must be an RFC 3339"),
            "{message}"
        );
        let message = error(r#"{"at":"2026-06-01T10:00:00Z","repository":"NS/r","set_limit":1}"#);
        assert!(
            message.starts_with("\"repository\": invalid repository key"),
            "{message}"
        );
        refused(
            r#""cancel":"a/../b""#,
            "\"cancel\": invalid pipeline run key",
        );
        refused(r#""cancel":7"#, "\"cancel\" must be a string, not 7");
    }
}
