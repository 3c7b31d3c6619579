//! Stores that keep their sessions alive from a thread of their own, or not at all.

use async_trait::async_trait;
use pac_core::driver::{Descriptor, Driver};
use pac_core::{Error, SessionId};

use super::Fault;

/// Says of a store that it is behind a network.
#[derive(Debug)]
pub struct Remote;

impl Fault for Remote {
    fn descriptor(&self, inner: Descriptor) -> Descriptor {
        Descriptor {
            remote: true,
            ..inner
        }
    }
}

/// Has a bug in the renewal of sessions.
#[derive(Debug)]
pub struct KeepAlivePanics;

#[async_trait]
impl Fault for KeepAlivePanics {
    async fn keep_alive(&self, _: &dyn Driver, session: SessionId) -> Result<(), Error> {
        panic!("a bug that the test put into the keep-alive of session {session}");
    }
}
