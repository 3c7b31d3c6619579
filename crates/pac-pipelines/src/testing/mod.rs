//! A cluster in memory.
