//! Searches for texts that make the readers of `wercker.yml` and of our own kinds panic, hang or take too much memory.
//!
//! The fast tests try some hundred texts of one seed; `make fuzz` tries for ten minutes. Texts are mutations of the files
//! in `tests/wercker` and `tests/api`. Worker processes read them, which hold nothing else: so the text that one dies of is
//! known, and what it takes is the readers'.
//!
//! **Invariant:** the same seed gives the same texts.

use super::kinds;
use crate::{
    wercker::{
        convert::{self, Options},
        read_all,
    },
    yaml::{Findings, MOST_BYTES, reason},
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Longest wait for one text, on a busy machine.
const LONGEST: Duration = Duration::from_secs(120);
/// Most processor time for one text, of an unoptimised build.
const MOST_MS: u64 = 10_000;
/// Most memory beyond what the process had before its first text.
const MOST_KIB: u64 = 64 * 1024;
/// Most that is said of one text: 50 findings of some kilobytes.
const MOST_SAID: usize = 256 * 1024;
/// Begins the line that a worker prints of each text.
const READ: &str = "read in ";
/// Time of one worker; a new one has a fresh memory.
const SHIFT: Duration = Duration::from_secs(30);

/// What YAML gives a meaning to.
const MARKS: [&str; 48] = [
    "&a ",
    "*a",
    "<<: *a\n",
    "<<: [*a, *a]\n",
    "? ",
    ": ",
    "- ",
    "-",
    "|",
    "|+2\n",
    ">-\n",
    "\"",
    "'",
    "{",
    "}",
    "[",
    "]",
    ",",
    "#",
    "!",
    "!!binary ",
    "!!str ",
    "%YAML 1.2\n",
    "---\n",
    "...\n",
    "~",
    "null",
    "yes",
    "0x1F",
    "1e999",
    ".nan",
    "-0",
    "2001-01-01",
    "\t",
    "\r\n",
    "\u{0}",
    "\u{feff}",
    "\u{2028}",
    "\u{85}",
    "é",
    "𝄞",
    "$A",
    "${A:-",
    "$$",
    "`",
    "\\",
    "\\u12",
    "99999999999999999999",
];

fn corpus() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let folders = ["wercker/good", "wercker/broken", "api/accept", "api/reject"];
    let mut paths: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|end| end == "yml" || end == "yaml"))
        .collect();
    paths.sort();
    paths.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Makes texts of others.
struct Mutator {
    random: StdRng,
    corpus: Vec<String>,
    words: Vec<String>,
}

impl Mutator {
    fn new(seed: u64) -> Self {
        let corpus = corpus();
        let not_word = |c: char| !c.is_alphanumeric() && !"-_/.$".contains(c);
        let mut words: Vec<String> =
            corpus.iter().flat_map(|text| text.split(not_word)).filter(|w| !w.is_empty()).map(str::to_owned).collect();
        words.sort();
        words.dedup();
        Self { random: StdRng::seed_from_u64(seed), corpus, words }
    }

    fn text(&mut self) -> String {
        let mut text = self.file();
        for _ in 0..self.random.random_range(1..=8) {
            text = self.mutated(text);
            if text.len() > MOST_BYTES {
                let end = text.floor_char_boundary(MOST_BYTES);
                text.truncate(end);
            }
        }
        text
    }

    fn file(&mut self) -> String {
        self.corpus.choose(&mut self.random).unwrap().clone()
    }

    /// A place in a text, between characters.
    fn place(&mut self, text: &str) -> usize {
        text.floor_char_boundary(self.random.random_range(0..=text.len()))
    }

    /// Mostly few, at times very many.
    fn many(&mut self) -> usize {
        let most = if self.random.random_ratio(1, 16) { 16 } else { 5 };
        1 << self.random.random_range(0..=most)
    }

