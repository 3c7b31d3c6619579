//! What the annotations of a Namespace say about the queues of its runs.

use std::collections::BTreeMap;

use pac_core::{Limit, RepositoryKey};

use super::expression::{Expression, Input, Scope};
use super::name;
use crate::error::ModelError;
use crate::model::{NamespaceView, RunView};
use crate::vocabulary::{LANE, LANE_LABELS, LANE_LIMIT, LIMIT};

/// How many labels make a lane at most.
const LABELS: usize = 8;

/// How much of a value an error repeats, in characters.
const SHOWN: usize = 60;

/// What the annotations of a Namespace say about the queues of its runs: which lane a run belongs
/// to, and how many of a lane run at once.
#[derive(Debug, Clone)]
pub struct NamespaceRule {
    namespace: String,
    /// Of each queue without another one.
    limit: Said<Limit>,
    lanes: Said<Lanes>,
    lane_limit: Said<LaneLimit>,
    /// It says something that says nothing by itself.
    incomplete: Option<ModelError>,
}

/// What one annotation says.
#[derive(Debug, Clone)]
enum Said<T> {
    Nothing,
    This(T),
    /// It breaks its rule: nothing starts by it.
    Broken(ModelError),
}

/// What tells lanes apart.
#[derive(Debug, Clone)]
enum Lanes {
    Labels(Vec<String>),
    Expression(Expression),
}

#[derive(Debug, Clone)]
enum LaneLimit {
    Number(Limit),
    Expression(Expression),
}

/// A lane: a queue of a Namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lane {
    key: RepositoryKey,
    text: String,
    labels: BTreeMap<String, String>,
}

impl Lane {
    /// The name of its queue.
    #[must_use]
    pub fn key(&self) -> &RepositoryKey {
        &self.key
    }

    /// What an expression gave, or the values of its labels, with commas between them.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The labels that it is of, as far as its runs have them.
    #[must_use]
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }
}

impl NamespaceRule {
    /// Reads it off a Namespace.
    #[must_use]
    pub fn of(namespace: &NamespaceView) -> Self {
        let read = Reader(namespace);
        let mut rule = Self {
            namespace: namespace.name.clone(),
            limit: read.limit(),
            lanes: read.lanes(),
            lane_limit: read.lane_limit(),
            incomplete: None,
        };
        let is_said = |name| read.value(name).is_some();
        let has_lanes = !matches!(rule.lanes, Said::Nothing);
        if has_lanes && !is_said(LIMIT) && !is_said(LANE_LIMIT) {
            let name = if is_said(LANE) { LANE } else { LANE_LABELS };
            rule.incomplete = Some(read.error(
                name,
                format!("says nothing without a limit; add {LIMIT} or {LANE_LIMIT}"),
            ));
            rule.lanes = Said::Nothing;
        } else if !has_lanes && is_said(LANE_LIMIT) {
            rule.incomplete = Some(read.error(
                LANE_LIMIT,
                format!("says nothing without lanes; add {LANE_LABELS} or {LANE}, or use {LIMIT}"),
            ));
            rule.lane_limit = Said::Nothing;
        }
        rule
    }

    /// The values that break the rule of their annotation, or say nothing.
    #[must_use]
    pub fn problems(&self) -> Vec<&ModelError> {
        let limit = self.limit.broken().into_iter();
        let all = limit.chain(self.lanes.broken());
        all.chain(self.lane_limit.broken())
            .chain(&self.incomplete)
            .collect()
    }

    /// Whether it says anything about queues.
    #[must_use]
    pub fn is_said(&self) -> bool {
        !matches!(self.limit, Said::Nothing) || self.has_lanes()
    }

    /// Whether runs belong to lanes, and not to their Repositories.
    #[must_use]
    pub fn has_lanes(&self) -> bool {
        !matches!(self.lanes, Said::Nothing)
    }

    /// The lane that a run belongs to, where there are lanes; `None` where there are none.
    ///
    /// # Errors
    /// [`ModelError`] where it cannot be told: the run must not start.
    pub fn lane_of(&self, run: &RunView) -> Option<Result<Lane, ModelError>> {
        let lanes = match &self.lanes {
            Said::Nothing => return None,
            Said::Broken(error) => return Some(Err(error.clone())),
            Said::This(lanes) => lanes,
        };
        Some(match lanes {
            Lanes::Labels(keys) => self.by_labels(keys, run),
            Lanes::Expression(expression) => self.by_expression(expression, run),
        })
    }

    /// The limit of queues that have no other one; `None` where there is none.
    ///
    /// # Errors
    /// [`ModelError`] where the annotation breaks its rule.
    pub fn limit(&self) -> Result<Option<Limit>, &ModelError> {
        match &self.limit {
            Said::Nothing => Ok(None),
            Said::This(limit) => Ok(Some(*limit)),
            Said::Broken(error) => Err(error),
        }
    }

    /// The limit of a lane; `None` where there is none.
    ///
    /// # Errors
    /// [`ModelError`] where it cannot be told: nothing may start in the lane.
    pub fn limit_of(&self, lane: &Lane) -> Result<Option<Limit>, ModelError> {
        let expression = match &self.lane_limit {
            Said::Nothing => return self.limit().map_err(ModelError::clone),
            Said::Broken(error) => return Err(error.clone()),
            Said::This(LaneLimit::Number(limit)) => return Ok(Some(*limit)),
            Said::This(LaneLimit::Expression(expression)) => expression,
        };
        let number = expression.number(Input::Lane(lane));
        let limit = number.and_then(|number| {
            let runs = u32::try_from(number).ok().filter(|runs| *runs > 0);
            runs.map(Limit::new)
                .ok_or_else(|| format!("gives {number}, not a whole number of at least 1"))
        });
        limit.map(Some).map_err(|why| {
            let why = format!("{why}, for the lane {}", lane.key);
            annotation_error(format!("Namespace {}", self.namespace), LANE_LIMIT, why)
        })
    }

