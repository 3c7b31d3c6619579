//! Runs as the interface names them, and what the store knows them by.

use pac_core::state::RunOutcome;
use pac_core::{Error, PipelineRunKey, Uid};

use crate::integration::{Holder, Known};
use crate::model::RunView;

/// The uid in the store of a run that only its name is known of. No uid of Kubernetes has a colon.
const STAND_IN: &str = "by-name:1";

/// A run as the interface names it: `namespace/name`, and its uid where the caller knows it.
///
/// With a uid, a new run that bears the name of an old one is another run. Without one, the name
/// means the run of that name that is in the queue, or else a new one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct RunName {
    /// The name.
    pub key: PipelineRunKey,
    /// Which run of that name, if that is known.
    pub uid: Option<Uid>,
}

impl From<PipelineRunKey> for RunName {
    fn from(key: PipelineRunKey) -> Self {
        Self { key, uid: None }
    }
}

impl From<&RunView> for RunName {
    fn from(run: &RunView) -> Self {
        Self {
            key: run.key.clone(),
            uid: Some(run.uid.clone()),
        }
    }
}

/// What to ask the store for when a run is added to a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// Nothing: it is there, or has ended.
    Nothing,
    /// A slot or a place under this uid.
    Admit(Uid),
    /// The slot and the place that this run had until no controller looked after it any more.
    Readmit(Uid),
}

impl RunName {
    /// Decides what to ask for, given what the store knows of the name.
    pub(super) fn ask(&self, known: &Known) -> Result<Ask, Error> {
        let is_same = known.uid().is_none_or(|uid| self.means(uid));
        Ok(match known {
            Known::Unknown => Ask::Admit(self.first_uid()?),
            Known::Queued { uid, holder } | Known::Started { uid, holder, .. } => {
                match (&self.uid, holder) {
                    (Some(asked), _) if !is_same => Ask::Admit(asked.clone()),
                    (_, Holder::Us | Holder::Other) => Ask::Nothing,
                    (_, Holder::Nobody) => Ask::Admit(uid.clone()),
                }
            }
            Known::Finished { .. } if !is_same => Ask::Admit(self.first_uid()?),
            Known::Finished { uid, outcome } => match outcome {
                // It was taken out of the queue, and is added again: it comes anew, as the last.
                RunOutcome::Cancelled => Ask::Admit(next_coming(uid)?),
                RunOutcome::LeaseLost => Ask::Readmit(uid.clone()),
                // It ran to its end, or a newer one took its place, or its time was over. It does not
                // run a second time.
                RunOutcome::Completed
                | RunOutcome::Failed
                | RunOutcome::Superseded
                | RunOutcome::TimedOut
                | RunOutcome::QueueFull => Ask::Nothing,
            },
        })
    }

    /// Whether the store's record with this uid is of the run that the name means.
    pub(super) fn means(&self, recorded: &Uid) -> bool {
        self.uid.as_ref().is_none_or(|asked| {
            asked == recorded
                || recorded.as_str().starts_with("by-name:")
                || split(recorded.as_str()).0 == asked.as_str()
        })
    }

    fn first_uid(&self) -> Result<Uid, Error> {
        self.uid.clone().map_or_else(|| uid(STAND_IN), Ok)
    }
}

/// The uid under which a run comes again that was taken out of the queue: the store never runs
/// one uid again that has ended. Two controllers that add the same run come to the same uid.
fn next_coming(ended: &Uid) -> Result<Uid, Error> {
    let (base, coming) = split(ended.as_str());
    uid(&format!("{base}:{}", coming.saturating_add(1)))
}

/// The uid of the run itself, and how often it has come: `u` is the first, `u:2` the second.
fn split(uid: &str) -> (&str, u64) {
    let parts = uid.rsplit_once(':');
    let parts = parts.and_then(|(base, number)| Some((base, number.parse().ok()?)));
    parts.unwrap_or((uid, 1))
}

fn uid(text: &str) -> Result<Uid, Error> {
    Ok(text.parse::<Uid>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(uid: Option<&str>) -> RunName {
        RunName {
            key: "ci/a".parse().unwrap(),
            uid: uid.map(|uid| uid.parse().unwrap()),
        }
    }

    fn queued(uid: &str, holder: Holder) -> Known {
        let uid = uid.parse().unwrap();
        Known::Queued { uid, holder }
    }

    fn ended(uid: &str, outcome: RunOutcome) -> Known {
        let uid = uid.parse().unwrap();
        Known::Finished { uid, outcome }
    }

    #[test]
    fn what_is_asked_for_depends_on_what_the_store_knows_of_the_name() {
        use Holder::{Nobody, Other, Us};
        let admit = |uid: &str| Ask::Admit(uid.parse().unwrap());
        let readmit = |uid: &str| Ask::Readmit(uid.parse().unwrap());
        for (name, known, ask) in [
            (None, Known::Unknown, admit("by-name:1")),
            (Some("u"), Known::Unknown, admit("u")),
            (None, queued("u", Us), Ask::Nothing),
            (Some("u"), queued("u", Other), Ask::Nothing),
            (Some("u"), queued("u:2", Nobody), admit("u:2")),
            (Some("u"), queued("by-name:1", Us), Ask::Nothing),
            (Some("new"), queued("u", Us), admit("new")),
            (Some("u"), ended("u", RunOutcome::Completed), Ask::Nothing),
            (Some("u"), ended("u", RunOutcome::Superseded), Ask::Nothing),
            (Some("u"), ended("u", RunOutcome::TimedOut), Ask::Nothing),
            (None, ended("u", RunOutcome::Failed), Ask::Nothing),
            (Some("u"), ended("u", RunOutcome::Cancelled), admit("u:2")),
            (Some("u"), ended("u:2", RunOutcome::Cancelled), admit("u:3")),
            (
                None,
                ended("by-name:1", RunOutcome::Cancelled),
                admit("by-name:2"),
            ),
            (Some("u"), ended("u", RunOutcome::LeaseLost), readmit("u")),
            (Some("new"), ended("u", RunOutcome::Completed), admit("new")),
        ] {
            assert_eq!(named(name).ask(&known).unwrap(), ask, "{name:?} {known:?}");
        }
    }

    #[test]
    fn a_uid_that_has_no_room_for_a_number_is_an_error() {
        let long = "u".repeat(128);
        let known = ended(&long, RunOutcome::Cancelled);
        let error = named(Some(&long)).ask(&known).unwrap_err();
        assert_eq!(error.kind(), pac_core::ErrorKind::InvalidInput);
    }
}
