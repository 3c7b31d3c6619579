//! What an event says. Pure.

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use pac_core::Limit;
use pac_core::manager::Paused;
use pac_pipelines::model::stable_hash;
use pac_pipelines::sections::section_of;
use pac_pipelines::{Notice, What, vocabulary};

/// The controller, as events name it.
const REPORTER: &str = "pac-concurrency";

/// How many bytes a note has at most.
const NOTE: usize = 1_024;

/// How many bytes of a run's name an event's name has at most; 253 is allowed in all.
const NAME: usize = 200;

/// What is told of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Told {
    /// The event's name.
    pub(super) name: String,
    reason: &'static str,
    action: &'static str,
    is_warning: bool,
    note: String,
}

impl Told {
    /// What is told of a notice; `None` where that is nothing new to people.
    pub(super) fn of(notice: &Notice) -> Option<Self> {
        let repository = &notice.repository;
        // What tells two events of one run and one reason apart; the same in every controller.
        let mut which = String::new();
        let (reason, action, is_warning, note) = match &notice.what {
            What::Queued { again: true, .. } => return None,
            What::Queued {
                position,
                of,
                running,
                limit,
                pause,
                ..
            } => {
                let (most, paused) = (most(*limit), paused(pause.as_ref()));
                let note = format!(
                    "queued at position {position} of {of} in {repository}, {running} \
                     running{most}{paused}"
                );
                ("Queued", "Queue", false, note)
            }
            What::Started { token } => {
                which = token.to_string();
                let note = format!("started with token {token}");
                ("Started", "Start", false, note)
            }
            What::GivenBack { token } => {
                let note = format!(
                    "the cluster did not let it start with token {token}: the slot was given back, \
                     and it waits in its old place in {repository}; an admission webhook may \
                     refuse the change"
                );
                ("StartFailed", "Start", true, note)
            }
            What::Requeued => {
                let note = format!(
                    "no controller looked after its slot for too long, and it had not started: it \
                     waits in its old place in {repository}"
                );
                ("Requeued", "Queue", true, note)
            }
            What::CancelledInStore { runs } => {
                let form = if *runs { "; its finally tasks run" } else { "" };
                let note = format!("cancelled in the store of {repository}: it is ended{form}");
                ("CancelledInStore", "Cancel", false, note)
            }
            What::Superseded { group } => {
                let group = group
                    .as_ref()
                    .map_or_else(String::new, |group| format!(" {group}"));
                let note = format!(
                    "a newer run of its group{group} has taken its place in {repository}: it is \
                     cancelled"
                );
                ("Superseded", "Cancel", false, note)
            }
            What::AskedToEnd { runs } => {
                let form = if *runs {
                    "; its finally tasks run"
                } else {
                    " before it started"
                };
                let note = format!(
                    "asked to end, by a newer run of its group, by an operator, or because it has \
                     held its slot in {repository} for as long as it may: it is cancelled{form}"
                );
                ("AskedToEnd", "Cancel", false, note)
            }
            What::TimedOut { runs } => {
                let (did, annotation) = if *runs {
                    ("held its slot", vocabulary::MAX_HOLD)
                } else {
                    ("waited", vocabulary::MAX_WAIT)
                };
                let note = format!(
                    "it has {did} in {repository} for as long as it may ({annotation}): it is \
                     cancelled"
                );
                ("TimedOut", "Cancel", true, note)
            }
            What::QueueFull { max_queued } => {
                let most = max_queued.map_or_else(String::new, |most| format!(": {most}"));
                let note = format!(
                    "as many runs wait in {repository} as may{most} ({}): it is cancelled; start it \
                     again later, or have more wait",
                    vocabulary::MAX_QUEUED
                );
                ("QueueFull", "Cancel", true, note)
            }
            What::StartedUnprepared { missing } => {
                let note = format!(
                    "started although Pipelines-as-Code {missing}, for which it was waited: it may \
                     fail; see whether the watcher of Pipelines-as-Code works"
                );
                ("StartedUnprepared", "Start", true, note)
            }
            What::InTwoModes { limited_by } => {
                let annotation = vocabulary::LIMIT;
                let note = if limited_by == repository {
                    format!(
                        "not managed: {repository} has both spec.concurrency_limit and the \
                         annotation {annotation}; remove one of them"
                    )
                } else {
                    format!(
                        "not managed: {repository} has the annotation {annotation}, and the \
                         spec.concurrency_limit of {limited_by} holds for it too; remove one of them"
                    )
                };
                ("NotManaged", "Queue", true, note)
            }
            What::Refused { message } => {
                which.clone_from(message);
                let note = format!("stays held back until this is put right: {message}");
                ("NotQueued", "Queue", true, note)
            }
            What::InvalidAnnotation { message } => {
                which.clone_from(message);
                ("InvalidAnnotation", "Read", true, message.clone())
            }
            What::SectionQueued {
                position,
                of,
                running,
                limit,
            } => {
                which = repository.to_string();
                let (section, most) = (section(notice), most(*limit));
                let note = format!(
                    "waits at position {position} of {of} for section {section}, {running} in \
                     it{most}"
                );
                ("SectionQueued", "Queue", false, note)
            }
            What::SectionEntered { token } => {
                which = format!("{repository} {token}");
                let note = format!("in section {} with token {token}", section(notice));
                ("SectionEntered", "Enter", false, note)
            }
            What::SectionLost { before, token } => {
                which = format!("{repository} {token}");
                let note = format!(
                    "its slot in section {}, token {before}, was free for others for a time, since \
                     no controller looked after it; it is counted again, with token {token}",
                    section(notice)
                );
                ("SectionLost", "Enter", true, note)
            }
            What::SectionRefused => {
                which = repository.to_string();
                let note = format!(
                    "its request for section {} was ended in the store, as by pac cancel",
                    section(notice)
                );
                ("SectionRefused", "Cancel", true, note)
            }
            _ => return None,
        };
        Some(Self {
            name: name(notice, reason, &which),
            reason,
            action,
            is_warning,
            note: cut(&note, NOTE).to_owned(),
        })
    }

