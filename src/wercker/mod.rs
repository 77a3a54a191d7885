//! `wercker.yml`: read with positions, and turned into our own kinds.
//!
//! ```text
//! text ─> yaml ─> read ─> Document ─> convert ─> Pipelines as YAML with comments
//! ```
//!
//! `client::check` and `client::convert` call it; local runs of the `client` take a pipeline of it by `convert::here`.
//!
//! **Invariant:** pure. Files that a pipeline names are handed in by the caller.

pub mod convert;
pub mod document;
pub mod environment;
mod internal;
mod out;
mod read;
mod shell;

pub use read::{read, read_all};
