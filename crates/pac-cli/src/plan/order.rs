//! Why the runs of a Repository come in their order.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use pac_concurrency::{PipelineRunKey, Timestamp};
use pac_pipelines::integration::batches;
use pac_pipelines::model::RunView;

use super::manifests::Run;
use crate::time::to_jiff;

/// What gives a run its place among those that want a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Order {
    /// The execution order of its event.
    Event {
        /// When the first of them was created: that orders events. `None` where its manifest has none.
        at: Option<Timestamp>,
        /// Counted from 1.
        place: usize,
        of: usize,
    },
    /// It bears an execution order that does not name it: the last of that event.
    Unnamed,
    /// The moment of its creation; among those of one second, its name as people count.
    Created { at: Timestamp, shared: bool },
    /// Its manifest has no time of creation: after all others, by its name as people count.
    Undated,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Event { at, place, of } => {
                write!(f, "execution order, {place} of {of}")?;
                at.map_or(Ok(()), |at| write!(f, " ({})", to_jiff(at)))
            }
            Self::Unnamed => f.write_str("execution order without it: last"),
            Self::Created { at, shared } => {
                write!(f, "created {}", to_jiff(*at))?;
                f.write_str(if *shared { ", then name" } else { "" })
            }
            Self::Undated => f.write_str("no creation time: last, by name"),
        }
    }
}

/// The reasons for the places of runs of one Repository, by the batches that the controller
/// admits them in.
pub(super) fn reasons(runs: &[&Run]) -> HashMap<PipelineRunKey, Order> {
    let views: Vec<_> = runs.iter().map(|run| Arc::new(run.view.clone())).collect();
    let dated = runs.iter().filter(|run| run.has_time);
    let dated: HashSet<_> = dated.map(|run| &run.view.key).collect();
    let undated = |view: &RunView| !dated.contains(&view.key);
    let now = Timestamp::from_unix_millis(0);
    let due = batches(&views, now, Duration::ZERO, |_| Duration::ZERO).due;
    let mut reasons = HashMap::new();
    for batch in &due {
        let first = batch.first().filter(|first| !undated(first));
        let at = first.and_then(|first| first.created);
        for view in batch {
            let order = match event(batch, view, at) {
                Some(order) => order,
                None if undated(view) => Order::Undated,
                None => Order::Created {
                    at: view.created.unwrap_or(now),
                    shared: batch.len() > 1,
                },
            };
            reasons.insert(view.key.clone(), order);
        }
    }
    reasons
}

/// The place of a run in the execution order of its batch, if it has one.
fn event(batch: &[Arc<RunView>], view: &RunView, at: Option<Timestamp>) -> Option<Order> {
    let mut orders = batch.iter().filter_map(|other| other.order());
    let named = orders.find_map(|order| {
        Some(Order::Event {
            at,
            place: order.position(&view.key)? + 1,
            of: order.runs().len(),
        })
    });
    named.or_else(|| view.order().map(|_| Order::Unnamed))
}
