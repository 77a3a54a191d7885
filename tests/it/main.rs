//! The integration tests: one binary, so that one link serves them all. `fast::…` need nothing but this
//! machine, `cluster::…` the cluster that `make cluster` boots.

// `cfg(test)` holds here anyway; written out, it tells clippy that helpers are tests too.
#[cfg(test)]
mod artifact_server;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod fast;
#[cfg(test)]
mod terminal;
#[cfg(test)]
mod token_registry;
