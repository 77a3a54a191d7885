//! Tests that need nothing but this machine.

#[cfg(test)]
mod cli;
