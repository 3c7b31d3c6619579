//! What is asked of a cluster, and what it says.

use std::fmt;

use async_trait::async_trait;
use pac_core::{FencingToken, PipelineRunKey, RepositoryKey, Uid};

use crate::error::{ClusterError, ModelError};
use crate::model::{NamespaceView, RepositoryView, ResourceVersion, RunView, SpecStatus};

/// The cluster: reads of its PipelineRuns and Repositories, and the few changes that are asked of
/// it. Every change is conditional on the run's uid, and harmless when it is asked for twice.
///
/// An implementation never repeats a change by itself: an answer that was lost is
/// [`StartOutcome::Unknown`], or a [`ClusterError`] of kind
/// [`Indeterminate`](crate::ClusterErrorKind::Indeterminate), and the caller reads before it acts.
/// Dropping a future leaves the change that it asked for done or not done.
#[async_trait]
pub trait Cluster: fmt::Debug + Send + Sync {
    /// Starts a run that is held back: if the object has this uid and `spec.status` is
    /// `PipelineRunPending`, removes that and writes `token` into
    /// [`vocabulary::TOKEN`](crate::vocabulary::TOKEN), in one change. Where the condition does
    /// not hold, says why not, from a read of the object.
    async fn start(&self, run: &PipelineRunKey, uid: &Uid, token: FencingToken) -> StartOutcome;

    /// Holds a run back that has not started: sets `spec.status: PipelineRunPending` and
    /// [`vocabulary::HELD`](crate::vocabulary::HELD), if the object has this uid.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster could not be asked, did not answer, or refused.
    async fn hold(&self, run: &PipelineRunKey, uid: &Uid) -> Result<HoldOutcome, ClusterError>;

    /// Ends a run that is not done: sets `spec.status` to `form`, one of the cancel forms, if the
    /// object has this uid. [`SpecStatus::Cancelled`] is for runs that have never started, and
    /// replaces a graceful form; a run that has started by then is left as it is.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster could not be asked, did not answer, or refused.
    async fn request_end(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        form: SpecStatus,
    ) -> Result<EndOutcome, ClusterError>;

    /// Writes annotations, and removes those whose value is `None`, if the object has this uid.
    /// Answers with the run as it is afterwards; `None` when there is no run of this name and uid.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster could not be asked, did not answer, or refused.
    async fn annotate(
        &self,
        run: &PipelineRunKey,
        uid: &Uid,
        annotations: &[(&str, Option<&str>)],
    ) -> Result<Option<RunView>, ClusterError>;

    /// Reads a run as it is now (no cached state); `None` when there is none of this name.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster could not be asked or did not answer, or the object
    /// cannot be understood.
    async fn read(&self, run: &PipelineRunKey) -> Result<Option<RunView>, ClusterError>;

    /// All PipelineRuns, in one request or a few pages; a cache that is kept by a watch is as
    /// good, if it is complete.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster could not be asked or did not answer. An object that
    /// cannot be understood is no error: it is in [`Listing::unreadable`].
    async fn list_runs(&self) -> Result<Listing<RunView>, ClusterError>;

    /// All Repositories, the global one among them, and those of namespaces whose runs are not
    /// [followed](Self::follows).
    ///
    /// # Errors
    /// As [`list_runs`](Self::list_runs).
    async fn list_repositories(&self) -> Result<Listing<RepositoryView>, ClusterError>;

    /// Whether lists and watches show the PipelineRuns of a namespace. Of one whose runs they do
    /// not show, nothing is missing, and nothing is done about it. Default: those of all.
    fn follows(&self, _namespace: &str) -> bool {
        true
    }

    /// All Namespaces, for what they say about the queues of their runs. `None` from a cluster that
    /// does not know them: then they say nothing.
    ///
    /// # Errors
    /// As [`list_runs`](Self::list_runs).
    async fn list_namespaces(&self) -> Result<Option<Listing<NamespaceView>>, ClusterError> {
        Ok(None)
    }

