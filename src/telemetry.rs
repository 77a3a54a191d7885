//! Logs: JSON lines for machines, text on a terminal. Called once by each long-running role.
//!
//! **Invariant:** messages read alone, identifiers are fields; no environment values, no credentials.

use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sets up logging to stderr; `RUST_LOG` filters, default `info`.
pub fn start() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = if std::io::stderr().is_terminal() {
        builder.try_init()
    } else {
        builder.json().flatten_event(true).try_init()
    };
    if let Err(error) = started {
        eprintln!("windlass: logging was set up before: {error}");
    }
}
