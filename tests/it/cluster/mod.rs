//! Tests that need the test cluster.
