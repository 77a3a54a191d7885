//! Where the source of a run comes from.
//!
//! **Invariant:** data only.

use super::{container::ImagePullPolicy, rules};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where the source comes from: exactly one of `git`, `inline`, `image` and `none`.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = rules::exactly_one(&["git", "inline", "image", "none"]))]
pub struct Source {
    /// A git repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitSource>,
    /// Files written here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inline: Option<InlineSource>,
    /// A directory of an image. Not yet: this version refuses it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,
    /// No source: an empty directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub none: Option<Nothing>,
}

/// An empty member of a union, written `{}`.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub struct Nothing {}

/// Which submodules are fetched.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum Submodules {
    /// None.
    #[default]
    None,
    /// Those of the repository itself.
    Direct,
    /// Those of submodules too.
    Recursive,
}

/// Whether large files are fetched.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize, PartialEq, Eq, JsonSchema)]
pub enum Lfs {
    /// If the repository uses Git LFS.
    #[default]
    Auto,
    /// Never.
    Never,
}

/// A git repository.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GitSource {
    /// https, ssh or file address, without a password.
    #[schemars(length(min = 1, max = 2048))]
    #[x_kube(validation = Rule::new(
        "self.matches('^(https|http|ssh|file)://[^ ]+$') || self.matches('^[A-Za-z0-9._-]+@[A-Za-z0-9.-]+:[^ ]+$')")
        .message("must be a git address: https://host/path, ssh://git@host/path, git@host:path or file:///path"))]
    #[x_kube(validation = Rule::new("!self.matches('^https?://[^/]*@')")
        .message("must not hold a user or password; put them into a Secret and name it in secretName"))]
    pub url: String,
    /// Branch, tag, commit or full ref; default: the remote's HEAD.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::revision())]
    pub revision: Option<String>,
    /// Secret with `username` and `password`, or `ssh-privatekey` and `known_hosts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret_name: Option<String>,
    /// How many commits of history; 0 is all.
    #[serde(default = "default_depth")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub depth: u32,
    /// Which submodules are fetched: none, those of the repository (`Direct`), or theirs too (`Recursive`).
    #[serde(default)]
    pub submodules: Submodules,
    /// Whether large files are fetched: if the repository uses Git LFS (`Auto`), or not.
    #[serde(default)]
    pub lfs: Lfs,
    /// Only these directories are checked out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 100), inner(length(min = 1, max = 1024)))]
    pub sparse: Option<Vec<String>>,
    /// Directory of the repository that is the source. Wercker: source-dir.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.split('/').exists(p, p == '..')")
        .message("must be a relative directory without .."))]
    pub directory: Option<String>,
}

/// Files written in the pipeline.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[x_kube(validation = Rule::new("self.files.map(f, size(f.content)).sum() <= 131072")
    .message("inline files together may hold at most 131072 characters; use git or an image for more")
    .field_path(".files"))]
pub struct InlineSource {
    /// The files.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(merge_strategy = rules::by("path"))]
    pub files: Vec<InlineFile>,
}

/// One file.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
pub struct InlineFile {
    /// Path below the source directory.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("!self.startsWith('/') && !self.endsWith('/') \
        && !self.split('/').exists(p, p == '..' || p == '.' || p == '')")
        .message("must be a relative file path without . and .."))]
    pub path: String,
    /// What is in it.
    #[schemars(length(max = 65536))]
    pub content: String,
    /// Octal mode such as `"0755"`.
    #[serde(default = "default_mode")]
    #[schemars(length(min = 3, max = 4))]
    #[x_kube(validation = Rule::new("self.matches('^0?[0-7]{3}$')")
        .message("must be an octal mode such as \"0644\" or \"0755\""))]
    pub mode: String,
}

/// A directory of an image.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image.
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = rules::image())]
    pub image: String,
    /// The directory in it.
    #[serde(default = "default_directory")]
    #[schemars(length(min = 1, max = 1024))]
    #[x_kube(validation = Rule::new("self.startsWith('/')").message("must be an absolute directory"))]
    pub directory: String,
    /// As in a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image_pull_policy: Option<ImagePullPolicy>,
}

fn default_depth() -> u32 {
    1
}
fn default_mode() -> String {
    "0644".into()
}
fn default_directory() -> String {
    "/".into()
}
