//! Reads the [`Order`] from the pieces in the environment.
//!
//! Called by `mod.rs` first.
//!
//! **Invariant:** pieces are bounded in number; an order of another version is refused.

use super::failure::failure;
use crate::{
    api::condition::reason,
    wire::{self, Failure, Order},
};
use std::{collections::BTreeMap, ffi::OsString};

/// A run is at most 1 MiB in the API server; escapes may make its order longer.
const MAX_PIECES: usize = 64;

/// The order in these environment variables.
///
/// # Errors
/// When there is none, or it cannot be understood.
pub(crate) fn read(variables: impl Iterator<Item = (OsString, OsString)>) -> Result<Order, Failure> {
    let mut pieces = BTreeMap::new();
    for (name, value) in variables {
        let number = name.to_str().and_then(|name| name.strip_prefix(wire::ORDER_VARIABLE)?.parse::<usize>().ok());
        if let (Some(number), Ok(value)) = (number, value.into_string()) {
            pieces.insert(number, value);
        }
    }
    let wrong = |problem: String| failure(reason::INVALID_SPEC, format!("the order of the controller {problem}"));
    if pieces.is_empty() {
        return Err(wrong("is missing".into()));
    }
    if pieces.len() > MAX_PIECES || !pieces.keys().copied().eq(0..pieces.len()) {
        return Err(wrong("has pieces missing, or too many".into()));
    }
    let text: String = pieces.into_values().collect();
    let order: Order = serde_json::from_str(&text).map_err(|e| wrong(format!("cannot be read: {e}")))?;
    if order.version != wire::VERSION {
        let versions = format!("has version {}, this program reads {}", order.version, wire::VERSION);
        return Err(wrong(format!("{versions}; controller and agent images differ")));
    }
    Ok(order)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(variables: &[(&str, &str)]) -> Result<Order, String> {
        read(variables.iter().map(|(n, v)| (n.into(), v.into()))).map_err(|failure| failure.message)
    }

    #[test]
    fn joins_pieces_by_number() {
        let order = Order { version: wire::VERSION, working_dir: Some("/è".repeat(30)), ..Order::default() };
        let text = serde_json::to_string(&order).unwrap();
        let chars: Vec<char> = text.chars().collect();
        let pieces: Vec<String> = chars.chunks(chars.len() / 11).map(|c| c.iter().collect()).collect();
        assert!(pieces.len() > 10, "the order of text and numbers must differ");
        let variables =
            pieces.iter().enumerate().rev().map(|(n, p)| (format!("WINDLASS_ORDER_{n}").into(), p.clone().into()));
        assert_eq!(read(variables.chain([("HOME".into(), "/".into())])), Ok(order));
    }

    #[test]
    fn refuses_what_is_not_an_order() {
        let old = serde_json::to_string(&Order::default()).unwrap();
        for (variables, words) in [
            (vec![], "is missing"),
            (vec![("WINDLASS_ORDER_x", "{}")], "is missing"),
            (vec![("WINDLASS_ORDER_1", "{}")], "pieces missing"),
            (vec![("WINDLASS_ORDER_0", "{"), ("WINDLASS_ORDER_2", "}")], "pieces missing"),
            (vec![("WINDLASS_ORDER_0", "{")], "cannot be read"),
            (vec![("WINDLASS_ORDER_0", old.as_str())], "has version 0"),
        ] {
            let message = given(&variables).unwrap_err();
            assert!(message.contains(words), "{message}");
        }
    }
}