    /// Follows all changes from now on.
    ///
    /// # Errors
    /// [`ClusterError`] when the cluster could not be asked or did not answer.
    async fn watch(&self) -> Result<Box<dyn ClusterWatch>, ClusterError>;
}

/// The changes of a cluster, one after the other.
#[async_trait]
pub trait ClusterWatch: fmt::Debug + Send {
    /// Waits for the next event. Cancel-safe. `None` when the watch has ended and has to be opened
    /// anew; what happened meanwhile is then to be listed.
    async fn next(&mut self) -> Option<ClusterEvent>;
}

/// Something that happened in a cluster. Events may come late, twice and out of order.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClusterEvent {
    /// A run was created or changed, and is now as it is here.
    RunApplied(RunView),
    /// A run is gone, with its last state. A watch that selects by a label that can change makes
    /// sure of it first: a run that only left the selection is not gone.
    RunDeleted(RunView),
    /// A Repository was created or changed, and is now as it is here.
    RepositoryApplied(RepositoryView),
    /// A Repository is gone, with its last state. Its version is that of the deletion.
    RepositoryDeleted(RepositoryView),
    /// A Namespace was created or changed, and is now as it is here. Told by a cluster that lists
    /// them.
    NamespaceApplied(NamespaceView),
    /// A Namespace is gone, with its last state. Its version is that of the deletion.
    NamespaceDeleted(NamespaceView),
    /// An object is there, and cannot be understood.
    Unreadable(Unreadable),
    /// Events were lost: list again.
    Missed,
}

/// All objects of a kind, at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Listing<T> {
    /// The objects.
    pub items: Vec<T>,
    /// The objects that are there and cannot be understood.
    pub unreadable: Vec<Unreadable>,
    /// The version of the cluster's state that this is, if it can be compared.
    pub version: Option<ResourceVersion>,
}

impl<T> Listing<T> {
    /// Of these objects, all of which could be understood.
    #[must_use]
    pub fn new(items: Vec<T>, version: Option<ResourceVersion>) -> Self {
        Self {
            items,
            unreadable: Vec::new(),
            version,
        }
    }
}

/// An object that is there and cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Unreadable {
    /// Which object, as far as that is known.
    pub object: UnreadableObject,
    /// Why not.
    pub error: ModelError,
}

impl Unreadable {
    /// An object and what is wrong with it.
    #[must_use]
    pub fn new(object: UnreadableObject, error: ModelError) -> Self {
        Self { object, error }
    }
}

/// Which object cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum UnreadableObject {
    /// A run of this name: it counts as being there.
    Run(PipelineRunKey),
    /// A Repository of this name: its limit stays as it was last known.
    Repository(RepositoryKey),
    /// Not even its name can be understood.
    Nameless,
}

/// What came of asking to start a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StartOutcome {
    /// It was held back, and is not any more.
    Started,
    /// It was not held back any more: it has been started before, or has even ended.
    AlreadyStarted,
    /// It never started, and a cancel form ends it.
    Cancelled,
    /// There is no run of this name and uid.
    Gone,
    /// It certainly did not start, and is still held back.
    StillPending,
    /// It may or may not have started: the answer was lost, or the cluster could not be asked why
    /// the condition did not hold.
    Unknown,
}

/// What came of asking to hold a run back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HoldOutcome {
    /// It is held back.
    Held,
    /// It has started, has ended, or is being ended: too late.
    TooLate,
    /// There is no run of this name and uid.
    Gone,
}

/// What came of asking to end a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EndOutcome {
    /// It is being ended in the form asked for, or in one that had been asked for before.
    Requested,
    /// It was to be ended at once, and has started meanwhile, or has begun to run its `finally`
    /// tasks in a graceful form that had been asked for before: it was left as it is, and holds a
    /// slot until it has ended.
    Runs,
    /// It had ended before.
    Done,
    /// There is no run of this name and uid.
    Gone,
}
