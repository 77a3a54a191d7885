//! Tests that need nothing but this machine.

pub(crate) mod crds;
mod engine;
mod prepare;
mod registry;
mod runner;
