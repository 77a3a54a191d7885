//! Tests that need nothing but this machine.

mod answers;
mod api_server;
mod artifacts;
mod cli;
mod controller;
pub(crate) mod crds;
mod docs;
mod engine;
mod prepare;
pub(crate) mod registry;
mod runner;
mod sim;
pub(crate) mod wercker;
