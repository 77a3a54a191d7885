//! Renderers of the one event stream: live, plain and JSON.
//!
//! `follow` gives them events and the time; `screen` writes what they return. **Invariant:** pure:
//! events and clock in, text out. Step output becomes [`Text::Data`], all else [`Text::Message`].

mod json;
mod live;
mod plain;
mod story;

pub(super) use json::{Events, Json};
pub(super) use story::{bytes, why_failed};

use super::{
    args::Show,
    event::{At, Event},
    exit::Exit,
    fault::Fault,
    style::{Look, Mode},
};
use std::sync::Arc;

/// What a renderer wants written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Text {
    /// For stdout: step output, or events as JSON.
    Data(Vec<u8>),
    /// For stderr: whole lines.
    Message(String),
}

/// What all renderers need to know.
#[derive(Clone, Debug, Default)]
pub(super) struct Setting {
    /// How things look.
    pub look: Look,
    /// How hints call us.
    pub program: String,
    /// Lines repeated of the step that failed.
    pub tail: usize,
    /// Which output is shown.
    pub show: Show,
    /// What Ctrl-C does, for the footer.
    pub interrupt: &'static str,
    /// Ctrl-C ends a watched step first.
    pub finishes: bool,
    /// Only this step's output is shown.
    pub only_step: Option<String>,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// Each line begins with its step.
    pub prefix: bool,
    /// Only what is newer is shown.
    pub since: Option<jiff::Timestamp>,
    /// Ports of this machine at which a watched step is reachable.
    pub published: Vec<u16>,
    /// In which times of day are told; none: UTC.
    pub zone: Option<jiff::tz::TimeZone>,
    /// Of a run on this machine: the command that runs it again. The cluster's verbs do not know it.
    pub again: Option<String>,
    /// Which events programs were given: those of all runs of a command count on.
    pub events: Arc<Events>,
}

/// One of the renderers.
#[derive(Debug)]
pub(super) enum Renderer {
    /// Footer and glyphs.
    Live(live::Live),
    /// Whole lines.
    Plain(plain::Plain),
    /// Events.
    Json(json::Json),
}

impl Renderer {
    /// The renderer that the looks ask for.
    #[must_use]
    pub(super) fn new(setting: Setting) -> Self {
        match setting.look.mode {
            Mode::Live => Self::Live(live::Live::new(setting)),
            Mode::Plain | Mode::None => Self::Plain(plain::Plain::new(setting)),
            Mode::Json => Self::Json(json::Json::new(setting)),
        }
    }

    /// Before the first event.
    pub(super) fn begin(&mut self, at: At, context: &str) -> Vec<Text> {
        match self {
            Self::Json(json) => json.begin(at, context),
            Self::Live(_) | Self::Plain(_) => Vec::new(),
        }
    }

    /// Something happened.
    pub(super) fn event(&mut self, at: At, event: &Event) -> Vec<Text> {
        match self {
            Self::Live(live) => live.event(at, event),
            Self::Plain(plain) => plain.event(at, event),
            Self::Json(json) => json.event(at, event),
        }
    }

    /// Time passed.
    pub(super) fn tick(&mut self, at: At) -> Vec<Text> {
        match self {
            Self::Plain(plain) => plain.tick(at),
            Self::Live(_) | Self::Json(_) => Vec::new(),
        }
    }

    /// Rows to repaint below everything else.
    #[must_use]
    pub(super) fn footer(&self, at: At, width: usize) -> Vec<String> {
        match self {
            Self::Live(live) => live.footer(at, width),
            Self::Plain(_) | Self::Json(_) => Vec::new(),
        }
    }

    /// Following ended by an error, which is also told on stderr.
    pub(super) fn fault(&mut self, at: At, fault: &Fault) -> Vec<Text> {
        match self {
            Self::Json(json) => json.fault(at, fault),
            Self::Live(_) | Self::Plain(_) => Vec::new(),
        }
    }

    /// After the last event; `fault`: why, if the run does not tell.
    pub(super) fn end(&mut self, at: At, exit: Exit, fault: Option<&Fault>) -> Vec<Text> {
        match self {
            Self::Json(json) => json.end(at, exit, fault),
            Self::Live(_) | Self::Plain(_) => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
