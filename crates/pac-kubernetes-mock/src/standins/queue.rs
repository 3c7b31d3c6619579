//! The in-memory queue of Pipelines-as-Code's watcher.

use std::collections::BTreeMap;

use serde_json::{Value, json};

/// The queues of all Repositories. Keys are `namespace/name`, of Repositories and of runs.
#[derive(Debug, Default)]
pub(super) struct Queues(BTreeMap<String, Queue>);

#[derive(Debug, Default)]
struct Queue {
    /// 0: no limit.
    limit: usize,
    running: Vec<String>,
    /// In the order in which they came.
    pending: Vec<String>,
}

impl Queues {
    /// Appends the runs that the queue does not know, and lets as many heads run as the limit has
    /// room for; returns those. Without a limit it returns all that wait, and counts none.
    pub(super) fn add_to_running(
        &mut self,
        repository: &str,
        limit: Option<i64>,
        runs: &[String],
    ) -> Vec<String> {
        let queue = self.add(repository, limit, runs);
        if queue.limit == 0 {
            return queue.pending.clone();
        }
        let mut acquired = Vec::new();
        while let Some(head) = queue.take_head() {
            acquired.push(head);
        }
        acquired
    }

    /// Appends the runs that the queue does not know, and starts none.
    pub(super) fn add_to_pending(&mut self, repository: &str, limit: Option<i64>, runs: &[String]) {
        self.add(repository, limit, runs);
    }

    /// Takes a run out, wherever it is.
    pub(super) fn remove(&mut self, repository: &str, run: &str) {
        if let Some(queue) = self.0.get_mut(repository) {
            queue.remove(run);
        }
    }

    /// Takes a run out, and lets at most one head run; returns that.
    pub(super) fn remove_and_take(&mut self, repository: &str, run: &str) -> Option<String> {
        let queue = self.0.get_mut(repository)?;
        queue.remove(run);
        queue.take_head()
    }

    /// Drops the queue of a Repository.
    pub(super) fn remove_repository(&mut self, repository: &str) {
        self.0.remove(repository);
    }

    /// What `/debug/queue` answers: per Repository the limit, and what runs and waits, sorted.
    pub(super) fn snapshot(&self) -> Value {
        let sorted = |keys: &[String]| {
            let mut keys = keys.to_vec();
            keys.sort();
            keys
        };
        let queues = self.0.iter().map(|(repository, queue)| {
            let shown = json!({
                "limit": queue.limit,
                "running": sorted(&queue.running),
                "pending": sorted(&queue.pending),
            });
            (repository.clone(), shown)
        });
        Value::Object(queues.collect())
    }

    fn add(&mut self, repository: &str, limit: Option<i64>, runs: &[String]) -> &mut Queue {
        let queue = self.0.entry(repository.to_owned()).or_default();
        queue.limit = limit
            .and_then(|limit| usize::try_from(limit).ok())
            .unwrap_or(0);
        for run in runs {
            if !queue.running.contains(run) && !queue.pending.contains(run) {
                queue.pending.push(run.clone());
            }
        }
        queue
    }
}

impl Queue {
    fn remove(&mut self, run: &str) {
        self.running.retain(|kept| kept != run);
        self.pending.retain(|kept| kept != run);
    }

    fn take_head(&mut self) -> Option<String> {
        if self.pending.is_empty() || (self.limit > 0 && self.running.len() >= self.limit) {
            return None;
        }
        let head = self.pending.remove(0);
        self.running.push(head.clone());
        Some(head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn order_is_that_of_the_list_and_a_raised_limit_lets_more_run() {
        let mut queues = Queues::default();
        assert_eq!(
            queues.add_to_running("r", Some(1), &keys(&["first"])),
            ["first"]
        );
        assert_eq!(queues.remove_and_take("r", "first"), None);
        let acquired = queues.add_to_running("r", Some(1), &keys(&["second", "third"]));
        assert_eq!(acquired, ["second"]);
        let acquired = queues.add_to_running("r", Some(1), &keys(&["fourth", "fifth"]));
        assert!(acquired.is_empty());
        assert_eq!(
            queues.remove_and_take("r", "second").as_deref(),
            Some("third")
        );
        let acquired = queues.add_to_running("r", Some(2), &keys(&["sixth", "seventh"]));
        assert_eq!(acquired, ["fourth"]);
    }

    #[test]
    fn without_a_limit_all_are_returned_and_none_is_counted() {
        let mut queues = Queues::default();
        for _ in 0..2 {
            let acquired = queues.add_to_running("r", None, &keys(&["a", "b"]));
            assert_eq!(acquired, ["a", "b"]);
        }
        assert_eq!(queues.snapshot()["r"]["running"], json!([]));
    }
}
