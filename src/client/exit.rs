//! Exit codes of the command line, and the page about them.
//!
//! Used by every verb. **Invariant:** a code never changes its meaning; scripts branch on them.

/// How a verb ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Did what was asked; the run succeeded.
    Success,
    /// The run failed, or `check` found a fault.
    Failed,
    /// Usage or invalid input; nothing was started.
    Usage,
    /// The run was cancelled.
    Cancelled,
    /// Not allowed or not logged in.
    Denied,
    /// No such run, step or pipeline.
    NotFound,
    /// The cluster is away.
    World,
    /// The client's own time was over; the run goes on.
    TimedOut,
    /// `status --exit-status`: not finished yet.
    Unfinished,
    /// Ended by Ctrl-C before a result.
    Interrupted,
    /// Ended by TERM before a result.
    Terminated,
    /// The failed step's own code (`--exit-code step`), or that of a command (`shell -- COMMAND`).
    Step(u8),
}

impl Exit {
    /// The number the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Success => 0,
            Self::Failed => 1,
            Self::Usage => 2,
            Self::Cancelled => 3,
            Self::Denied => 4,
            Self::NotFound => 5,
            Self::World => 6,
            Self::TimedOut => 7,
            Self::Unfinished => 8,
            Self::Interrupted => 130,
            Self::Terminated => 143,
            Self::Step(code) => code,
        }
    }
}

/// Exit code of a bug: the process panicked.
pub(super) const BUG: i32 = 101;

/// `help exit-codes`.
pub(super) const TOPIC: &str = "\
Exit codes

    0  did what was asked; the run succeeded
    1  the run failed; check found a fault
    2  usage or invalid input; nothing was started
    3  the run was cancelled
    4  not allowed or not logged in (kubeconfig, RBAC)
    5  no such run, step, pipeline or artifact
    6  the world: the cluster, its store or your Docker is away, or there is no Windlass
    7  the client's --timeout passed; the run goes on
    8  status --exit-status: not finished yet
  101  a bug in Windlass
  130  ended by Ctrl-C before a result
  143  ended by TERM before a result

Verbs that follow a run to its end (run, dev, retry, logs -f, status --wait) exit with its result, also when it
had ended before. Verbs that only look exit 0 once they could show it. With run --exit-code step the exit code of a
failed run is the failed step's own, if that is from 1 to 125. shell -- COMMAND exits with the command's own code:
127 if it is not in the box, 126 if it cannot be run, 125 if the run has no step to run it at.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_lists_every_code() {
        let all = [
            Exit::Success,
            Exit::Failed,
            Exit::Usage,
            Exit::Cancelled,
            Exit::Denied,
            Exit::NotFound,
            Exit::World,
            Exit::TimedOut,
            Exit::Unfinished,
            Exit::Interrupted,
            Exit::Terminated,
        ];
        for exit in all {
            assert!(TOPIC.contains(&format!("\n{:>5}  ", exit.code())), "{exit:?}");
        }
        assert!(TOPIC.contains(&format!("\n{BUG:>5}  ")));
    }
}
