//! The version of an object in the cluster.

use std::fmt;

use pac_core::LimitVersion;

/// The `metadata.resourceVersion` of an object as a number: of two versions from one cluster the
/// higher is the later one, also of different objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ResourceVersion(u64);

impl ResourceVersion {
    /// From its number.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// From its text; `None` when that is no number, and so says nothing about earlier or later.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

impl fmt::Display for ResourceVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl From<ResourceVersion> for LimitVersion {
    /// A limit that was read from an object of this version.
    fn from(version: ResourceVersion) -> Self {
        Self::new(version.0)
    }
}
