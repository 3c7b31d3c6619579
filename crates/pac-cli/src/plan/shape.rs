//! The plan as JSON and YAML, as `docs/json.md` describes it.

use pac_pipelines::vocabulary;
use serde::Serialize;

use super::manifests::{Place, Problem};
use super::order::Order;
use super::report::{Fate, LimitOf, Line, Queue, Report};
use crate::event::EventShape;
use crate::time::rfc3339;

#[derive(Debug, Serialize)]
pub(super) struct Shape<'a> {
    repositories: Vec<RepositoryShape<'a>>,
    elsewhere: Vec<RunShape<'a>>,
    unreadable: Vec<ProblemShape<'a>>,
    warnings: Vec<ProblemShape<'a>>,
    other_objects: usize,
}

#[derive(Debug, Serialize)]
struct RepositoryShape<'a> {
    repository: &'a str,
    /// 0 means no limit; `None` that it is not known.
    limit: Option<u32>,
    /// The Repository that has the limit.
    limit_of: Option<&'a str>,
    runs: Vec<RunShape<'a>>,
}

#[derive(Debug, Serialize)]
struct RunShape<'a> {
    run: &'a str,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    reason: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    order: Option<OrderShape>,
    new: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    generate_name: Option<&'a str>,
    #[serde(skip_serializing_if = "EventShape::is_empty")]
    event: EventShape<'a>,
    #[serde(flatten)]
    place: PlaceShape<'a>,
}

#[derive(Debug, Serialize)]
#[serde(tag = "by", rename_all = "kebab-case")]
enum OrderShape {
    /// Without a place for a run that its order does not name.
    ExecutionOrder {
        created_at: Option<String>,
        place: Option<usize>,
        of: Option<usize>,
    },
    Creation {
        created_at: String,
    },
    Name,
}

#[derive(Debug, Serialize)]
struct PlaceShape<'a> {
    file: &'a str,
    document: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    item: Option<usize>,
}

#[derive(Debug, Serialize)]
struct ProblemShape<'a> {
    #[serde(flatten)]
    place: PlaceShape<'a>,
    object: Option<&'a str>,
    field: Option<&'a str>,
    rule: &'a str,
}

impl<'a> Shape<'a> {
    pub(super) fn of(report: &'a Report<'_>) -> Self {
        let problems = |problems: &'a [Problem]| problems.iter().map(ProblemShape::of).collect();
        Self {
            repositories: report
                .repositories
                .iter()
                .map(RepositoryShape::of)
                .collect(),
            elsewhere: report.elsewhere.iter().map(RunShape::of).collect(),
            unreadable: problems(report.unreadable),
            warnings: problems(report.warnings),
            other_objects: report.others,
        }
    }
}

impl<'a> RepositoryShape<'a> {
    fn of(queue: &'a Queue<'_>) -> Self {
        let repository = queue.repository.as_str();
        let (limit, limit_of) = match queue.limit {
            LimitOf::Own(runs) => (Some(runs), Some(repository)),
            LimitOf::Global(runs, global) => (Some(runs), Some(global.as_str())),
            LimitOf::None => (Some(0), None),
            LimitOf::Unknown => (None, None),
        };
        Self {
            repository,
            limit,
            limit_of,
            runs: queue.runs.iter().map(RunShape::of).collect(),
        }
    }
}

impl<'a> RunShape<'a> {
    fn of(line: &'a Line<'_>) -> Self {
        let view = &line.run.view;
        let position = match line.fate {
            Fate::Queued(position) => Some(position),
            _ => None,
        };
        let mark = |name| view.annotation(name).or_else(|| view.label(name));
        Self {
            run: view.key.as_str(),
            state: state(line.fate),
            position,
            reason: &line.reason,
            order: line.order.as_ref().map(OrderShape::of),
            new: line.run.is_new,
            generate_name: view.generate_name.as_deref(),
            event: EventShape {
                kind: mark(vocabulary::EVENT_TYPE),
                pull_request: mark(vocabulary::PULL_REQUEST),
                sha: mark(vocabulary::SHA),
                ..EventShape::default()
            },
            place: PlaceShape::of(&line.run.place),
        }
    }
}

impl OrderShape {
    fn of(order: &Order) -> Self {
        match order {
            Order::Event { at, place, of } => Self::ExecutionOrder {
                created_at: at.map(rfc3339),
                place: Some(*place),
                of: Some(*of),
            },
            Order::Unnamed => Self::ExecutionOrder {
                created_at: None,
                place: None,
                of: None,
            },
            Order::Created { at, .. } => Self::Creation {
                created_at: rfc3339(*at),
            },
            Order::Undated => Self::Name,
        }
    }
}

impl<'a> PlaceShape<'a> {
    fn of(place: &'a Place) -> Self {
        Self {
            file: &place.file,
            document: place.document,
            item: place.item,
        }
    }
}

impl<'a> ProblemShape<'a> {
    fn of(problem: &'a Problem) -> Self {
        Self {
            place: PlaceShape::of(&problem.place),
            object: problem.object.as_deref(),
            field: problem.field.as_deref(),
            rule: &problem.rule,
        }
    }
}

fn state(fate: Fate) -> &'static str {
    match fate {
        Fate::Runs(_) => "runs",
        Fate::Starts(_) => "starts",
        Fate::Queued(_) => "queued",
        Fate::Cancelled => "cancelled",
        Fate::Ended => "ended",
        Fate::HeldByUser => "held-by-user",
        Fate::LeftAlone => "left-alone",
        Fate::TooHeavy => "too-heavy",
        Fate::LimitUnknown => "limit-unknown",
        Fate::NoRepository => "no-repository",
    }
}
