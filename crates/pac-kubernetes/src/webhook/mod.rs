//! The admission webhook: what the API server asks about PipelineRuns where it does not serve
//! MutatingAdmissionPolicies.
//!
//! It does what the policies of [`install`](crate::install) do, in Namespaces with lanes where they
//! bear the label [`HOLD_RUNS`](pac_pipelines::vocabulary::HOLD_RUNS), and it has no state: an answer
//! follows from the review and, for [`Rule::Gate`], from one read of the run's Repository.
//! [`WebhookServer`] gives it over TLS, with a certificate that it makes and renews by itself in a
//! Secret, or that others keep in a directory.
//! It never touches a store.

mod certificate;
mod connection;
mod directory;
mod error;
#[cfg(test)]
mod fuzz;
mod keeper;
mod options;
mod plan;
mod review;
mod rule;
mod server;
mod tls;

pub use error::{WebhookError, WebhookErrorKind};
pub(crate) use plan::authorities_in;

pub use options::{CertificateOptions, WebhookOptions};
pub use rule::Rule;
pub use server::WebhookServer;
