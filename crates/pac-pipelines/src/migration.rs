//! What the objects of a cluster say to a migration: the annotation-based system as a state to be
//! brought along, and facts about runs for the layouts that lack them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use pac_core::migration::{
    ClusterFacts, LeftOut, LegacyRepository, LegacyRun, LegacySource, LegacyState, RunFacts,
};
use pac_core::{Limit, RepositoryKey, Timestamp};

use crate::annotations::{Circumstances, Queue};
use crate::integration::Phase;
use crate::model::{Object, RepositoryView, RunView, parse_documents};

/// Runs and Repositories of a cluster, read from texts or from [lists](crate::Cluster).
#[derive(Debug)]
#[non_exhaustive]
pub struct ClusterObjects {
    /// The Repository whose limit holds for those without one of their own. Its namespace is that
    /// of Pipelines-as-Code; runs whose `controller-info` names another `gRepo` there inherit from
    /// that one.
    pub global_repository: RepositoryKey,
    /// The runs.
    pub runs: Vec<RunView>,
    /// The Repositories.
    pub repositories: Vec<RepositoryView>,
    /// What could not be understood.
    pub unreadable: Vec<LeftOut>,
}

impl ClusterObjects {
    /// Of a cluster with this global Repository, which need not exist.
    #[must_use]
    pub fn new(global_repository: RepositoryKey) -> Self {
        Self {
            global_repository,
            runs: Vec::new(),
            repositories: Vec::new(),
            unreadable: Vec::new(),
        }
    }

    /// Takes the objects of a YAML or JSON text in; `source` names the text in errors. Objects of
    /// other kinds are passed over.
    pub fn add_text(&mut self, source: &str, text: &str) {
        for object in parse_documents(source, text) {
            let object = object.and_then(|object| {
                match object {
                    Object::Run(manifest) => self.runs.push(manifest.into_view()?),
                    Object::Repository(view) => self.repositories.push(view),
                    Object::Other { .. } => {}
                }
                Ok(())
            });
            if let Err(error) = object {
                let left = LeftOut::open(source, error.to_string());
                self.unreadable.push(left);
            }
        }
    }

    /// What a migration of another layout needs to know of them.
    #[must_use]
    pub fn facts(&self) -> ClusterFacts {
        let mut facts = ClusterFacts::default();
        facts.runs.extend(self.runs.iter().map(|run| {
            let known = RunFacts {
                uid: run.uid.clone(),
                repository: run.repository(),
                is_over: matches!(Phase::of(run, true), Phase::Done(_) | Phase::Ending { .. }),
            };
            (run.key.clone(), known)
        }));
        facts.limits.extend(self.limits());
        facts
    }

    /// The state of the annotation-based system: the runs of each Repository that run, and those
    /// that are held back for it, in the order in which it would start them. `now` is what creation
    /// times are compared with.
    #[must_use]
    pub fn annotated(&self, now: Timestamp) -> LegacyState {
        let mut state = LegacyState::new(LegacySource::Annotations);
        state.left_out.extend(self.unreadable.iter().cloned());
        let mut by_repository: BTreeMap<RepositoryKey, Vec<Arc<RunView>>> = BTreeMap::new();
        for run in &self.runs {
            if let Some(repository) = run.repository() {
                let runs = by_repository.entry(repository).or_default();
                runs.push(Arc::new(run.clone()));
            }
        }
        let limits: BTreeMap<_, _> = self.limits().collect();
        for (key, runs) in by_repository {
            let mut there = LegacyRepository::default();
            there.limit = limits.get(&key).copied();
            // Nothing starts without a limit, so the queue holds all that wait.
            let circumstances = Circumstances::new(None, now, Duration::ZERO);
            let mut queue = Queue::default();
            queue.plan(&runs, circumstances, |_| Duration::MAX);
            let find = |key: &_| runs.iter().find(|run| run.key == *key);
            let mut running: Vec<_> = queue.running().filter_map(find).collect();
            running.sort_by_key(|run| (run.started.or(run.created), &run.key));
            let legacy =
                |run: &Arc<RunView>| LegacyRun::new(run.key.clone(), Some(run.uid.clone()));
            there.running.extend(running.into_iter().map(legacy));
            there
                .queued
                .extend(queue.waiting().filter_map(find).map(legacy));
            if !is_empty(&there) {
                state.repositories.insert(key, there);
            }
        }
        state
    }

    /// The limit in force for each Repository that has one: its own, or else the global one.
    fn limits(&self) -> impl Iterator<Item = (RepositoryKey, Limit)> {
        let own: BTreeMap<_, _> = self
            .repositories
            .iter()
            .map(|view| (&view.key, view.limit))
            .collect();
        let controllers = self.controllers();
        self.repositories.iter().filter_map(move |view| {
            let global = || {
                let named = controllers.get(&view.key).map(|(_, named)| named);
                *own.get(named.unwrap_or(&self.global_repository))?
            };
            Some((view.key.clone(), view.limit.or_else(global)?))
        })
    }

    /// The global Repository of the controller that made the newest run of each Repository, where
    /// runs say so.
    fn controllers(&self) -> BTreeMap<RepositoryKey, (Option<Timestamp>, RepositoryKey)> {
        let mut controllers: BTreeMap<_, (Option<Timestamp>, RepositoryKey)> = BTreeMap::new();
        let namespace = self.global_repository.namespace();
        for run in &self.runs {
            let named = run.global_repository();
            let named = named.and_then(|name| RepositoryKey::new(namespace, &name).ok());
            if let (Some(repository), Some(named)) = (run.repository(), named) {
                let newest = controllers.entry(repository);
                let newest = newest.or_insert_with(|| (run.created, named.clone()));
                if newest.0 < run.created {
                    *newest = (run.created, named);
                }
            }
        }
        controllers
    }
}

