//! A directory that stands for the pod.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{SystemTime, UNIX_EPOCH},
};
use tempfile::TempDir;
use windlass::wire::{Failure, ORDER_PIECE_BYTES, ORDER_VARIABLE, Order, POD_IP_VARIABLE, Plan, RunInfo, VERSION};

pub(super) struct Pod {
    root: TempDir,
}

impl Pod {
    pub(super) fn new() -> Self {
        let pod = Self { root: tempfile::tempdir().unwrap() };
        for directory in ["dev/windlass/in", "dev/windlass/out", "dev/windlass/disk", "tmp"] {
            fs::create_dir_all(pod.path(directory)).unwrap();
        }
        pod
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    pub(super) fn inside(&self, name: &str) -> PathBuf {
        self.path("dev/windlass/in").join(name)
    }

    pub(super) fn source(&self, name: &str) -> PathBuf {
        self.path("dev/windlass/disk/source").join(name)
    }

    /// An order that asks for nothing and has ten minutes.
    pub(super) fn order(&self) -> Order {
        let run = RunInfo { name: "hello-7".into(), namespace: "team".into(), attempt: 1, ..RunInfo::default() };
        Order { version: VERSION, run, deadline_ms: now_ms() + 600_000, ..Order::default() }
    }

    pub(super) fn command(&self, order: Option<&Order>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.arg("prepare").arg("--root").arg(self.root.path());
        command.env(POD_IP_VARIABLE, "10.1.2.3");
        command.env("TMPDIR", self.path("tmp")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let text = order.map(|order| serde_json::to_string(order).unwrap()).unwrap_or_default();
        let (mut rest, mut number) = (text.as_str(), 0);
        while !rest.is_empty() {
            let (piece, tail) = rest.split_at(rest.floor_char_boundary(ORDER_PIECE_BYTES));
            command.env(format!("{ORDER_VARIABLE}{number}"), piece);
            (rest, number) = (tail, number + 1);
        }
        command
    }

    /// Runs to success; what was printed. Nothing may be left behind.
    pub(super) fn succeeds(&self, order: &Order) -> String {
        let (code, text) = self.run(order);
        assert_eq!(code, Some(0), "{text}");
        assert!(!self.inside("failed").exists() && !self.path("dev/termination-log").exists(), "{text}");
        text
    }

    /// Runs to a failure; what was printed.
    pub(super) fn fails(&self, order: &Order, reason: &str, message: &str) -> String {
        let (code, text) = self.run(order);
        assert_eq!(code, Some(1), "{text}");
        let words = fs::read(self.path("dev/termination-log")).unwrap();
        let expected = Failure { reason: reason.into(), message: message.into() };
        assert_eq!(serde_json::from_slice::<Failure>(&words).unwrap(), expected, "{text}");
        assert!(self.inside("failed").exists() && !self.inside("windlass-runner").exists());
        assert!(text.contains(&format!("error[{reason}]: {message}\n")), "{text}");
        text
    }

    fn run(&self, order: &Order) -> (Option<i32>, String) {
        let output = self.command(Some(order)).output().unwrap();
        assert_eq!(self.names("tmp"), [""; 0], "private files are left");
        assert!(output.stdout.is_empty(), "{output:?}");
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub(super) fn plan(&self) -> Plan {
        serde_json::from_slice(&fs::read(self.inside("plan.json")).unwrap()).unwrap()
    }

    /// Sorted names in a directory.
    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Everything below a directory, as paths.
    pub(super) fn files(&self, path: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        collect(&self.path(path), &mut found);
        found
    }
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            collect(&entry.path(), found);
        } else {
            found.push(entry.path());
        }
    }
}

pub(super) fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap()
}
