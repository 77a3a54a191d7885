//! A box for the runner: its directories, its plan, and what a run left in them.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use tempfile::TempDir;
use windlass::wire::{
    CANCEL_FILE, EndReason, JOURNAL_FILE, PLAN_FILE, Plan, PlanStep, RECORDED_FILE, Record, RunInfo, StepWork, Summary,
    VERSION, Variable, log_file,
};

pub(super) const RUNNER: &str = env!("CARGO_BIN_EXE_windlass-runner");
/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The variable by which all that runs in a box is known.
const BOX: &str = "TEST_BOX";

/// The directories of a box. With them goes whatever still runs in it: what a step left behind, on purpose or not.
pub(crate) struct Dir(TempDir);

impl Dir {
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Who runs in the box.
    fn inhabitants(&self) -> Vec<Pid> {
        let variable = format!("{BOX}={}", self.path().display());
        let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let environment = fs::read(entry.path().join("environ")).ok()?;
            environment.split(|byte| *byte == 0).any(|it| it == variable.as_bytes()).then(|| Pid::from_raw(pid))
        });
        processes.collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let left = self.inhabitants();
            for pid in &left {
                let _ = kill(*pid, Signal::SIGKILL);
            }
            if left.is_empty() || Instant::now() > until {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A box of a test.
pub(crate) struct TestBox {
    dir: Dir,
    pub(crate) plan: Plan,
    pub(crate) grace_ms: u64,
}

/// What a run left.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) records: Vec<Record>,
    pub(crate) dir: Dir,
}

pub(crate) fn script(name: &str, code: &str) -> PlanStep {
    PlanStep { name: name.into(), title: name.into(), work: StepWork::Script(code.into()), ..PlanStep::default() }
}

pub(crate) fn after(name: &str, code: &str) -> PlanStep {
    PlanStep { after: true, ..script(name, code) }
}

pub(crate) fn agent(name: &str) -> PlanStep {
    PlanStep { work: StepWork::Agent, ..script(name, "") }
}

pub(crate) fn variable(name: &str, value: &str) -> Variable {
    Variable { name: name.into(), value: value.into(), secret: false }
}

pub(crate) fn epoch_ms() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis() as u64
}

pub(crate) fn a_box(steps: &[PlanStep]) -> TestBox {
    let dir = Dir(tempfile::tempdir().unwrap());
    for name in ["in", "out", "disk", "box"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    // An agent that keeps up: the runner does not wait for it at the end.
    fs::write(dir.path().join("in").join(RECORDED_FILE), "").unwrap();
    let plan = Plan {
        version: VERSION,
        run: RunInfo { name: "hello-7".into(), uid: "u7".into(), build_number: 7, ..RunInfo::default() },
        deadline_ms: epoch_ms() + 3_600_000,
        steps: steps.to_vec(),
        ..Plan::default()
    };
    TestBox { dir, plan, grace_ms: 10_000 }
}

impl TestBox {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut Plan)) -> Self {
        change(&mut self.plan);
        self
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    fn command(&self, program: &[&str]) -> Command {
        fs::write(self.path("in").join(PLAN_FILE), serde_json::to_vec(&self.plan).unwrap()).unwrap();
        let mut words = program.iter().copied().chain([RUNNER]);
        let mut command = Command::new(words.next().unwrap());
        command.args(words);
        for (option, path) in [
            ("--in", "in"),
            ("--out", "out"),
            ("--disk", "disk"),
            ("--pipeline", "box/pipeline"),
            ("--termination-log", "last"),
        ] {
            command.arg(option).arg(self.path(path));
        }
        command.args(["--grace-ms", &self.grace_ms.to_string()]);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", "/root")
            .env(BOX, self.dir.path());
        command.current_dir("/").stdin(Stdio::null());
        command.stdout(fs::File::create(self.path("stdout")).unwrap());
        command
    }

    pub(crate) fn start(self) -> Running {
        self.start_by(&[])
    }

    pub(crate) fn start_by(self, program: &[&str]) -> Running {
        let child = self.command(program).spawn().unwrap();
        Running { child, dir: Some(self.dir) }
    }

    /// Its stdout is a pipe that nobody reads for now.
    pub(crate) fn start_with_reader(self) -> Running {
        let child = self.command(&[]).stdout(Stdio::piped()).spawn().unwrap();
        Running { child, dir: Some(self.dir) }
    }

    pub(crate) fn run(self) -> Ran {
        self.start().end()
    }
}

/// A runner that runs; the test ends it if the test fails.
pub(crate) struct Running {
    child: Child,
    dir: Option<Dir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Running {
    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.dir.as_ref().unwrap().path().join(path)
    }

