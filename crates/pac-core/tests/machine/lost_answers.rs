//! After a lost answer.
