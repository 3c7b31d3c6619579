//! Hostile and broken input.