    pub(crate) fn records(&self) -> Vec<Record> {
        records(&self.path("out").join(JOURNAL_FILE))
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub(crate) fn wait_for<T>(&mut self, what: &str, mut seen: impl FnMut(&Self) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(seen) = seen(self) {
                return seen;
            }
            let over = self.child.try_wait().unwrap();
            let stdout = fs::read_to_string(self.path("stdout")).unwrap_or_default();
            assert!(over.is_none(), "ended before {what}: {over:?}\n{stdout}");
            assert!(Instant::now() < until, "no {what}\n{stdout}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn wait_for_stdout(&mut self, text: &str) {
        let found = |running: &Self| {
            fs::read_to_string(running.path("stdout")).is_ok_and(|stdout| stdout.contains(text)).then_some(())
        };
        self.wait_for(text, found);
    }

    pub(crate) fn cancel(&self) {
        fs::write(self.path("in").join(CANCEL_FILE), "").unwrap();
    }

    /// Reads stdout to its end, too.
    pub(crate) fn end_reading(mut self) -> (Ran, u64) {
        let read = std::io::copy(&mut self.child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        (self.end(), read)
    }

    /// Takes the journal from another place.
    pub(crate) fn end_with(self, journal: &str) -> Ran {
        let journal = self.path(journal);
        let mut ran = self.end();
        ran.records = records(&journal);
        ran
    }

    pub(crate) fn end(mut self) -> Ran {
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < until, "no end: {:?}", self.records());
            std::thread::sleep(Duration::from_millis(2));
        };
        let stdout = String::from_utf8_lossy(&fs::read(self.path("stdout")).unwrap()).into_owned();
        let records = self.records();
        Ran { code: status.code().unwrap_or(-1), stdout, records, dir: self.dir.take().unwrap() }
    }
}

/// The journal as the agent reads it: up to the first NUL.
fn records(journal: &Path) -> Vec<Record> {
    let bytes = fs::read(journal).unwrap_or_default();
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    text.split_inclusive(|byte| *byte == b'\n').map(|line| serde_json::from_slice(line).unwrap()).collect()
}

impl Ran {
    /// Reason and exit code of each step, in the order of the plan.
    pub(crate) fn ends(&self) -> Vec<(EndReason, Option<i32>)> {
        let ends = self.records.iter().filter_map(|record| match record {
            Record::Ended { step, reason, code, .. } => Some((*step, (*reason, *code))),
            _ => None,
        });
        let by_step: BTreeMap<_, _> = ends.collect();
        assert!(by_step.keys().copied().eq(0..by_step.len()), "each step has an end: {:?}", self.records);
        by_step.into_values().collect()
    }

    pub(crate) fn finished(&self) -> (bool, Option<&str>, Option<usize>, Option<&str>) {
        match self.records.last() {
            Some(Record::Finished { passed, reason, failed, message, .. }) => {
                (*passed, reason.as_deref(), *failed, message.as_deref())
            }
            other => panic!("the last record is {other:?}\n{}", self.stdout),
        }
    }

    pub(crate) fn passed(&self) -> &Self {
        assert_eq!((self.code, self.finished()), (0, (true, None, None, None)), "{}", self.stdout);
        self
    }

    pub(crate) fn failed(&self, reason: &str, failed: Option<usize>, message: &str) -> &Self {
        let want = (1, (false, Some(reason), failed, Some(message)));
        assert_eq!((self.code, self.finished()), want, "{}", self.stdout);
        self
    }

    pub(crate) fn log(&self, step: &str) -> String {
        String::from_utf8_lossy(&fs::read(self.dir.path().join("disk").join(log_file(step))).unwrap()).into_owned()
    }

    pub(crate) fn summary(&self) -> Summary {
        Summary::decode(&fs::read_to_string(self.dir.path().join("last")).unwrap()).unwrap()
    }
}

/// The shells that boxes have. One that this machine lacks fails the test.
pub(crate) fn shells() -> Vec<(String, TempDir)> {
    ["bash", "dash", "busybox"]
        .iter()
        .map(|name| {
            let found = Command::new("sh").args(["-c", &format!("command -v {name}")]).output().unwrap();
            assert!(found.status.success(), "{name} is not installed; the tests need bash, dash and busybox");
            let real = String::from_utf8(found.stdout).unwrap();
            let dir = tempfile::tempdir().unwrap();
            // busybox goes by the name it is called with.
            let link = dir.path().join(if *name == "busybox" { "ash" } else { name });
            std::os::unix::fs::symlink(real.trim(), &link).unwrap();
            (link.to_str().unwrap().to_owned(), dir)
        })
        .collect()
}
