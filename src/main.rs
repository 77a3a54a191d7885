//! The `windlass` executable: all roles but the runner.

use std::process::ExitCode;

fn main() -> ExitCode {
    windlass::cli::main()
}
