//! Arguments of the verbs that look at files only.
//!
//! **Invariant:** as that of all arguments.

use clap::{Args, ValueHint};
use std::path::PathBuf;

/// `check`.
#[derive(Args, Clone, Debug, Default)]
pub struct CheckArgs {
    /// wercker.yml or YAML of Pipelines and runs; - is stdin [default: those of this directory]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Warnings count as errors
    #[arg(long)]
    pub strict: bool,
    /// Where steps are that a wercker.yml names [default: .wercker/steps beside it]
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub steps: Option<PathBuf>,
}

/// `convert`.
#[derive(Args, Clone, Debug, Default)]
pub struct ConvertArgs {
    /// The file; - is stdin [default: wercker.yml or .wercker.yml]
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Write into this file, which must not be there yet
    #[arg(short, long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub output: Option<PathBuf>,
    /// Where the source comes from [default: origin of the file's git repository]
    #[arg(long, value_name = "ADDRESS")]
    pub git: Option<String>,
    /// Where steps are that the file names [default: .wercker/steps beside it]
    #[arg(long, value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub steps: Option<PathBuf>,
}

/// `init`.
#[derive(Args, Clone, Debug, Default)]
pub struct InitArgs {
    /// The project [default: this directory]
    #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
}
