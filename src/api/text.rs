//! Properties that take what Wercker's documents show (a string) and what YAML users write (lists, maps).
//!
//! **Invariant:** these types hold what was written, untouched. Their grammar is `steps::grammar`'s,
//! as it can only be judged once variables are expanded.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, collections::BTreeMap};

/// A shell-word string or a list of words: `cmd`, `entrypoint`, `volumes`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Words {
    /// As one string.
    Text(String),
    /// As a YAML list.
    List(Vec<String>),
    /// `{}`: an empty map passes the schema and means "not set".
    Empty(BTreeMap<String, String>),
}

/// `NAME=value` pairs as a string, a list or a map: `env`, `labels`.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Pairs {
    /// As one string.
    Text(String),
    /// As a YAML list of `NAME=value`.
    List(Vec<String>),
    /// As a YAML map.
    Map(BTreeMap<String, String>),
}

/// A number or a string.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum IntOrText {
    /// A number.
    Int(i64),
    /// A string.
    Text(String),
}

/// Ports: a number, a string or a list of both.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub enum Ports {
    /// One port.
    Int(i64),
    /// As one string: `5000, 8080/udp`.
    Text(String),
    /// As a YAML list.
    List(Vec<IntOrText>),
    /// `{}` means "not set".
    Empty(BTreeMap<String, String>),
}

/// The value checks of all allowed types side by side: the only shape in which a structural schema
/// takes several types. `minimum` above `maximum` keeps numbers out, the `not` booleans.
fn words(max_item: u32) -> Schema {
    json_schema!({
        "x-kubernetes-preserve-unknown-fields": true,
        "maxLength": 8192,
        "maxItems": 100,
        "items": {"type": "string", "maxLength": max_item},
        "maxProperties": 0,
        "minimum": 1, "maximum": 0,
        "not": {"enum": [true, false]},
    })
}

/// [`Words`] that are paths.
pub(super) fn volumes(_: &mut SchemaGenerator) -> Schema {
    words(1024)
}

impl JsonSchema for Words {
    fn schema_name() -> Cow<'static, str> {
        "Words".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        words(8192)
    }
}

impl JsonSchema for Pairs {
    fn schema_name() -> Cow<'static, str> {
        "Pairs".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            "maxLength": 32768,
            "maxItems": 200,
            "items": {"type": "string", "maxLength": 8192},
            "maxProperties": 200,
            "additionalProperties": {"type": "string", "maxLength": 8192},
            "minimum": 1, "maximum": 0,
            "not": {"enum": [true, false]},
        })
    }
}

impl JsonSchema for Ports {
    fn schema_name() -> Cow<'static, str> {
        "Ports".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-preserve-unknown-fields": true,
            "maxLength": 8192,
            "maxItems": 100,
            "items": {"x-kubernetes-int-or-string": true, "maxLength": 64},
            "maxProperties": 0,
            "minimum": 1, "maximum": 65535,
            "not": {"enum": [true, false]},
        })
    }
}

impl JsonSchema for IntOrText {
    fn schema_name() -> Cow<'static, str> {
        "IntOrText".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"x-kubernetes-int-or-string": true, "maxLength": 64})
    }
}
