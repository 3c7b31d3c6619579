//! What the steps of a run do to be in a [section](pac_pipelines::sections): they ask on their own
//! PipelineRun, wait for the controller's answer there, and leave. They talk to the API of the
//! cluster alone.

mod error;

use std::time::{Duration, SystemTime};

use pac_core::{FencingToken, PipelineRunKey, Uid};
use pac_pipelines::model::RunView;
use pac_pipelines::sections::{
    Arrival, Departure, SectionHolder, SectionName, SectionRequest, Standing,
};
use tokio::time::{Instant, sleep, sleep_until};

pub use error::{SectionError, SectionErrorKind};

use crate::client::Client;
use crate::error::{Failure, FailureKind, KubernetesError};
use crate::object::Object;
use crate::options::KubernetesOptions;
use crate::patch;

/// How long a step waits between two reads, at first and at most.
const POLLS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(10));

/// How long after a write that came too late, at most: another writer is at work.
const AFTER_CONFLICT: Duration = Duration::from_millis(300);

/// How often in a row a write may be refused before that is an answer: a run that is replaced
/// meanwhile refuses one.
const REFUSALS: u32 = 3;

/// How long leaving is tried.
const LEAVING: Duration = Duration::from_secs(60);

/// A step of a run, and the section that it is about.
#[derive(Debug, Clone)]
pub struct SectionStep {
    client: Client,
    run: PipelineRunKey,
    uid: Option<Uid>,
    section: SectionName,
    holder: SectionHolder,
    polls: (Duration, Duration),
}

/// What came of leaving a section.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Departed {
    /// The run has left it: the controller gives the slot back.
    Left,
    /// This holder has left; these others of the run are still in the section.
    Others(Vec<SectionHolder>),
    /// The run was not in the section, and did not wait for it.
    NotThere,
    /// This holder was not in the section; these others of the run are.
    NotThisHolder(Vec<SectionHolder>),
    /// The run is gone, and with it all that it had.
    RunIsGone,
}

/// What one look at the run has come to.
enum Look {
    Granted(FencingToken),
    Waits,
    /// Another writer came first.
    Again,
    /// Nothing is known; the message says why.
    Failed(String),
}

impl SectionStep {
    /// A step of this run that holds the section as [`SectionHolder::DEFAULT`]. Opens no
    /// connection. Call it within a tokio runtime.
    ///
    /// # Errors
    /// [`KubernetesError`] when there is neither a service account nor a kubeconfig that can be
    /// used.
    pub async fn connect(
        options: &KubernetesOptions,
        run: PipelineRunKey,
        section: SectionName,
        holder: SectionHolder,
    ) -> Result<Self, KubernetesError> {
        Ok(Self {
            client: Client::connect(options.clone()).await?,
            run,
            uid: None,
            section,
            holder,
            polls: POLLS,
        })
    }

    /// Of the run of this uid alone, and of no later one of its name. Without it, the run is the
    /// one that the first read finds.
    #[must_use]
    pub fn with_uid(mut self, uid: Uid) -> Self {
        self.uid = Some(uid);
        self
    }

    /// With other pauses between two reads, at first and at most. Default: 1 s and 10 s.
    #[must_use]
    pub fn with_polls(mut self, first: Duration, longest: Duration) -> Self {
        self.polls = (first, longest.max(first));
        self
    }

    /// Asks for the section, and waits for it for as long as this. A request that the run has made
    /// already, as before a retry, is joined. Answers with the fencing token. At the end of its
    /// patience it takes the request back.
    ///
    /// Dropped in flight, the request stays, and its slot or place with it: call
    /// [`release`](Self::release), or leave it to the end of the run.
    ///
    /// # Errors
    /// [`SectionError`] when the run is gone or has ended, the request was cancelled or taken back
    /// by another step, the API refuses, or patience has an end.
    pub async fn acquire(&self, patience: Duration) -> Result<FencingToken, SectionError> {
        let deadline = Instant::now() + patience;
        let mut asking = Asking {
            step: self,
            uid: self.uid.clone(),
            mine: None,
            refusals: 0,
        };
        let (mut pause, longest) = self.polls;
        let mut last = None;
        loop {
            let wait = match asking.look().await? {
                Look::Granted(token) => return Ok(token),
                Look::Again => AFTER_CONFLICT,
                Look::Waits => {
                    last = None;
                    pause
                }
                Look::Failed(message) => {
                    tracing::warn!(run = %self.run, error = %message, "the run cannot be asked for \
                         the section; trying again");
                    last = Some(message);
                    pause
                }
            };
            // Steps that began together do not ask together for ever.
            let wait = wait.mul_f64(0.5 + fastrand::f64() / 2.0);
            if Instant::now() + wait >= deadline {
                sleep_until(deadline).await;
                return self.give_up(patience, last).await;
            }
            sleep(wait).await;
            pause = pause.mul_f64(1.5).min(longest);
        }
    }

