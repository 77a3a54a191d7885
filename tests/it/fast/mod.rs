//! Tests that need nothing but this machine.

mod registry;
