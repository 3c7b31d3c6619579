//! The cluster of `pac_pipelines` on a Kubernetes API.

pub mod install;
