//! Leases and crashes.
