//! Fetches a git repository with the `git` of the image.
//!
//! Called by `source::fetch`, in a thread of its own.
//!
//! **Invariant:** one connection for a branch, and as few as possible else; every word that comes from
//! the order is checked before it is an argument.

use super::{
    Fetched,
    address::{self, Address, Transport},
    checkout::{self, Target, must, run},
    command::{Git, Processes},
    credential,
    explain::{Context, Problem},
    not_written,
    repository::{Home, Repository},
    revision::{self, Revision},
};
use crate::{
    api::{condition::reason, duration},
    prepare::{
        failure::{clean, failure, shorten},
        layout::Layout,
    },
    wire::{Failure, GitOrder, Order},
};
use std::{
    path::Path,
    process::Command,
    thread,
    time::{Duration, Instant},
};

/// Waits before another try after a fault of the network, which a new pod may not have yet.
const RETRY_AFTER: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(2)];
/// Digits of a commit for people.
const SHORT_COMMIT: usize = 7;

/// Fetches into `work`, an empty directory.
///
/// # Errors
/// Why the repository, or what is wanted of it, could not be had.
pub(super) fn fetch(
    order: &GitOrder,
    whole: &Order,
    layout: &Layout,
    work: &Path,
    processes: &Processes,
) -> Result<Fetched, Failure> {
    let begin = Instant::now();
    let wrong = |message: String| failure(reason::SOURCE_FAILED, message);
    let address = address::parse(&order.url).map_err(|what| wrong(format!("source.git.url {what}")))?;
    let revision = revision::parse(order.revision.as_deref()).ok_or_else(|| {
        let text = order.revision.as_deref().unwrap_or_default();
        wrong(format!(
            "source.git.revision {text:?} must be a branch, tag, commit or full ref such as refs/pull/7/head"
        ))
    })?;
    let home = Home::new(&layout.own()).map_err(not_written)?;
    let access = credential::access(order, &whole.run.namespace, layout, &address, &home.path)?;
    let mut settings = access.settings;
    let files_allowed = if address.transport == Transport::File { "always" } else { "never" };
    settings.push(("protocol.file.allow".into(), files_allowed.into()));
    let git = Git { home: home.path.clone(), settings, ssh: access.ssh, processes: processes.clone() };
    let repository = Repository::create(&home, work, &order.url).map_err(not_written)?;
    let context = Context { address: &address, secret: order.secret_name.as_deref() };
    let session = Session { git: &git, repository: &repository, context: &context, order };
    let target = session.target(revision)?;
    checkout::files(&git, &repository, &target, order, &context)?;
    let head = must(&git, repository.command(&git).args(["log", "-1", "--format=%H%n%s", "HEAD", "--"]), &context)?;
    repository.install().map_err(not_written)?;
    checkout::submodules(&git, &repository, order, &context)?;
    checkout::large_files(&git, &repository, order, &context)?;
    let (commit, subject) = head.split_once('\n').unwrap_or((&head, ""));
    say(&target, commit, subject, begin);
    Ok(fetched(&address, target, commit))
}

fn say(target: &Target, commit: &str, subject: &str, begin: Instant) {
    let name = match target {
        Target::Branch(name) | Target::Tag(name) => format!("{name}@"),
        Target::Detached(_) => String::new(),
    };
    let (short, subject) = (commit.get(..SHORT_COMMIT).unwrap_or(commit), shorten(&clean(subject.trim_end())));
    eprintln!("fetched {name}{short} \"{subject}\" in {}", duration::human(begin.elapsed()));
}

fn fetched(address: &Address<'_>, target: Target, commit: &str) -> Fetched {
    let (branch, tag) = match target {
        Target::Branch(name) => (Some(name), None),
        Target::Tag(name) => (None, Some(name)),
        Target::Detached(_) => (None, None),
    };
    Fetched {
        revision: Some(commit.to_owned()),
        branch,
        tag,
        domain: (!address.host.is_empty()).then(|| address.host.to_owned()),
        owner: address.owner(),
        repository: address.repository(),
    }
}

/// One fetch.
struct Session<'a> {
    git: &'a Git,
    repository: &'a Repository,
    context: &'a Context<'a>,
    order: &'a GitOrder,
}

