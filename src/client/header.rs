//! The lines by which the runner separates the steps in the box's output.
//!
//! ```text
//! > step  [3.4s] 1/3 build          > ok    [15.7s] 1/3 build 12.3s
//! > step  [21.0s] after 1/1 tell    > FAIL  [21.0s] 2/3 test 5.3s: exit code 2
//! > wait  [21.0s] 2/3 test: exit code 2; look with: …
//! ```
//!
//! `track` and `logs` ask it about each line. **Invariant:** these lines decide only where output is
//! shown. A step can print one, so no result is ever taken from them, they only move forward in the
//! pipeline, and a line that is not exactly one of them is the step's.

use super::{logtext::Piece, view::StepInfo};

/// What each of the lines begins with.
pub(super) const PREFIX: &[u8] = b"> ";
/// No line of the runner is longer.
pub(super) const LONGEST: usize = 4096;

/// What a piece of output is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The step with this index begins.
    Begin(usize),
    /// The step with this index is over.
    End(usize),
    /// Something that the runner says to people.
    Note(String),
    /// What became of the code of the watched step that runs.
    Watch(String),
    /// Of the runner, and said by the status as well.
    Known,
    /// Of the step.
    Output,
}

/// Reads a run's output from its beginning.
#[derive(Clone, Debug, Default)]
pub(super) struct Reader {
    current: Option<usize>,
    ended: bool,
}

impl Reader {
    /// The step whose output comes now.
    #[must_use]
    pub(super) fn current(&self) -> Option<usize> {
        self.current
    }

    /// Says what the next piece is.
    pub(super) fn read(&mut self, piece: &Piece, steps: &[StepInfo], run: &str) -> Line {
        // Only the first piece of a line has a time, and the runner's lines come whole.
        if piece.stamp.is_none() || piece.bytes.len() > LONGEST {
            return Line::Output;
        }
        let text = piece.bytes.strip_prefix(PREFIX).and_then(|rest| std::str::from_utf8(rest).ok());
        let Some(text) = text.and_then(|t| t.strip_suffix('\n')) else { return Line::Output };
        let line = self.of_the_runner(text, steps, run);
        match line {
            Line::Begin(step) => {
                self.current = Some(step);
                self.ended = false;
            }
            Line::End(_) => self.ended = true,
            Line::Note(_) | Line::Watch(_) | Line::Known | Line::Output => {}
        }
        line
    }

    fn of_the_runner(&self, text: &str, steps: &[StepInfo], run: &str) -> Line {
        let (word, rest) = text.split_at_checked(6).map_or((text, ""), |(word, rest)| (word.trim_end(), rest));
        let (clock, words) = match rest.strip_prefix('[').and_then(|r| r.split_once("] ")) {
            Some((clock, words)) if clock.bytes().all(|b| b.is_ascii_digit() || b".hms".contains(&b)) => (true, words),
            _ => (false, rest),
        };
        let about = |i: usize| steps.get(i).and_then(|step| words.strip_prefix(label(step).as_str()));
        let between = self.current.is_none() || self.ended;
        match (word, clock) {
            ("step", true) => {
                let first = self.current.map_or(0, |c| c + 1);
                let title = |rest: &str| rest.is_empty() || (rest.starts_with(" (") && rest.ends_with(')'));
                let next = (first..steps.len()).find(|i| about(*i).is_some_and(title));
                next.map_or(Line::Output, Line::Begin)
            }
            // Again after an end: of several such lines the last is the runner's.
            ("ok" | "FAIL", true) if self.current.is_some_and(|c| about(c).is_some_and(|r| r.starts_with(' '))) => {
                self.current.map_or(Line::Output, Line::End)
            }
            ("skip", true) if between && (0..steps.len()).any(|i| about(i).is_some_and(|r| r.starts_with(':'))) => {
                Line::Known
            }
            ("wait", true) if (0..steps.len()).any(|i| about(i).is_some_and(|r| r.starts_with(": "))) => Line::Known,
            ("ok" | "FAIL", true) if between => {
                let end =
                    words.strip_prefix(run).is_some_and(|r| r.starts_with(" succeeded") || r.starts_with(" failed"));
                let source = self.current.is_none() && words.starts_with("source in ");
                if end || source { Line::Known } else { Line::Output }
            }
            ("run", false) if self.current.is_none() && words.starts_with(run) => Line::Known,
            ("warn", true) if self.current.is_some_and(|c| about(c).is_some_and(|r| r.starts_with(": "))) => {
                Line::Note(words.to_owned())
            }
            ("watch", true) => {
                let told = self.current.and_then(|c| about(c)?.strip_prefix(": "));
                told.map_or(Line::Output, |told| Line::Watch(told.to_owned()))
            }
            ("warn", false) if words.starts_with("the log of this step is longer than") => Line::Note(words.to_owned()),
            ("stop", true) if words.starts_with("SIG") => Line::Note(format!("the box was told to stop ({words})")),
            _ => Line::Output,
        }
    }
}

