//! Schemas of types that are not ours: Kubernetes' own, as these resources hold them.
//!
//! The generated ones carry pages of description and no limits. Fields name these functions in
//! `schemars(schema_with = …)`.
//!
//! **Invariant:** what a schema here lets through, the Rust type of the field takes.

use schemars::{Schema, SchemaGenerator, json_schema};

/// `Vec<Condition>`: as the API conventions have it, one of each type.
pub(super) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "description": "What the condition is about.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 316,
                    "pattern": r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$",
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "observedGeneration": {
                    "description": "Generation of the object that the condition is about.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "lastTransitionTime": {
                    "description": "When the status last changed.",
                    "type": "string",
                    "format": "date-time",
                },
                "reason": {
                    "description": "Why, as one word for programs.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "Why, for people.",
                    "type": "string",
                    "maxLength": 32768,
                },
            },
        },
    })
}

/// `BTreeMap<String, Quantity>`: amounts of resources by name.
pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 10,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "maxLength": 64,
            "pattern": r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$",
        },
    })
}

/// `Vec<Toleration>`: which taints of nodes are put up with.
pub(super) fn tolerations(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 20,
        "items": {
            "type": "object",
            "properties": {
                "key": {
                    "description": "Key of the taint; without it every key, with operator Exists.",
                    "type": "string",
                    "maxLength": 316,
                },
                "operator": {
                    "description": "Equal (the default) compares the value, Exists does not.",
                    "type": "string",
                    "enum": ["Equal", "Exists"],
                },
                "value": {
                    "description": "Value of the taint.",
                    "type": "string",
                    "maxLength": 63,
                },
                "effect": {
                    "description": "Effect of the taint; without it every effect.",
                    "type": "string",
                    "enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"],
                },
                "tolerationSeconds": {
                    "description": "How long NoExecute is put up with; without it for ever.",
                    "type": "integer",
                    "format": "int64",
                },
            },
        },
    })
}

/// `serde_json::Value`: an object whose schema stands elsewhere, owned as a whole by who wrote it.
pub(super) fn opaque_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
        "x-kubernetes-map-type": "atomic",
    })
}
