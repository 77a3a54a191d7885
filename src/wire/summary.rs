//! The runner's termination message: every step's end in a few bytes, so that the controller can
//! finish a run with the agent away. Kubernetes keeps 4096 bytes of it.
//!
//! Form: `w1:` + base64 of a head (passed, failed step, reason of the run) and 11 bytes a step, then a
//! space and as much of the message for people as fits.

use super::record::EndReason;
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};

const PREFIX: &str = "w1:";
const STEP_BYTES: usize = 11;
/// What Kubernetes keeps of a termination message.
const MAX_BYTES: usize = 4096;
/// No step: an index that cannot be.
const NONE: u8 = u8::MAX;
/// Why a run did not pass, by number. Order is part of the format.
const REASONS: [&str; 7] =
    ["StepFailed", "StepTimedOut", "NoOutput", "RunTimedOut", "Cancelled", "SourceNotWritable", "OutOfMemory"];

/// How one step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepEnd {
    /// How.
    pub reason: EndReason,
    /// Exit code, if it had a process.
    pub code: Option<u8>,
    /// When it began, in milliseconds after the runner's start.
    pub started_ms: u32,
    /// When it ended, likewise.
    pub finished_ms: u32,
}

/// How the run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Whether it passed.
    pub passed: bool,
    /// Reason of the run's condition when it did not.
    pub reason: Option<String>,
    /// Index of the step that failed first.
    pub failed: Option<u8>,
    /// Each step's end; `None` for a step that has no exit record.
    pub steps: Vec<Option<StepEnd>>,
    /// For people: why it did not pass. With very many steps it is cut.
    pub message: Option<String>,
}

impl Summary {
    /// The termination message.
    #[must_use]
    pub fn encode(&self) -> String {
        let reason = self.reason.as_deref().and_then(|r| REASONS.iter().position(|known| *known == r));
        let mut bytes = vec![
            u8::from(self.passed),
            self.failed.unwrap_or(NONE),
            reason.and_then(|r| u8::try_from(r).ok()).unwrap_or(NONE),
        ];
        for step in &self.steps {
            let Some(end) = step else {
                bytes.extend([NONE; STEP_BYTES]);
                continue;
            };
            bytes.push(end.reason as u8);
            bytes.extend([u8::from(end.code.is_some()), end.code.unwrap_or(0)]);
            bytes.extend(end.started_ms.to_be_bytes());
            bytes.extend(end.finished_ms.to_be_bytes());
        }
        let mut text = format!("{PREFIX}{}", STANDARD_NO_PAD.encode(bytes));
        if let Some(message) = &self.message {
            let room = MAX_BYTES.saturating_sub(text.len() + 1);
            let end = message.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= room).last();
            text.push(' ');
            text.push_str(message.get(..end.unwrap_or(0)).unwrap_or_default());
        }
        text
    }

    /// Reads a termination message; `None` if it is not one.
    #[must_use]
    pub fn decode(text: &str) -> Option<Self> {
        let text = text.trim().strip_prefix(PREFIX)?;
        let (code, message) = text.split_once(' ').map_or((text, None), |(code, message)| (code, Some(message)));
        let bytes = STANDARD_NO_PAD.decode(code).ok()?;
        let (head, steps) = bytes.split_at_checked(3)?;
        let &[passed, failed, reason] = head else { return None };
        if passed > 1 || steps.len() % STEP_BYTES != 0 {
            return None;
        }
        let steps = steps.chunks_exact(STEP_BYTES).map(step_end).collect::<Option<Vec<_>>>()?;
        Some(Self {
            passed: passed == 1,
            reason: REASONS.get(usize::from(reason)).map(ToString::to_string),
            failed: (failed != NONE).then_some(failed),
            steps,
            message: message.filter(|m| !m.is_empty()).map(str::to_owned),
        })
    }
}

/// One step's bytes; the outer `None` for bytes that mean nothing.
fn step_end(bytes: &[u8]) -> Option<Option<StepEnd>> {
    let &[reason, has_code, code, a, b, c, d, e, f, g, h] = bytes else { return None };
    if reason == NONE {
        return Some(None);
    }
    Some(Some(StepEnd {
        reason: EndReason::from_number(reason)?,
        code: (has_code == 1).then_some(code),
        started_ms: u32::from_be_bytes([a, b, c, d]),
        finished_ms: u32::from_be_bytes([e, f, g, h]),
    }))
}

impl EndReason {
    /// The reason with this number in a [`Summary`].
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        [
            Self::ExitCode,
            Self::Signal,
            Self::TimedOut,
            Self::NoOutput,
            Self::Cancelled,
            Self::EarlierStepFailed,
            Self::Agent,
            Self::NotStarted,
            Self::OutOfMemory,
        ]
        .get(usize::from(number))
        .copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits_220_steps_and_comes_back() {
        let step = StepEnd { reason: EndReason::Signal, code: Some(137), started_ms: 12, finished_ms: u32::MAX };
        let mut steps = vec![Some(step); 219];
        steps.push(None);
        let summary = Summary {
            passed: false,
            reason: Some("NoOutput".into()),
            failed: Some(219),
            steps,
            message: Some("why ü".into()),
        };
        let text = summary.encode();
        assert!(text.len() <= 4096, "{}", text.len());
        assert_eq!(Summary::decode(&text), Some(summary));
    }

    #[test]
    fn cuts_the_message_at_a_character() {
        let message = Some("ü".repeat(4000));
        let summary = Summary { passed: true, reason: None, failed: None, steps: vec![None; 3], message };
        let text = summary.encode();
        assert!(text.len() <= MAX_BYTES && text.len() >= MAX_BYTES - 2);
        assert!(Summary::decode(&text).unwrap().message.unwrap().chars().all(|c| c == 'ü'));
    }

    #[test]
    fn refuses_what_it_did_not_write() {
        for text in ["", "w1:", "w1:AA", "w1:////", "w2:AQL/", "Killed", "w1:AQL/AAAAAAAAAAAAAA"] {
            assert_eq!(Summary::decode(text), None, "{text}");
        }
    }
}
