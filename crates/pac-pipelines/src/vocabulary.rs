//! Every label, annotation and value of the clusters' objects that this crate reads or writes.

/// The prefix of Pipelines-as-Code's own labels and annotations.
pub const PAC_PREFIX: &str = "pipelinesascode.tekton.dev/";

/// Annotation and label: `queued`, `started`, `completed` or `failed`. The annotation is the one
/// to trust: the label says `started` from the moment of creation.
pub const STATE: &str = "pipelinesascode.tekton.dev/state";

/// Annotation: the runs of one event as `namespace/name,namespace/name`, in the order in which
/// they start. Written last, after all of them were created.
pub const EXECUTION_ORDER: &str = "pipelinesascode.tekton.dev/execution-order";

/// Annotation and label: the run's Repository, in the namespace of the run. The label is cut to
/// its last 63 characters; the annotation has the whole name.
pub const REPOSITORY: &str = "pipelinesascode.tekton.dev/repository";

/// Annotation: `"true"` once the start was reported to the Git provider.
pub const STARTED_REPORTED: &str = "pipelinesascode.tekton.dev/scm-reporting-plr-started";

/// Annotation: `"false"` until the watcher has made the secret with which the run clones.
pub const SECRET_CREATED: &str = "pipelinesascode.tekton.dev/secret-created";

/// Annotation and label: the name of the template that the run was made from.
pub const ORIGINAL_NAME: &str = "pipelinesascode.tekton.dev/original-prname";

/// Annotation and label: the pull request that the run was made for.
pub const PULL_REQUEST: &str = "pipelinesascode.tekton.dev/pull-request";

/// Annotation and label: the kind of event that the run was made for.
pub const EVENT_TYPE: &str = "pipelinesascode.tekton.dev/event-type";

/// Annotation and label: the commit that the run was made for.
pub const SHA: &str = "pipelinesascode.tekton.dev/sha";

/// Annotation and label: the branch that the run was made for; of a pull request, the one that it is to
/// be merged into. Not kept in views.
pub const BRANCH: &str = "pipelinesascode.tekton.dev/branch";

/// Annotation and label: the branch that a pull request comes from; of a push, the one that was
/// pushed.
pub const SOURCE_BRANCH: &str = "pipelinesascode.tekton.dev/source-branch";

/// Annotation and label: `"true"` on a run that is to end the earlier ones of its Pipeline for the
/// same pull request or branch. Pipelines-as-Code refuses it where there is a limit.
pub const CANCEL_IN_PROGRESS: &str = "pipelinesascode.tekton.dev/cancel-in-progress";

/// Annotation: JSON about the controller that made the run; `gRepo` names the global Repository.
pub const CONTROLLER_INFO: &str = "pipelinesascode.tekton.dev/controller-info";

/// Label: [`PAC_MANAGER`] on every run that Pipelines-as-Code created.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// The value of [`MANAGED_BY`] on runs of Pipelines-as-Code.
pub const PAC_MANAGER: &str = "pipelinesascode.tekton.dev";

/// Label: the Kueue queue that a run waits in. A run that has one is Kueue's.
pub const KUEUE_QUEUE: &str = "kueue.x-k8s.io/queue-name";

/// The one value of `spec.managedBy` that leaves a run to Tekton.
pub const TEKTON_MANAGER: &str = "tekton.dev/pipeline";

/// Annotation of ours: the execution order, where an admission policy has taken it out of the
/// hands of Pipelines-as-Code by renaming its annotation.
pub const OUR_EXECUTION_ORDER: &str = "concurrency.pipelinesascode.tekton.dev/execution-order";

/// Annotation of ours: `"true"` on a run that was held back for us.
pub const HELD: &str = "concurrency.pipelinesascode.tekton.dev/held";

/// Annotation of ours: the fencing token that a run was started with.
pub const TOKEN: &str = "concurrency.pipelinesascode.tekton.dev/fencing-token";

/// Annotation of ours, on a Repository: its limit, where `spec.concurrency_limit` is not set so
/// that Pipelines-as-Code's own queue stays out of it. On a Namespace: the limit of each of its
/// queues that has no other one.
pub const LIMIT: &str = "concurrency.pipelinesascode.tekton.dev/limit";

/// Annotation of ours, on a PipelineRun or a Repository: the priority of the run, or of the
/// Repository's runs that do not say. A whole number; higher starts first.
pub const PRIORITY: &str = "concurrency.pipelinesascode.tekton.dev/priority";

/// Annotation of ours, on a PipelineRun or a Repository: how many slots the run takes at once.
pub const WEIGHT: &str = "concurrency.pipelinesascode.tekton.dev/weight";

/// Annotation of ours, on a PipelineRun or a Repository: the group of the run, `branch`,
/// `pull-request`, or any other text.
pub const GROUP: &str = "concurrency.pipelinesascode.tekton.dev/group";

/// Annotation of ours, on a PipelineRun or a Repository: what becomes of the earlier runs of its
/// group, `none`, `waiting` or `all`.
pub const SUPERSEDE: &str = "concurrency.pipelinesascode.tekton.dev/supersede";

/// Annotation of ours, on a PipelineRun or a Repository: how long the run may wait.
pub const MAX_WAIT: &str = "concurrency.pipelinesascode.tekton.dev/max-wait";

/// Annotation of ours, on a PipelineRun or a Repository: how long the run may hold its slots.
pub const MAX_HOLD: &str = "concurrency.pipelinesascode.tekton.dev/max-hold";

