//! Tests that need no cluster.

pub(crate) mod crds;
