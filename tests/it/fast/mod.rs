//! Tests that need nothing but this machine.

mod prepare;
mod registry;
mod runner;
#[cfg(test)]
mod engine;