    fn mutated(&mut self, mut text: String) -> String {
        let (one, other) = (self.place(&text), self.place(&text));
        let (from, to) = (one.min(other), one.max(other));
        let near = text.floor_char_boundary(to.min(from + 40));
        match self.random.random_range(0..10) {
            0 => text.insert_str(from, MARKS.choose(&mut self.random).unwrap()),
            1 => text.insert_str(from, &MARKS.choose(&mut self.random).unwrap().repeat(self.many())),
            2 => text.replace_range(from..near, ""),
            3 => text.replace_range(from..near, self.words.choose(&mut self.random).unwrap()),
            4 => {
                let piece = text[from..near].repeat(self.many().min(MOST_BYTES / 40));
                text.insert_str(to, &piece);
            }
            5 => {
                let tail = self.file();
                let place = self.place(&tail);
                text = text[..from].to_owned() + &tail[place..];
            }
            kind => return self.lines(&text, kind),
        }
        text
    }

    /// Whole lines are moved, repeated or indented.
    fn lines(&mut self, text: &str, kind: u32) -> String {
        let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
        if lines.is_empty() {
            return text.to_owned();
        }
        let (one, other) = (self.random.random_range(0..lines.len()), self.random.random_range(0..lines.len()));
        match kind {
            6 => lines.swap(one, other),
            7 => {
                let line = lines[one].clone();
                let room = MOST_BYTES / line.len().max(1);
                let copies = self.many().min(room);
                lines.splice(one..one, std::iter::repeat_n(line, copies));
            }
            8 => {
                let indent = " ".repeat(self.random.random_range(1..=6));
                lines[one.min(other)..=one.max(other)].iter_mut().for_each(|line| line.insert_str(0, &indent));
            }
            _ => {
                for line in &mut lines[one.min(other)..=one.max(other)] {
                    if let Some(less) = line.strip_prefix("  ") {
                        *line = less.to_owned();
                    }
                }
            }
        }
        lines.concat()
    }
}

fn shown(findings: &Findings, text: &str) -> usize {
    findings.list().iter().map(|found| found.render("a.yml", text).len()).sum()
}

/// Reads a text in every way there is.
fn read_in_all_ways(text: &str) {
    let said = shown(&kinds::judge(text).0, text);
    assert!(said <= MOST_SAID, "{said} bytes are said of our own kinds");
    let (document, findings) = read_all(text);
    let said = shown(&findings, text);
    assert!(said <= MOST_SAID, "{said} bytes are said of a wercker.yml");
    if findings.has_errors() {
        return;
    }
    match convert::convert(&document, &Options { file: "wercker.yml".into(), ..Options::default() }) {
        Ok(done) if done.yaml.len() <= MOST_BYTES => {
            let wrong = kinds::judge(&done.yaml).0;
            let syntax = wrong.list().iter().find(|found| found.reason == reason::YAML_SYNTAX);
            assert!(syntax.is_none(), "what is made of it is no YAML: {syntax:?}\n{}", done.yaml);
        }
        Ok(_) => {}
        Err(findings) => assert!(shown(&findings, text) <= MOST_SAID),
    }
}

/// Processor time of this process, in milliseconds: a busy machine does not count.
fn processor_ms() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    // The kernel tells processes hundredths of a second, whatever its own clock.
    ticks * 10
}

/// A line of `/proc/self/status`, in KiB.
fn memory(line: &str) -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let value = status.lines().find_map(|found| found.strip_prefix(line)).unwrap();
    value.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

#[test]
#[ignore = "the process that the others start"]
fn worker() {
    let mut input = std::io::stdin().lock();
    let before = memory("VmHWM");
    let mut length = [0; 8];
    while input.read_exact(&mut length).is_ok() {
        let mut text = vec![0; usize::from_le_bytes(length)];
        input.read_exact(&mut text).unwrap();
        let start = processor_ms();
        read_in_all_ways(std::str::from_utf8(&text).unwrap());
        println!("{READ}{} {}", processor_ms() - start, memory("VmHWM").saturating_sub(before));
    }
}

/// What workers did.
#[derive(Clone, Copy, Debug, Default)]
struct Figures {
    texts: u64,
    /// The most processor time of one text.
    slowest_ms: u64,
    /// The most memory.
    most_kib: u64,
}