fn is_empty(there: &LegacyRepository) -> bool {
    there.running.is_empty() && there.queued.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn global() -> RepositoryKey {
        "pac/pipelines-as-code".parse().unwrap()
    }

    fn run(name: &str, created: u32, rest: &str) -> String {
        format!(
            "---\nkind: PipelineRun\nmetadata: {{name: {name}, namespace: ci, uid: u-{name}, \
             creationTimestamp: \"2026-11-29T08:00:{created:02}Z\", \
             labels: {{pipelinesascode.tekton.dev/state: started}}, annotations: \
             {{pipelinesascode.tekton.dev/repository: web, \
             pipelinesascode.tekton.dev/state: {rest}\n"
        )
    }

    fn held(name: &str, created: u32, order: &str) -> String {
        let order = format!("pipelinesascode.tekton.dev/execution-order: \"{order}\"");
        run(
            name,
            created,
            &format!("queued, {order}}}}}\nspec: {{status: PipelineRunPending}}"),
        )
    }

    #[test]
    fn the_annotations_decide_and_the_order_of_events_is_kept() {
        let event = "ci/pr2,ci/pr10";
        let text = [
            held("pr10", 5, event),
            held("pr2", 6, event),
            held("first", 1, "ci/first"),
            run(
                "done",
                0,
                "completed}}\nstatus: {startTime: \"2026-11-29T08:00:00Z\", \
                 conditions: [{type: Succeeded, status: \"True\"}]}",
            ),
            run(
                "runs",
                0,
                "started}}\nstatus: {startTime: \"2026-11-29T08:00:09Z\"}",
            ),
            "---\nkind: Repository\nmetadata: {name: web, namespace: ci}\n\
             spec: {concurrency_limit: 2}\n"
                .to_owned(),
        ]
        .concat();
        let mut objects = ClusterObjects::new(global());
        objects.add_text("all.yaml", &text);
        assert_eq!(objects.unreadable, []);
        let state = objects.annotated(Timestamp::from_unix_millis(1_900_000_000_000));
        let web = &state.repositories[&"ci/web".parse().unwrap()];
        let names = |runs: &[LegacyRun]| -> Vec<String> {
            runs.iter().map(|run| run.run.name().to_owned()).collect()
        };
        assert_eq!(names(&web.running), ["runs"]);
        assert_eq!(names(&web.queued), ["first", "pr2", "pr10"]);
        assert_eq!(web.limit, Some(Limit::new(2)));
        assert_eq!(web.queued[0].uid, Some("u-first".parse().unwrap()));
        assert!(objects.facts().runs[&"ci/done".parse().unwrap()].is_over);
    }

    /// `gRepo` names it, in the namespace of Pipelines-as-Code; the newest run counts.
    #[test]
    fn a_repository_without_a_limit_inherits_that_of_its_controller() {
        let repository = |key: &str, limit: &str| {
            let (namespace, name) = key.split_once('/').unwrap();
            format!(
                "---\nkind: Repository\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
                 spec: {{{limit}}}\n"
            )
        };
        let by = |name: &str, created: u32, global: &str| {
            let info = format!("pipelinesascode.tekton.dev/controller-info: '{global}'");
            held(name, created, &format!("ci/{name}\", {info}, x: \""))
        };
        let limit = |texts: &[String]| {
            let mut objects = ClusterObjects::new(global());
            objects.add_text("all.yaml", &texts.concat());
            assert_eq!(objects.unreadable, []);
            let state = objects.annotated(Timestamp::from_unix_millis(1_900_000_000_000));
            let limit = state.repositories[&"ci/web".parse().unwrap()].limit;
            let web = "ci/web".parse().unwrap();
            assert_eq!(objects.facts().limits.get(&web).copied(), limit);
            limit.and_then(Limit::get)
        };
        let mut texts = vec![
            held("a", 1, "ci/a"),
            repository("ci/web", ""),
            repository("pac/pipelines-as-code", "concurrency_limit: 3"),
            repository("pac/other", "concurrency_limit: 4"),
            repository("ci/other", "concurrency_limit: 5"),
        ];
        assert_eq!(limit(&texts), Some(3));
        texts.push(by("b", 3, r#"{"name": "x", "gRepo": "other"}"#));
        texts.push(by("c", 2, r#"{"gRepo": "pipelines-as-code"}"#));
        texts.push(by("d", 4, r#"{"gRepo": ""}"#));
        texts.push(by("e", 5, "no JSON"));
        assert_eq!(limit(&texts), Some(4));
        texts.push(by("f", 6, r#"{"gRepo": "absent"}"#));
        assert_eq!(limit(&texts), None);
        texts[1] = repository("ci/web", "concurrency_limit: 2");
        assert_eq!(limit(&texts), Some(2));
    }

    #[test]
    fn what_cannot_be_understood_is_told_and_keeps_the_old_state() {
        let mut objects = ClusterObjects::new(global());
        objects.add_text(
            "x.yaml",
            "kind: PipelineRun\nmetadata: {name: A, namespace: ci}\n",
        );
        assert!(objects.unreadable[0].is_open);
    }
}
