//! Tests that need nothing but this machine.

mod cli;
pub(crate) mod crds;
mod engine;
// `cfg(test)` holds here anyway; written out, it tells clippy that helpers are tests too.
#[cfg(test)]
mod prepare;
mod registry;
mod runner;
