//! The PostgreSQL driver of pac-concurrency.
