//! Tests against a real engine or a real cluster. They fail without one.

#[cfg(test)]
mod engine;
