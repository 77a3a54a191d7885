//! The layers of a pushed image, entry by entry, by tools that we did not write: skopeo and GNU tar.

use super::world::tool;
use serde_json::Value;
use std::{collections::HashMap, fs};
use tempfile::TempDir;

/// An image as it is in the registry.
pub(super) struct Pulled {
    dir: TempDir,
    /// Files of its layers, bottom first.
    layers: Vec<String>,
}

impl Pulled {
    /// Pulls it without an engine.
    pub(super) fn new(image: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let target = format!("dir:{}", dir.path().display());
        tool("skopeo", &["copy", "-q", "--src-tls-verify=false", &format!("docker://{image}"), &target], "").unwrap();
        let manifest: Value = serde_json::from_slice(&fs::read(dir.path().join("manifest.json")).unwrap()).unwrap();
        let file = |layer: &Value| {
            let name = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
            dir.path().join(name).display().to_string()
        };
        let layers = manifest["layers"].as_array().unwrap().iter().map(file).collect();
        Self { dir, layers }
    }

    /// Each layer's entries as GNU tar lists them: `MODE UID/GID SIZE DATE TIME NAME`.
    pub(super) fn lists(&self) -> Vec<Vec<String>> {
        let squeeze = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let list = |file: &String| {
            let listed = tool("tar", &["-tzvf", file, "--numeric-owner", "--utc", "--full-time"], "").unwrap();
            listed.lines().map(squeeze).collect()
        };
        self.layers.iter().map(list).collect()
    }

    /// All entries of the top layer, sorted by name: `MODE UID/GID NAME`, and for a file that is not empty the SHA-256
    /// of what it holds.
    pub(super) fn top(&self) -> Vec<String> {
        let top = self.layers.last().unwrap();
        let sums = self.dir.path().join("sums");
        let sum =
            format!("printf '%s %s\\n' \"$(sha256sum | cut -d' ' -f1)\" \"$TAR_FILENAME\" >>'{}'", sums.display());
        tool("tar", &["-xzf", top, "--to-command", &sum], "").unwrap();
        let sums = fs::read_to_string(sums).unwrap_or_default();
        let sums: HashMap<&str, &str> =
            sums.lines().map(|line| line.split_once(' ').unwrap()).map(|(sum, name)| (name, sum)).collect();
        let mut entries: Vec<(String, String)> = Vec::new();
        for line in self.lists().pop().unwrap() {
            let words: Vec<&str> = line.split(' ').collect();
            let (mode, owner, size, name) = (words[0], words[1], words[2], words[5..].join(" "));
            let sum = if size == "0" { String::new() } else { format!(" {}", sums[name.as_str()]) };
            entries.push((name.clone(), format!("{mode} {owner} {name}{sum}")));
        }
        entries.sort();
        entries.into_iter().map(|(_, entry)| entry).collect()
    }
}
