//! Tests that need the test cluster (`make cluster`): its engine, registries and API server. They fail without one.

#[cfg(test)]
mod engine;
mod registry;
