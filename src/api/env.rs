//! Variables: one by one, and from whole Secrets and ConfigMaps.
//!
//! **Invariant:** data only. No value of a Secret is ever here, only where to find it.

use super::rules;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A variable: a name and exactly one of `value`, `secretKeyRef` and `configMapKeyRef`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::exactly_one(&["value", "secretKeyRef", "configMapKeyRef"]))]
pub struct EnvVar {
    /// Name.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z_][A-Za-z0-9_]*$')")
        .message("must be a shell variable name: letters, digits and '_', not beginning with a digit"))]
    #[x_kube(validation = Rule::new("!self.startsWith('WINDLASS_')")
        .message("names that begin with WINDLASS_ are set by Windlass itself"))]
    pub name: String,
    /// Value, as data: `$(params.x)` is replaced, `$VAR` in it stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32768))]
    pub value: Option<String>,
    /// A key of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// A key of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
}

/// A key of a Secret or ConfigMap.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct KeyRef {
    /// Name of the object, in the namespace of the run.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key in it.
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
    /// Whether it may be missing; the variable is not set then.
    #[serde(default)]
    pub optional: bool,
}

/// Variables from a whole object: exactly one of `secretRef` and `configMapRef`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::exactly_one(&["secretRef", "configMapRef"]))]
pub struct EnvFrom {
    /// Put before each name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub prefix: Option<String>,
    /// A Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ObjectRef>,
    /// A ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ObjectRef>,
}

/// A whole Secret or ConfigMap.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct ObjectRef {
    /// Name of the object, in the namespace of the run.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Whether it may be missing.
    #[serde(default)]
    pub optional: bool,
}

/// Whether a key of a whole object can be a variable of steps: a name of letters, digits and `_` that a shell can
/// hold, and that is not set by Windlass itself. Other keys are left out.
#[must_use]
pub fn can_be_set(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit())
        && !name.starts_with("WINDLASS_")
}

#[cfg(test)]
mod tests {
    use super::can_be_set;
    use rstest::rstest;

    #[rstest]
    #[case("API_KEY", true)]
    #[case("_1", true)]
    #[case("", false)]
    #[case("1A", false)]
    #[case("tls.crt", false)]
    #[case("WINDLASS_RUN", false)]
    fn keys_that_can_be_variables(#[case] name: &str, #[case] expected: bool) {
        assert_eq!(can_be_set(name), expected);
    }
}
