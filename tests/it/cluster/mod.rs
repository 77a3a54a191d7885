//! Tests that need the test cluster.

#[cfg(test)]
mod cli;