impl Figures {
    fn and(self, other: Self) -> Self {
        Self {
            texts: self.texts + other.texts,
            slowest_ms: self.slowest_ms.max(other.slowest_ms),
            most_kib: self.most_kib.max(other.most_kib),
        }
    }
}

struct Worker {
    child: Child,
    input: ChildStdin,
    answers: mpsc::Receiver<Figures>,
}

impl Worker {
    fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["client::check::fuzz::worker", "--exact", "--ignored", "--nocapture"])
            // One heap, so that what is measured is what is used.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (send, answers) = mpsc::channel();
        let said = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in said.lines().map_while(Result::ok) {
                let Some((_, figures)) = line.split_once(READ) else { continue };
                let (ms, kib) = figures.split_once(' ').unwrap();
                let figures = Figures { texts: 1, slowest_ms: ms.parse().unwrap(), most_kib: kib.parse().unwrap() };
                if send.send(figures).is_err() {
                    return;
                }
            }
        });
        Self { input: child.stdin.take().unwrap(), child, answers }
    }

    /// Has a text read. What is wrong with it, if it is not read as it should be.
    fn read(&mut self, text: &str) -> Result<Figures, String> {
        // That a worker ended is told by its answer, which does not come.
        let _ = self.input.write_all(&text.len().to_le_bytes()).and_then(|()| self.input.write_all(text.as_bytes()));
        match self.answers.recv_timeout(LONGEST) {
            Ok(figures) if figures.slowest_ms > MOST_MS => Err(format!("it takes {} ms", figures.slowest_ms)),
            Ok(figures) => Ok(figures),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(format!("it takes longer than {LONGEST:?}")),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err("its reader died; its last words are above".into()),
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Has many texts read. One that is not read as it should be is kept in `target/fuzz`.
fn search(seed: u64, texts: u64, time: Duration) -> Figures {
    let (mut mutator, mut worker, mut all) = (Mutator::new(seed), Worker::start(), Figures::default());
    let began = Instant::now();
    while all.texts < texts && began.elapsed() < time {
        let text = mutator.text();
        let mut read = worker.read(&text);
        if read.as_ref().is_ok_and(|figures| figures.most_kib > MOST_KIB) {
            // What earlier texts left of the heap does not count: a person's file is read alone.
            worker = Worker::start();
            read = worker.read(&text).and_then(|figures| match figures.most_kib {
                kib if kib > MOST_KIB => Err(format!("it takes {kib} KiB of memory")),
                _ => Ok(figures),
            });
        }
        match read {
            Ok(figures) => all = all.and(figures),
            Err(wrong) => {
                let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("target/fuzz/{seed}.yml"));
                fs::create_dir_all(kept.parent().unwrap()).unwrap();
                fs::write(&kept, &text).unwrap();
                panic!("text {} of seed {seed}, {}: {wrong}", all.texts, kept.display());
            }
        }
    }
    all
}

#[test]
fn some_hundred_texts_find_nothing() {
    let figures = search(1, 300, LONGEST);
    assert_eq!(figures.texts, 300, "{figures:?}");
}

#[test]
#[ignore = "takes as long as it is told: make fuzz"]
fn long() {
    let seconds = std::env::var("FUZZ_SECONDS").ok().map_or(600, |text| text.parse().unwrap());
    let until = Instant::now() + Duration::from_secs(seconds);
    let count = thread::available_parallelism().map_or(1, usize::from) as u64;
    let first = u64::from(rand::random::<u32>());
    let searches: Vec<_> = (first..first + count)
        .map(|mut seed| {
            thread::spawn(move || {
                let mut all = Figures::default();
                while Instant::now() < until {
                    all = all.and(search(seed, u64::MAX, SHIFT.min(until.duration_since(Instant::now()))));
                    seed += count;
                }
                all
            })
        })
        .collect();
    let all = searches.into_iter().fold(Figures::default(), |all, search| all.and(search.join().unwrap()));
    println!("{all:?}, first seed {first}");
}
