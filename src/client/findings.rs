//! What was found in files, told to people or as events.
//!
//! `check`, `convert` and `init` use it. **Invariant:** findings are messages, on stderr; stdout has events or data.

use super::{
    Session,
    event::At,
    exit::Exit,
    fault::Stop,
    render::Json,
    screen,
    style::{Mode, Sign, paint},
};
use crate::yaml::{Findings, Severity, clean};

/// See the module.
pub(super) struct Report {
    json: Option<Json>,
    errors: usize,
    warnings: usize,
}

impl Report {
    /// Begins to tell.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn begin(session: &mut Session) -> Result<Self, Stop> {
        let json = (session.look.mode == Mode::Json).then(|| Json::new(session.setting()));
        let mut report = Self { json, errors: 0, warnings: 0 };
        if let Some(json) = &mut report.json {
            let texts = json.begin_files(At::outside());
            session.screen.show(&texts, Vec::new())?;
        }
        Ok(report)
    }

    /// Tells of one file, then the count.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn file(
        &mut self,
        session: &mut Session,
        name: &str,
        text: &str,
        findings: &Findings,
    ) -> Result<(), Stop> {
        let (errors, warnings) = (findings.count(Severity::Error), findings.count(Severity::Warning));
        self.errors += errors + findings.left_out();
        self.warnings += warnings;
        if let Some(json) = &mut self.json {
            for found in findings.list() {
                let texts = json.diagnostic(At::outside(), name, found);
                session.screen.show(&texts, Vec::new())?;
            }
            return Ok(());
        }
        for found in findings.list() {
            if found.severity == Severity::Warning && session.look.quiet > 0 || session.look.quiet > 1 {
                continue;
            }
            let sign = if found.severity == Severity::Error { Sign::Fail } else { Sign::Warn };
            let head = paint(session.look.color_err, sign, &format!("{}[{}]", found.severity.word(), found.reason));
            screen::error(&format!("{head}: {}\n{}", clean(&found.message), found.details(name, text)));
        }
        if errors + warnings > 0 {
            let more = match findings.left_out() {
                0 => String::new(),
                more => format!("; {more} more are not shown"),
            };
            let count = format!("{name}: {}, {}{more}", counted(errors, "error"), counted(warnings, "warning"));
            session.screen.message(&count)?;
        }
        Ok(())
    }

    /// Whether a file cannot be used; with `strict` also by warnings.
    pub(super) fn failed(&self, strict: bool) -> bool {
        self.errors > 0 || strict && self.warnings > 0
    }

    /// The last event.
    ///
    /// # Errors
    /// When stdout cannot be written.
    pub(super) fn end(self, session: &mut Session, exit: Exit) -> Result<Exit, Stop> {
        if let Some(mut json) = self.json {
            let texts = json.end(At::outside(), exit, None);
            session.screen.show(&texts, Vec::new())?;
        }
        Ok(exit)
    }
}

/// `1 error`, `2 errors`.
pub(super) fn counted(count: usize, what: &str) -> String {
    if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") }
}
