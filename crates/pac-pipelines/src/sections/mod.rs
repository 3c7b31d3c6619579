//! Sections: a PipelineRun holds a slot for some of its Tasks only, such as one cluster under test
//! or one deployment target.
//!
//! A section belongs to a namespace, and needs nothing to exist: the first run that asks for it
//! makes it. A step of a run asks by an annotation on its own PipelineRun, so that it needs the API
//! of the cluster alone and no password of the store. The controller sees the annotation, has the
//! run wait in the queue of the section, and answers by another one:
//!
//! | annotation (all begin with `concurrency.pipelinesascode.tekton.dev/`) | on | written by | value |
//! | --- | --- | --- | --- |
//! | `section.NAME` | PipelineRun | the steps | a [`SectionRequest`]: what is asked for, and by which holders |
//! | `section-token.NAME` | PipelineRun | the controller | a [`SectionAnswer`]: the fencing token |
//! | `section-limits` | Repository | people | how many runs of the namespace are in a section at once: `gpu=2, staging=1` |
//!
//! - A run is in a section once, whichever of its tasks asked first; the others join. Each asks as
//!   a *holder*, and the slot is given back when the last holder has left.
//! - A request has an id of its own, and a later request of the same run another one. An answer
//!   names the id, so that one that comes late is never taken for the answer to another request,
//!   and in the store each request counts as a run of its own.
//! - A run asks for at most 16 sections at once.
//! - Whatever ends the run ends its requests. The slot is given back when a read of the object shows
//!   that the run has ended, is gone, or asks for it no longer.
//!
//! In the store a section is a repository: `ci/section.gpu` is the section `gpu` of the namespace
//! `ci`. A Repository of the cluster must not have such a name; its runs would stay held back.

mod decide;
mod limit;
mod name;
mod request;
mod step;

pub use name::{InvalidSection, SectionHolder, SectionName, is_section, section_of};
pub use request::{SectionAnswer, SectionRequest};
pub use step::{Arrival, Departure, Standing};

pub(crate) use decide::{Step, Wish, decide, request_of};
pub(crate) use limit::{broken_items, limit_of};
pub(crate) use name::{keeps, requested_by, sections_of};

/// How many sections a run may ask for at once. A view of a run keeps no more.
pub(crate) const MOST: usize = 16;

/// How long the value of an annotation about a section is at most, in bytes; a longer one is not
/// kept.
pub(crate) const LONGEST: usize = 512;
