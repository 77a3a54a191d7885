//! Tests against a real engine or a real cluster. They fail without one.

mod engine;
mod registry;
