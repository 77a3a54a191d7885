//! From fetched objects to files: work tree, submodules, large files.
//!
//! Called by `git` after the fetch.
//!
//! **Invariant:** what a repository says of itself (attributes, submodules) never becomes a command.

use super::{
    command::Git,
    explain::{Context, Problem, problem},
    not_written, relative,
    repository::Repository,
};
use crate::{
    api::condition::reason,
    prepare::failure::failure,
    wire::{Failure, GitOrder},
};
use std::{
    fs::{self, File},
    process::Command,
};

/// What git-lfs must find set before it touches files.
const LFS_SETTINGS: [&str; 4] = [
    "filter.lfs.clean=git-lfs clean -- %f",
    "filter.lfs.smudge=git-lfs smudge -- %f",
    "filter.lfs.process=git-lfs filter-process",
    "filter.lfs.required=true",
];

/// What is checked out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// A branch, under its own name.
    Branch(String),
    /// A tag.
    Tag(String),
    /// Anything else that was fetched, by what git calls it.
    Detached(String),
}

/// Runs a command that must succeed.
pub(super) fn must(git: &Git, command: &mut Command, context: &Context<'_>) -> Result<String, Failure> {
    run(git, command, context).map_err(|problem| {
        problem.or(|| failure(reason::SOURCE_FAILED, format!("git: {} lacks an object", context.address.url)))
    })
}

/// Runs a command; what it printed.
pub(super) fn run(git: &Git, command: &mut Command, context: &Context<'_>) -> Result<String, Problem> {
    match git.run(command) {
        Ok(output) if output.success => Ok(output.stdout),
        Ok(output) => Err(problem(&output.stderr, context)),
        Err(error) => Err(Problem::Lasting(failure(reason::SOURCE_FAILED, format!("cannot run git: {error}")))),
    }
}

/// Writes the work tree.
pub(super) fn files(
    git: &Git,
    repository: &Repository,
    target: &Target,
    order: &GitOrder,
    context: &Context<'_>,
) -> Result<(), Failure> {
    sparse(git, repository, order, context)?;
    let mut command = repository.command(git);
    command.args(["checkout", "-q", "-f"]);
    match target {
        Target::Branch(name) => command.args(["-B", name, &format!("refs/remotes/origin/{name}")]),
        Target::Tag(name) => command.args(["--detach", &format!("refs/tags/{name}")]),
        Target::Detached(name) => command.args(["--detach", name]),
    };
    must(git, command.arg("--"), context).map(drop)
}

/// Limits the work tree to the directories that are wanted; that one which becomes the source is enough.
fn sparse(git: &Git, repository: &Repository, order: &GitOrder, context: &Context<'_>) -> Result<(), Failure> {
    let directory = order.directory.iter().filter(|directory| relative(directory).is_some());
    let wanted: Vec<&String> =
        if order.sparse.is_empty() { directory.collect() } else { order.sparse.iter().collect() };
    if wanted.is_empty() {
        return Ok(());
    }
    let mut lines = String::new();
    for name in wanted {
        if relative(name).is_none() || name.contains(char::is_control) {
            let message = format!("source.git.sparse: {name} must be a relative directory without ..");
            return Err(failure(reason::SOURCE_FAILED, message));
        }
        lines = format!("{lines}{}\n", name.trim_end_matches('/'));
    }
    let list = repository.scratch_file("sparse");
    let list = fs::write(&list, lines).and_then(|()| File::open(&list)).map_err(not_written)?;
    let mut command = repository.command(git);
    must(git, command.args(["sparse-checkout", "set", "--cone", "--stdin"]).stdin(list), context).map(drop)
}

/// Fetches submodules into the installed repository.
pub(super) fn submodules(
    git: &Git,
    repository: &Repository,
    order: &GitOrder,
    context: &Context<'_>,
) -> Result<(), Failure> {
    if order.submodules == 0 || !repository.work.join(".gitmodules").exists() {
        return Ok(());
    }
    let mut command = git.command(&repository.work);
    command.args(["submodule", "--quiet", "update", "--init"]);
    if order.submodules > 1 {
        command.arg("--recursive");
    }
    if order.depth > 0 {
        command.arg(format!("--depth={}", order.depth));
    }
    let done = must(git, &mut command, context).map(drop);
    done.map_err(|why| failure(&why.reason, format!("submodules: {}", why.message)))
}

/// Fetches large files into the installed repository, if it has any.
pub(super) fn large_files(
    git: &Git,
    repository: &Repository,
    order: &GitOrder,
    context: &Context<'_>,
) -> Result<(), Failure> {
    if !order.lfs {
        return Ok(());
    }
    let mut command = git.command(&repository.work);
    if must(git, command.args(["ls-files", "--", ":(top,attr:filter=lfs)"]), context)?.is_empty() {
        return Ok(());
    }
    let installed = git.run(git.command(&repository.work).args(["lfs", "version"])).is_ok_and(|output| output.success);
    if !installed {
        eprintln!("the repository uses Git LFS, which this image lacks: large files stay pointers");
        return Ok(());
    }
    let mut command = git.command(&repository.work);
    for setting in LFS_SETTINGS {
        command.args(["-c", setting]);
    }
    let done = must(git, command.args(["lfs", "pull", "origin"]), context).map(drop);
    done.map_err(|why| failure(&why.reason, format!("large files: {}", why.message)))
}
