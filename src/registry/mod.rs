//! Talking to image registries: names, logins, uploads, and the door through which an engine pushes.
//!
//! ```text
//! engine ── push 127.0.0.1:PORT/nonce/x ──> door ── session (login, retries) ──> registry
//!                                            │ config swapped, layers searched for secrets
//! ```
//!
//! The agent opens a [`door::Door`] for each push, and asks [`session::Session`] what a registry holds when it
//! picks up after a crash.
//!
//! **Invariant:** credentials go to the registry they are for, and to the login host that belongs to it; nowhere else.

pub mod auth;
pub mod client;
pub mod credentials;
pub mod digest;
pub mod docker_config;
pub mod docker_trust;
pub mod door;
mod ecr;
pub mod error;
pub mod manifest;
mod read;
pub mod reference;
mod refusal;
mod resolve;
mod retry;
pub mod scan;
pub mod session;
mod sigv4;
mod tar;
pub mod trust;
mod zstd;

pub use client::{Client, Patience};
pub use credentials::{Credentials, CredentialsError, Secret};
pub use door::{Door, DoorJob, Prepared, Progress, Pushed, push_layer};
pub use ecr::AwsKeys;
pub use error::PushError;
pub use manifest::Image;
pub use reference::{RefError, Repository, parse_tag};
pub use scan::NamedSecret;
pub use session::Session;
pub use trust::{Trust, TrustError};