impl Session<'_> {
    /// Fetches what is wanted, and says what that is.
    fn target(&self, revision: Revision<'_>) -> Result<Target, Failure> {
        match revision {
            Revision::Default => self.default_branch(),
            Revision::Commit(commit) => self.commit(commit),
            Revision::Ref(full) => {
                if let Some(branch) = full.strip_prefix("refs/heads/") {
                    self.branch(branch).map_err(|p| p.or(|| self.missing(&format!("branch {branch}"))))
                } else if let Some(tag) = full.strip_prefix("refs/tags/") {
                    self.tag(tag).map_err(|p| p.or(|| self.missing(&format!("tag {tag}"))))
                } else {
                    self.fetch(&[full]).map_err(|p| p.or(|| self.missing(full)))?;
                    Ok(Target::Detached("FETCH_HEAD".into()))
                }
            }
            Revision::Name(name) => match self.branch(name) {
                Err(Problem::Missing) => self.tag(name).map_err(|p| p.or(|| self.no_such_name(name))),
                other => other.map_err(|p| p.or(|| self.no_such_name(name))),
            },
        }
    }

    fn default_branch(&self) -> Result<Target, Failure> {
        let missing = || failure(reason::SOURCE_FAILED, format!("git: {} has no commits", self.url()));
        let list = self.patiently(&["ls-remote", "--symref", "--", self.url(), "HEAD"]).map_err(|p| p.or(missing))?;
        if list.trim().is_empty() {
            return Err(missing());
        }
        let branch = list.lines().find_map(|line| line.strip_prefix("ref: refs/heads/")?.strip_suffix("\tHEAD"));
        match branch.filter(|branch| matches!(revision::parse(Some(branch)), Some(Revision::Name(_)))) {
            Some(branch) => self.branch(branch).map_err(|p| p.or(missing)),
            None => {
                self.fetch(&["HEAD"]).map_err(|p| p.or(missing))?;
                Ok(Target::Detached("FETCH_HEAD".into()))
            }
        }
    }

    fn branch(&self, name: &str) -> Result<Target, Problem> {
        self.fetch(&[&format!("+refs/heads/{name}:refs/remotes/origin/{name}")])?;
        Ok(Target::Branch(name.to_owned()))
    }

    fn tag(&self, name: &str) -> Result<Target, Problem> {
        self.fetch(&[&format!("+refs/tags/{name}:refs/tags/{name}")])?;
        Ok(Target::Tag(name.to_owned()))
    }

    /// A server may refuse to give a commit that no ref names; then its refs are searched for it.
    fn commit(&self, commit: &str) -> Result<Target, Failure> {
        let missing = || self.missing(&format!("commit {commit}"));
        match self.fetch(&[commit]) {
            Err(Problem::Unadvertised) => {
                eprintln!("the server gives no single commits: fetching all history");
                let all = ["+refs/heads/*:refs/remotes/origin/*", "+refs/tags/*:refs/tags/*"];
                self.fetch_depth(&all, 0).map_err(|p| p.or(missing))?;
                let mut find = self.repository.command(self.git);
                find.args(["cat-file", "-e", &format!("{commit}^{{commit}}")]);
                run(self.git, &mut find, self.context).map_err(|_| missing())?;
            }
            other => other.map_err(|p| p.or(missing))?,
        }
        Ok(Target::Detached(commit.to_owned()))
    }

    fn fetch(&self, refspecs: &[&str]) -> Result<(), Problem> {
        self.fetch_depth(refspecs, self.order.depth)
    }

    fn fetch_depth(&self, refspecs: &[&str], depth: u32) -> Result<(), Problem> {
        let (tags, depth_option) = match depth {
            0 => ("--tags", None),
            depth => ("--no-tags", Some(format!("--depth={depth}"))),
        };
        let mut arguments = vec!["fetch", "--quiet", "--no-recurse-submodules", tags];
        arguments.extend(depth_option.as_deref());
        arguments.extend(["--", self.url()]);
        arguments.extend(refspecs);
        self.patiently(&arguments).map(drop)
    }

    /// Runs git again after a fault of the network.
    fn patiently(&self, arguments: &[&str]) -> Result<String, Problem> {
        let command = || -> Command {
            let mut command = self.repository.command(self.git);
            command.args(arguments);
            command
        };
        for wait in RETRY_AFTER {
            match run(self.git, &mut command(), self.context) {
                Err(Problem::Passing(why)) if !self.git.processes.killed() => {
                    eprintln!("{}; trying again", why.message);
                    thread::sleep(wait);
                }
                other => return other,
            }
        }
        run(self.git, &mut command(), self.context)
    }

    fn url(&self) -> &str {
        self.context.address.url
    }

    fn missing(&self, what: &str) -> Failure {
        failure(reason::SOURCE_FAILED, format!("git: {what} does not exist on {}", self.url()))
    }

    fn no_such_name(&self, name: &str) -> Failure {
        let looks_short = (4..40).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_hexdigit());
        if !looks_short {
            return self.missing(&format!("branch {name}"));
        }
        let message =
            format!("git: neither branch nor tag {name} exists on {}; give all digits of a commit", self.url());
        failure(reason::SOURCE_FAILED, message)
    }
}
