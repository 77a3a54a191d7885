//! Logs: JSON lines for machines, text on a terminal. Called once by each long-running role.
//!
//! **Invariant:** messages read alone, identifiers are fields; no environment values, no credentials, and no place of a
//! stored container, whatever a library logs at whatever level.

use crate::api::artifact::without_places;
use std::io::{self, IsTerminal, Write};
use tracing_subscriber::EnvFilter;

/// Sets up logging to stderr; `RUST_LOG` filters, default `info`.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(|| WithoutPlaces(io::stderr()));
    let started =
        if io::stderr().is_terminal() { builder.try_init() } else { builder.json().flatten_event(true).try_init() };
    if let Err(error) = started {
        eprintln!("windlass: logging was set up before: {error}");
    }
}

/// Writes events, each of which comes in one piece.
struct WithoutPlaces<W>(W);

impl<W: Write> Write for WithoutPlaces<W> {
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        self.0.write_all(without_places(&String::from_utf8_lossy(event)).as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn an_event_has_no_place_of_a_container() {
        let log = Log::default();
        let writer = log.clone();
        let to_log = tracing_subscriber::fmt().json().with_writer(move || WithoutPlaces(writer.clone())).finish();
        let id = format!("11111111-2222-3333-4444-555555555555-{:032x}", 0xfeed_u128);
        tracing::subscriber::with_default(to_log, || {
            tracing::info!(path = %format!("runs/team/app/{id}/manifest.json"), "GET https://h/v2/team/app/{id}/x");
        });
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        assert!(said.contains("runs/team/app/…/manifest.json") && said.contains("app/…/x"), "{said}");
        assert!(!said.contains(&id), "{said}");
    }
}
