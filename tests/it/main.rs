//! All integration tests, in one executable.

mod cluster;
mod fast;
