//! The integration tests: one binary, so that one link serves them all.
//! All integration tests, in one executable.

mod cluster;
mod fast;
