//! The internal steps and their properties: what Wercker's documents and its command line knew.
//!
//! `read` judges steps by it, `convert` maps the properties.
//!
//! **Invariant:** a table; a property that is not here is an error in the file, not swallowed.

/// What a property takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Takes {
    /// Text; numbers and truth values are text.
    Text,
    /// `true` or `false`.
    Truth,
    /// Text, or a list of texts.
    Words,
    /// Text, a list of `NAME=value`, or a map.
    Pairs,
}

/// An internal step.
pub(super) struct Internal {
    /// Its id without `internal/`.
    pub(super) id: &'static str,
    /// What it takes, in one list or several.
    properties: &'static [&'static [(&'static str, Takes)]],
    /// What it cannot do without.
    pub(super) required: &'static [&'static str],
}

use Takes::{Pairs, Text, Truth, Words};

const LOGIN: [(&str, Takes); 17] = [
    ("username", Text),
    ("password", Text),
    ("email", Text),
    ("auth-server", Text),
    ("registry", Text),
    ("aws-access-key", Text),
    ("aws-secret-key", Text),
    ("aws-region", Text),
    ("aws-registry-id", Text),
    ("aws-strict-auth", Truth),
    ("azure-client-id", Text),
    ("azure-client-secret", Text),
    ("azure-subscription-id", Text),
    ("azure-tenant-id", Text),
    ("azure-resource-group", Text),
    ("azure-registry-name", Text),
    ("azure-login-server", Text),
];

/// Keys that log in to a registry, of push steps and of boxes.
pub(super) fn is_login(key: &str) -> bool {
    LOGIN.iter().any(|(name, _)| *name == key) && key != "email" && key != "auth-server"
}

/// Names of all keys that log in.
pub(super) fn login_keys() -> impl Iterator<Item = &'static str> {
    LOGIN.iter().map(|(name, _)| *name).filter(|name| is_login(name))
}

const PUSH: [(&str, Takes); 15] = [
    ("repository", Text),
    ("tag", Words),
    ("ports", Words),
    ("volumes", Words),
    ("working-dir", Text),
    ("author", Text),
    ("message", Text),
    ("user", Text),
    ("stopsignal", Text),
    ("cmd", Words),
    ("entrypoint", Words),
    ("env", Pairs),
    ("labels", Pairs),
    ("disable-sync", Truth),
    ("image-name", Text),
];

/// All internal steps.
pub(super) const INTERNAL: [Internal; 9] = [
    Internal { id: "docker-push", properties: &[&PUSH, &LOGIN], required: &["repository"] },
    Internal { id: "docker-scratch-push", properties: &[&PUSH, &LOGIN], required: &["repository"] },
    Internal {
        id: "docker-build",
        properties: &[&[
            ("image-name", Text),
            ("dockerfile", Text),
            ("context", Text),
            ("build-args", Pairs),
            ("labels", Pairs),
            ("extra-hosts", Words),
            ("q", Truth),
            ("no-cache", Truth),
            ("squash", Truth),
            ("registry-auth-config", Text),
            ("disable-sync", Truth),
        ]],
        required: &["image-name"],
    },
    Internal { id: "store-container", properties: &[], required: &[] },
    Internal {
        id: "publish-step",
        properties: &[&[("owner", Text), ("endpoint", Text), ("auth-token", Text), ("path", Text), ("private", Truth)]],
        required: &[],
    },
    Internal {
        id: "docker-run",
        properties: &[&[
            ("image", Text),
            ("cmd", Words),
            ("entrypoint", Words),
            ("env", Pairs),
            ("ports", Words),
            ("working-dir", Text),
            ("user", Text),
            ("username", Text),
            ("password", Text),
            ("registry", Text),
            ("disable-sync", Truth),
        ]],
        required: &["name", "image"],
    },
    Internal { id: "docker-kill", properties: &[], required: &["name"] },
    Internal { id: "watch", properties: &[&[("code", Text), ("reload", Truth)]], required: &["code"] },
    Internal { id: "shell", properties: &[&[("code", Text), ("cmd", Words)]], required: &[] },
];

impl Internal {
    /// What it takes.
    pub(super) fn properties(&self) -> impl Iterator<Item = (&'static str, Takes)> {
        self.properties.iter().copied().flatten().copied()
    }
}

/// An internal step by its id without `internal/`.
pub(super) fn find(id: &str) -> Option<&'static Internal> {
    INTERNAL.iter().find(|internal| internal.id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_step_takes_a_property_twice() {
        for internal in &INTERNAL {
            let names: Vec<&str> = internal.properties().map(|(name, _)| name).collect();
            let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
            assert_eq!(names.len(), unique.len(), "{}", internal.id);
        }
        let push: Vec<&str> = find("docker-push").unwrap().properties().map(|(name, _)| name).collect();
        assert!(["repository", "image-name", "username", "azure-login-server"].iter().all(|name| push.contains(name)));
        assert!(is_login("password") && !is_login("email") && !is_login("tag"));
    }
}
