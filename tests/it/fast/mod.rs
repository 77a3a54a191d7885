//! Tests that need nothing but this machine.

// `cfg(test)` holds here anyway; written out, it tells clippy that helpers are tests too.
#[cfg(test)]
mod prepare;