/// Annotation of ours, on a Repository: how many of its runs may wait.
pub const MAX_QUEUED: &str = "concurrency.pipelinesascode.tekton.dev/max-queued";

/// Annotation of ours, on a Repository: `strict`, or `backfill:K` where up to K lighter runs may go
/// before one that does not fit.
pub const ORDER: &str = "concurrency.pipelinesascode.tekton.dev/order";

/// Annotation of ours, on a Repository: none of its runs starts while it is there, and why.
pub const PAUSE: &str = "concurrency.pipelinesascode.tekton.dev/pause";

/// Annotation of ours, on a run that waits: its position in its queue, 1 is next. Written for
/// people to see and never acted on; gone once the run has started.
pub const POSITION: &str = "concurrency.pipelinesascode.tekton.dev/queue-position";

/// Label of ours, on a run that `pac kubernetes check` creates held back, to see that it stays so:
/// no controller starts it.
pub const CANARY: &str = "concurrency.pipelinesascode.tekton.dev/canary";

/// Annotation of ours, on a Namespace: labels whose values say which lane a run of it belongs to,
/// their keys separated by commas.
pub const LANE_LABELS: &str = "concurrency.pipelinesascode.tekton.dev/lane-labels";

/// Annotation of ours, on a Namespace: an expression whose text is the lane of a run.
pub const LANE: &str = "concurrency.pipelinesascode.tekton.dev/lane";

/// Annotation of ours, on a Namespace: the limit of each of its lanes, a number or an expression.
pub const LANE_LIMIT: &str = "concurrency.pipelinesascode.tekton.dev/lane-limit";

/// Label of ours, on a Namespace: with the value `true` an admission webhook holds all of its new
/// runs back. A webhook is selected by labels and does not see annotations; a policy does.
pub const HOLD_RUNS: &str = "concurrency.pipelinesascode.tekton.dev/hold-runs";

/// What the names of annotations of ours begin with by which the steps of a run ask for
/// [sections](crate::sections).
pub const SECTION_PREFIX: &str = "concurrency.pipelinesascode.tekton.dev/section.";

/// What the names of annotations of ours begin with by which the controller answers them.
pub const SECTION_TOKEN_PREFIX: &str = "concurrency.pipelinesascode.tekton.dev/section-token.";

/// Annotation of ours, on a Repository: how many runs of its namespace are in a section at once, as
/// `gpu=2, staging=1`.
pub const SECTION_LIMITS: &str = "concurrency.pipelinesascode.tekton.dev/section-limits";

/// The labels that a view of a run keeps.
pub const LABELS: &[&str] = &[
    STATE,
    REPOSITORY,
    ORIGINAL_NAME,
    PULL_REQUEST,
    EVENT_TYPE,
    SHA,
    MANAGED_BY,
    KUEUE_QUEUE,
    CANARY,
];

/// The annotations that a view of a run keeps, beside those about [sections](crate::sections).
pub const ANNOTATIONS: &[&str] = &[
    STATE,
    EXECUTION_ORDER,
    REPOSITORY,
    STARTED_REPORTED,
    SECRET_CREATED,
    ORIGINAL_NAME,
    PULL_REQUEST,
    EVENT_TYPE,
    SHA,
    CONTROLLER_INFO,
    OUR_EXECUTION_ORDER,
    HELD,
    TOKEN,
    PRIORITY,
    WEIGHT,
    GROUP,
    SUPERSEDE,
    MAX_WAIT,
    MAX_HOLD,
    SOURCE_BRANCH,
    CANCEL_IN_PROGRESS,
    POSITION,
];

/// The annotations that a view of a Repository keeps.
pub const REPOSITORY_ANNOTATIONS: &[&str] = &[
    LIMIT,
    PRIORITY,
    WEIGHT,
    GROUP,
    SUPERSEDE,
    MAX_WAIT,
    MAX_HOLD,
    MAX_QUEUED,
    ORDER,
    PAUSE,
    SECTION_LIMITS,
];

/// Whether a view of a run keeps an annotation of this name.
#[must_use]
pub fn keeps_annotation(name: &str) -> bool {
    ANNOTATIONS.contains(&name) || crate::sections::keeps(name)
}

/// The annotations that a view of a Namespace keeps.
pub const NAMESPACE_ANNOTATIONS: &[&str] = &[LIMIT, LANE_LABELS, LANE, LANE_LIMIT];

/// The annotations of a Namespace for which its runs are held back at their creation.
pub const NAMESPACE_LIMITS: [&str; 2] = [LIMIT, LANE_LIMIT];

/// `spec.status` of a run that is held back.
pub const PENDING: &str = "PipelineRunPending";

/// `spec.status` that ends a run at once.
pub const CANCELLED: &str = "Cancelled";

/// `spec.status` that ends a run's tasks and then runs its `finally` tasks.
pub const CANCELLED_RUN_FINALLY: &str = "CancelledRunFinally";

/// `spec.status` that lets a run's current tasks end and then runs its `finally` tasks.
pub const STOPPED_RUN_FINALLY: &str = "StoppedRunFinally";

/// The condition that says how a run stands.
pub const SUCCEEDED: &str = "Succeeded";

/// The reason of [`SUCCEEDED`] on a run that was cancelled.
pub const REASON_CANCELLED: &str = "Cancelled";