/// A step as the runner calls it.
fn label(step: &StepInfo) -> String {
    let after = if step.after { "after " } else { "" };
    format!("{after}{}/{} {}", step.index, step.of, step.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps() -> Vec<StepInfo> {
        let step = |name: &str, after, index, of| StepInfo {
            name: name.into(),
            kind: "script".into(),
            after,
            index,
            of,
            ports: Vec::new(),
        };
        vec![step("build", false, 1, 3), step("test", false, 2, 3), step("push", false, 3, 3), step("tell", true, 1, 1)]
    }

    fn read_all(text: &str) -> Vec<Line> {
        let mut reader = Reader::default();
        let piece = |line: &str| Piece { stamp: Some("2026-11-21T13:03:07Z".into()), bytes: line.as_bytes().to_vec() };
        text.split_inclusive('\n').map(|line| reader.read(&piece(line), &steps(), "hello-7")).collect()
    }

    #[test]
    fn a_run_is_taken_apart() {
        let said = "> run   hello-7 in namespace team-a\n> ok    [0.1s] source in /pipeline/source at main@3f9c2d1\n\
            > step  [0.1s] 1/3 build (Build it)\ncc\n> ok    [12.4s] 1/3 build 12.3s\n> step  [12.4s] 2/3 test\n\
            > warn  [14.0s] 2/3 test: exit code 1; again in 1s\n> wait  [15.0s] 2/3 test: exit code 2; look with: x\n> watch [15.0s] 2/3 test: a.c changed; starts again\n> FAIL  [17.7s] 2/3 test 5.3s: exit code 2\n\
            > skip  [17.7s] 3/3 push: skipped\n> step  [17.7s] after 1/1 tell\n> ok    [17.9s] after 1/1 tell 0.2s\n\
            > FAIL  [17.9s] hello-7 failed: step test (2 of 3) failed with exit code 2\n";
        assert_eq!(
            read_all(said),
            [
                Line::Known,
                Line::Known,
                Line::Begin(0),
                Line::Output,
                Line::End(0),
                Line::Begin(1),
                Line::Note("2/3 test: exit code 1; again in 1s".into()),
                Line::Known,
                Line::Watch("a.c changed; starts again".into()),
                Line::End(1),
                Line::Known,
                Line::Begin(3),
                Line::End(3),
                Line::Known,
            ]
        );
    }

    #[test]
    fn what_only_looks_alike_is_output() {
        let said = "> step  [0.1s] 1/3 build\n> npm run build\n> \n> ok then\n> step  [1s] 1/3 build\n> step  2/3 test\n\
            > ok    [1s] 2/3 test 1s\n> run   hello-7 in namespace x\n> step  [now] 2/3 test\n> step  [1s] 2/3 testing\n\
            > wait  [1s] 2/3 testing: x\n> wait  2/3 test: x\n";
        let lines = read_all(said);
        assert_eq!(lines[0], Line::Begin(0));
        assert!(lines[1..].iter().all(|l| *l == Line::Output), "{lines:?}");
    }

    #[test]
    fn a_forged_line_moves_only_forward() {
        let said = "> step  [0.1s] 2/3 test\n> step  [0.2s] 1/3 build\n> step  [0.3s] after 1/1 tell\n> step  [0.4s] 3/3 push\n";
        assert_eq!(read_all(said), [Line::Begin(1), Line::Output, Line::Begin(3), Line::Output]);
        // The runner's own line is never shown, even if the step printed one like it before.
        let said =
            "> step  [0.1s] 1/3 build\n> ok    [0.2s] 1/3 build 0.1s\nx\n> FAIL  [0.3s] 1/3 build 0.2s: exit code 2\n";
        assert_eq!(read_all(said), [Line::Begin(0), Line::End(0), Line::Output, Line::End(0)]);
    }
}