    fn by_labels(&self, keys: &[String], run: &RunView) -> Result<Lane, ModelError> {
        let values = keys.iter().map(|key| {
            let value = run.labels.get(key).or_else(|| run.other_labels.get(key));
            (key, value.map(String::as_str))
        });
        let values: Vec<_> = values.collect();
        let texts: Vec<_> = values.iter().map(|(_, value)| *value).collect();
        let key = name::of_texts(&self.namespace, &texts)
            .map_err(|why| self.unknown(LANE_LABELS, run, why))?;
        let text: Vec<&str> = texts.iter().map(|text| text.unwrap_or_default()).collect();
        let had = values.into_iter();
        Ok(Lane {
            key,
            text: text.join(","),
            labels: had
                .filter_map(|(key, value)| Some((key.clone(), value?.to_owned())))
                .collect(),
        })
    }

    fn by_expression(&self, expression: &Expression, run: &RunView) -> Result<Lane, ModelError> {
        let text = expression
            .text(Input::Object(run))
            .map_err(|why| self.unknown(LANE, run, &why))?;
        let key = name::of_texts(&self.namespace, &[Some(&text)])
            .map_err(|why| self.unknown(LANE, run, why))?;
        Ok(Lane {
            key,
            text,
            labels: BTreeMap::new(),
        })
    }

    /// The lane of a run cannot be told.
    fn unknown(&self, annotation: &str, run: &RunView, why: &str) -> ModelError {
        let why = format!("{why}, for PipelineRun {}", run.key);
        annotation_error(format!("Namespace {}", self.namespace), annotation, why)
    }
}

impl<T> Said<T> {
    fn broken(&self) -> Option<&ModelError> {
        match self {
            Self::Broken(error) => Some(error),
            Self::Nothing | Self::This(_) => None,
        }
    }

    fn or_broken(said: Result<T, ModelError>) -> Self {
        said.map_or_else(Self::Broken, Self::This)
    }
}

/// Reads the annotations of a Namespace.
struct Reader<'a>(&'a NamespaceView);

impl Reader<'_> {
    fn value(&self, annotation: &str) -> Option<&str> {
        self.0.annotations.get(annotation).map(|text| text.trim())
    }

    fn error(&self, annotation: &str, rule: impl Into<String>) -> ModelError {
        annotation_error(
            format!("Namespace {}", self.0.name),
            annotation,
            rule.into(),
        )
    }

    fn limit(&self) -> Said<Limit> {
        let Some(value) = self.value(LIMIT) else {
            return Said::Nothing;
        };
        Said::or_broken(number(value).ok_or_else(|| {
            let rule = format!("must be a whole number of at least 1, not {}", shown(value));
            self.error(LIMIT, rule)
        }))
    }

    fn lanes(&self) -> Said<Lanes> {
        match (self.value(LANE_LABELS), self.value(LANE)) {
            (None, None) => Said::Nothing,
            (Some(_), Some(_)) => Said::Broken(self.error(
                LANE,
                format!("must not stand beside {LANE_LABELS}; remove one of them"),
            )),
            (Some(keys), None) => {
                Said::or_broken(labels(keys).map(Lanes::Labels).ok_or_else(|| {
                    let rule = format!(
                        "must be 1 to {LABELS} keys of labels with commas between them, not {}",
                        shown(keys)
                    );
                    self.error(LANE_LABELS, rule)
                }))
            }
            (None, Some(source)) => {
                let parsed = Expression::parse(source, Scope::Object);
                Said::or_broken(
                    parsed
                        .map(Lanes::Expression)
                        .map_err(|rule| self.error(LANE, rule)),
                )
            }
        }
    }

    fn lane_limit(&self) -> Said<LaneLimit> {
        let Some(value) = self.value(LANE_LIMIT) else {
            return Said::Nothing;
        };
        if let Some(limit) = number(value) {
            return Said::This(LaneLimit::Number(limit));
        }
        if value.parse::<i64>().is_ok() {
            let rule = format!("must be a number of at least 1, not {}", shown(value));
            return Said::Broken(self.error(LANE_LIMIT, rule));
        }
        let parsed = Expression::parse(value, Scope::Lane);
        Said::or_broken(
            parsed
                .map(LaneLimit::Expression)
                .map_err(|rule| self.error(LANE_LIMIT, rule)),
        )
    }
}

fn number(text: &str) -> Option<Limit> {
    let runs: u32 = text.parse().ok()?;
    (runs > 0).then(|| Limit::new(runs))
}

/// The keys of labels, each as Kubernetes takes it.
fn labels(text: &str) -> Option<Vec<String>> {
    let keys: Vec<&str> = text.split(',').map(str::trim).collect();
    let fits = |key: &&str| {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
        !key.is_empty() && key.len() <= 317 && key.chars().all(allowed)
    };
    let is_twice = keys
        .iter()
        .enumerate()
        .any(|(at, key)| keys.iter().skip(at + 1).any(|other| other == key));
    (keys.len() <= LABELS && keys.iter().all(fits) && !is_twice)
        .then(|| keys.into_iter().map(str::to_owned).collect())
}

fn annotation_error(object: String, annotation: &str, rule: impl Into<String>) -> ModelError {
    ModelError::new(object, format!("metadata.annotations.{annotation}"), rule)
}

fn shown(value: &str) -> String {
    let start: String = value.chars().take(SHOWN).collect();
    format!("{start:?}")
}

#[cfg(test)]
mod tests;
