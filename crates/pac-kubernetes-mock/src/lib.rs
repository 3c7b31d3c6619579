//! A small Kubernetes API server for tests.