    /// The event, as it is made.
    pub(super) fn event(&self, notice: &Notice, instance: &str, at: MicroTime) -> Event {
        let namespace = Some(notice.run.namespace().to_owned());
        let kind = if self.is_warning { "Warning" } else { "Normal" };
        Event {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: namespace.clone(),
                ..ObjectMeta::default()
            },
            regarding: Some(ObjectReference {
                api_version: Some("tekton.dev/v1".to_owned()),
                kind: Some("PipelineRun".to_owned()),
                namespace,
                name: Some(notice.run.name().to_owned()),
                uid: Some(notice.uid.as_str().to_owned()),
                ..ObjectReference::default()
            }),
            event_time: Some(at),
            type_: Some(kind.to_owned()),
            reason: Some(self.reason.to_owned()),
            action: Some(self.action.to_owned()),
            note: Some(self.note.clone()),
            reporting_controller: Some(REPORTER.to_owned()),
            reporting_instance: Some(cut(instance, 128).to_owned()),
            ..Event::default()
        }
    }
}

/// The section that a notice is about.
fn section(notice: &Notice) -> String {
    let name = section_of(&notice.repository);
    name.map_or_else(|| notice.repository.to_string(), |name| name.to_string())
}

fn most(limit: Limit) -> String {
    match limit.get() {
        Some(limit) => format!(" of at most {limit}"),
        None => String::new(),
    }
}

fn paused(pause: Option<&Paused>) -> String {
    match pause.map(|pause| &pause.reason) {
        Some(Some(reason)) => format!("; none starts, it is paused: {reason}"),
        Some(None) => "; none starts, it is paused".to_owned(),
        None => String::new(),
    }
}

fn name(notice: &Notice, reason: &str, which: &str) -> String {
    let run = cut(notice.run.name(), NAME).trim_end_matches(['-', '.']);
    let hash = stable_hash(&[notice.uid.as_str(), reason, which]);
    format!("{run}.{hash:016x}")
}

/// As much of a text as so many bytes hold.
fn cut(text: &str, bytes: usize) -> &str {
    let end = text.floor_char_boundary(bytes.min(text.len()));
    text.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests;