    /// Leaves the section. Doing so twice, or without being there, is harmless. Cancel-safe: it is
    /// done or not done.
    ///
    /// # Errors
    /// [`SectionError`] when the API refuses, or was not to be had for a minute.
    pub async fn release(&self) -> Result<Departed, SectionError> {
        let deadline = Instant::now() + LEAVING;
        let mut pause = AFTER_CONFLICT;
        let mut refusals = 0;
        loop {
            let failure = match self.leave().await {
                Ok(departed) => return Ok(departed),
                Err(failure) => failure,
            };
            refusals += u32::from(failure.kind == FailureKind::Refused);
            if refusals >= REFUSALS {
                return Err(self.refused(&failure));
            }
            if Instant::now() + pause >= deadline {
                let message = format!("could not leave within {LEAVING:?}: {failure}");
                return Err(self.error(SectionErrorKind::Unavailable, message));
            }
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(self.polls.1);
        }
    }

    /// Takes the request back at the end of patience.
    async fn give_up(
        &self,
        patience: Duration,
        last: Option<String>,
    ) -> Result<FencingToken, SectionError> {
        let mut message = match last {
            Some(last) => format!("no answer within {patience:?}; the last attempt: {last}"),
            None => format!(
                "its turn did not come within {patience:?}; `pac status` shows what is in it, and \
                 --timeout sets how long to wait"
            ),
        };
        if let Err(error) = self.release().await {
            message.push_str(&format!("; the request could not be taken back: {error}"));
        }
        Err(self.error(SectionErrorKind::TimedOut, message))
    }

    async fn leave(&self) -> Result<Departed, Failure> {
        let Some((view, version)) = self.read().await? else {
            return Ok(Departed::RunIsGone);
        };
        if self.uid.as_ref().is_some_and(|uid| *uid != view.uid) {
            return Ok(Departed::RunIsGone);
        }
        let (left, departed) = match Departure::of(&view, &self.section, &self.holder) {
            Departure::Left => return Ok(Departed::NotThere),
            Departure::OfOthers(others) => return Ok(Departed::NotThisHolder(holders(&others))),
            Departure::Stay(rest) => {
                let departed = Departed::Others(holders(&rest));
                (Some(rest), departed)
            }
            _ => (None, Departed::Left),
        };
        match self.write(&view, &version, left.as_ref()).await {
            Err(failure) if failure.kind == FailureKind::NotFound => Ok(Departed::RunIsGone),
            written => written.map(|()| departed),
        }
    }

    /// The run as it is now, and which state of it that is.
    async fn read(&self) -> Result<Option<(RunView, String)>, Failure> {
        let Some(object) = self.client.get(&self.run).await? else {
            return Ok(None);
        };
        let version = object.metadata.resource_version.clone();
        let view = object.view().map_err(|unreadable| {
            Failure::new(FailureKind::Unavailable, unreadable.error.to_string())
        })?;
        Ok(Some((view, version.unwrap_or_default())))
    }

    /// Writes the request on the run, or removes it with its answer, if the run still is as it was
    /// read.
    async fn write(
        &self,
        view: &RunView,
        version: &str,
        request: Option<&SectionRequest>,
    ) -> Result<(), Failure> {
        let (asked, answer) = (
            self.section.request_annotation(),
            self.section.answer_annotation(),
        );
        let text = request.map(ToString::to_string);
        let mut annotations = vec![(asked.as_str(), text.as_deref())];
        if request.is_none() {
            annotations.push((answer.as_str(), None));
        }
        let patch = patch::annotate_version(&view.uid, version, &annotations);
        self.client.merge(&self.run, patch).await.map(drop)
    }

