//! The push door against a registry of our own that misbehaves.
#![cfg(test)]
