//! Tests that need nothing but this machine.

mod prepare;
mod registry;
mod runner;
#[cfg(test)]
mod engine;
//! Tests that need no cluster.

pub(crate) mod crds;
