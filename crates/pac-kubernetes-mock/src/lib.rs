//! A small Kubernetes API server for tests.
//!
//! It runs in the process of the test, at a port of the loopback address, and speaks HTTP/1.1 as a
//! real API server does: revisions, watches, patches, selectors, pages, finalizers, and errors
//! worded as a real server words them. Objects are JSON, and nothing checks them against a schema.
//!
//! ```
//! use pac_kubernetes_mock::{ApiServer, Fault, Requests, Verb};
//! use serde_json::json;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
//! # runtime.block_on(async {
//! let server = ApiServer::start().await;
//! let objects = server.handle();
//! objects.create_namespace("ci").unwrap();
//! let run = json!({"metadata": {"namespace": "ci", "generateName": "build-"}, "spec": {}});
//! let run = objects.create("pipelineruns", run).unwrap();
//! assert_eq!(run["metadata"]["generation"], 1);
//!
//! // The next patch of a PipelineRun over HTTP is done, and answered with 504.
//! let patches = Requests::any().verb(Verb::Patch).resource("pipelineruns");
//! let fault = server.faults().inject(patches, 1, Fault::done_then_504());
//! assert_eq!(fault.hits(), 0);
//! # });
//! ```
//!
//! Beside the server are stand-ins for the programs that act on PipelineRuns in a cluster: [`Tekton`],
//! and [`PacController`] and [`PacWatcher`] of Pipelines-as-Code, its known faults included; and
//! [`Deployments`], whose replicas are ready at once. Through [`Handle::remote`] they work on a server
//! elsewhere, too.
//!
//! [`serde_json::Value`] is the one foreign type in the signatures: an object is its JSON.
//!
//! What the server does not do: schemas and defaults, authentication, `managedFields`, strategic merges of
//! lists, conflicts of server-side apply, CEL.

mod access;
mod admission;
mod call;
mod definitions;
mod failure;
mod faults;
mod handle;
mod http;
mod kubeconfig;
mod object;
mod pages;
mod patch;
mod policies;
mod remote;
mod requests;
mod resource;
mod rules;
mod selector;
mod server;
mod standins;
mod store;
mod webhooks;
mod write;

pub use admission::{Mutator, Operation, Review};
pub use call::Verb;
pub use failure::Failure;
pub use faults::{Fault, Faults, Gone, Hold, HoldPoint, Injected, Lost};
pub use handle::{Handle, Written};
pub use kubeconfig::kubeconfig;
pub use policies::{Effect, Policy};
pub use remote::{Remote, RemoteRequest, RemoteWatch};
pub use requests::{RequestRecord, Requests};
pub use resource::Resource;
pub use server::{ApiOptions, ApiServer};
pub use standins::{
    Deployments, Ending, Mishap, PacController, PacWatcher, Tekton, Template, tekton_rules,
};
