//! Windlass: pipelines on Kubernetes that end in an image.
//!
//! ```text
//! kubectl apply ──> PipelineRun ──> controller ──> run pod: prepare, box (runner), services
//!                       ^                                     │ files: out/journal, request
//!                       └── status ── agent of the node <─────┘
//!                                       └─ engine (commit) ─> push door ─> registry
//! ```
//!
//! Roles never import each other: controller and agent meet in [`api`], agent and runner in [`wire`].
//! The runner builds with `--no-default-features` and cannot name the rest.

pub mod archive;
mod bounded;
mod mask;
pub mod runner;
mod watcher;
pub mod wire;

#[cfg(feature = "full")]
pub mod agent;
#[cfg(feature = "full")]
pub mod api;
#[cfg(feature = "full")]
pub mod artifacts;
#[cfg(feature = "full")]
pub mod cli;
#[cfg(feature = "full")]
pub mod client;
#[cfg(feature = "full")]
pub mod controller;
#[cfg(feature = "full")]
pub mod engine;
#[cfg(feature = "full")]
pub mod local;
#[cfg(feature = "full")]
pub mod prepare;
#[cfg(feature = "full")]
mod progress;
#[cfg(feature = "full")]
pub mod registry;
#[cfg(feature = "full")]
pub mod serve;
#[cfg(feature = "full")]
pub mod steps;
#[cfg(feature = "full")]
pub mod telemetry;
#[cfg(feature = "full")]
pub mod wercker;
#[cfg(feature = "full")]
pub mod yaml;