    fn refused(&self, failure: &Failure) -> SectionError {
        let message = format!(
            "{failure}; the step's service account needs the verbs get and patch for pipelineruns \
             of tekton.dev in {}: see the Role of the StepActions",
            self.run.namespace()
        );
        self.error(SectionErrorKind::Refused, message)
    }

    fn error(&self, kind: SectionErrorKind, message: impl Into<String>) -> SectionError {
        let message = format!(
            "section {} of {}: {}",
            self.section,
            self.run,
            message.into()
        );
        SectionError::new(kind, message)
    }
}

/// A request on its way.
struct Asking<'a> {
    step: &'a SectionStep,
    /// Which run it is about, once that is known.
    uid: Option<Uid>,
    /// The request, once it was seen on the run.
    mine: Option<SectionRequest>,
    refusals: u32,
}

impl Asking<'_> {
    /// Looks at the run once, and asks where nothing was asked yet.
    async fn look(&mut self) -> Result<Look, SectionError> {
        use SectionErrorKind::{Cancelled, Crowded, RunEnded, RunGone, Withdrawn};
        let step = self.step;
        let (view, version) = match step.read().await {
            Ok(Some(read)) => read,
            Ok(None) => return Err(step.error(RunGone, "the PipelineRun is gone")),
            Err(failure) => return self.failed(&failure),
        };
        if *self.uid.get_or_insert_with(|| view.uid.clone()) != view.uid {
            return Err(step.error(RunGone, "another PipelineRun has the name by now"));
        }
        if let Some(mine) = &self.mine {
            match Standing::of(&view, &step.section, mine) {
                Standing::Granted(token) => return Ok(Look::Granted(token)),
                Standing::Cancelled => {
                    return Err(step.error(Cancelled, "the request was cancelled in the store"));
                }
                Standing::Waits => {
                    self.refusals = 0;
                    return Ok(Look::Waits);
                }
                _ => {}
            }
        }
        if view.is_done() || view.deleted.is_some() {
            return Err(step.error(RunEnded, "the PipelineRun has ended, or is being deleted"));
        }
        let asked = view.annotation(&step.section.request_annotation());
        if self.mine.is_some() && asked.is_none() {
            let message = format!(
                "another step of the run has left the section as holder {:?} meanwhile",
                step.holder.as_str()
            );
            return Err(step.error(Withdrawn, message));
        }
        let (now, chance) = (SystemTime::now().into(), fastrand::u32(..));
        match Arrival::of(&view, &step.section, &step.holder, now, chance) {
            Arrival::Asked(request) => {
                let standing = Standing::of(&view, &step.section, &request);
                self.mine = Some(request);
                Ok(match standing {
                    Standing::Granted(token) => Look::Granted(token),
                    _ => Look::Waits,
                })
            }
            Arrival::Ask(request) => match step.write(&view, &version, Some(&request)).await {
                Ok(()) => {
                    let standing = Standing::of(&view, &step.section, &request);
                    self.mine = Some(request);
                    // Joined, the request may have been granted long ago.
                    Ok(match standing {
                        Standing::Granted(token) => Look::Granted(token),
                        _ => Look::Waits,
                    })
                }
                Err(failure) => self.failed(&failure),
            },
            _ => {
                let message = "as many holders or sections as one run may have; leave some first";
                Err(step.error(Crowded, message))
            }
        }
    }

    /// What a failure says about going on.
    fn failed(&mut self, failure: &Failure) -> Result<Look, SectionError> {
        match failure.kind {
            FailureKind::Conflict => Ok(Look::Again),
            FailureKind::Refused => {
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    return Err(self.step.refused(failure));
                }
                Ok(Look::Failed(failure.to_string()))
            }
            // Of a write: the next read says what has become of the run.
            _ => Ok(Look::Failed(failure.to_string())),
        }
    }
}

fn holders(request: &SectionRequest) -> Vec<SectionHolder> {
    request.holders().iter().cloned().collect()
}
