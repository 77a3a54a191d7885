//! A cluster that goes away while something of it is watched: said after a while, and in the end an error.
//!
//! `follow`, `status -w` and `list -w` use it. **Invariant:** no verb waits longer than [`PATIENCE`] for a cluster
//! that does not answer, and none waits in silence; what may not be watched is told at once.

use super::{
    connect::Cluster,
    fault::{Fault, Stop},
    refusal::{self, Ask},
};
use kube::runtime::watcher;
use std::time::{Duration, Instant};

/// How long the cluster may be away before watching ends.
const PATIENCE: Duration = Duration::from_secs(120);
/// After this long without the cluster a line says so.
const NOTICE_AFTER: Duration = Duration::from_secs(5);

/// How often [`Away::check`] is to be asked, or more often.
pub(super) const CHECK: Duration = Duration::from_millis(500);

/// Since when the cluster does not answer, and whether that was said.
#[derive(Debug, Default)]
pub(super) struct Away(Option<(Instant, bool)>);

/// What is to be done by now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    Say,
    End,
}

impl Away {
    /// It answered.
    pub(super) fn is_back(&mut self) {
        self.0 = None;
    }

    /// A watch failed; it is tried again by who watches.
    ///
    /// # Errors
    /// What the cluster refused, if trying again is of no use.
    pub(super) fn failed(&mut self, error: &watcher::Error, ask: &Ask<'_>, cluster: &Cluster) -> Result<(), Stop> {
        if let watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error) = error
            && let kube::Error::Api(status) = error
            && matches!(status.code, 401 | 403 | 404)
        {
            return Err(refusal::explain(error, ask, cluster));
        }
        self.0.get_or_insert((Instant::now(), false));
        Ok(())
    }

    /// What is to be said now, if anything.
    ///
    /// # Errors
    /// `ClusterUnreachable`, once it was away for too long.
    pub(super) fn check(&mut self, cluster: &Cluster) -> Result<Option<String>, Fault> {
        match self.due(Instant::now()) {
            Due::Nothing => Ok(None),
            Due::Say => Ok(Some(format!("no answer from {}; trying again", cluster.url))),
            Due::End => {
                Err(cluster.unreachable(&format!("no answer from {} for {}s", cluster.url, PATIENCE.as_secs())))
            }
        }
    }

    fn due(&mut self, now: Instant) -> Due {
        let Some((since, said)) = &mut self.0 else { return Due::Nothing };
        let away = now.saturating_duration_since(*since);
        if away > PATIENCE {
            return Due::End;
        }
        if away > NOTICE_AFTER && !std::mem::replace(said, away > NOTICE_AFTER) {
            return Due::Say;
        }
        Due::Nothing
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_said_once_and_ends_in_time() {
        let began = Instant::now();
        let at = |s: u64| began + Duration::from_secs(s);
        let mut away = Away::default();
        assert_eq!(away.due(at(1000)), Due::Nothing);
        away.0 = Some((began, false));
        let told: Vec<Due> = [1, 5, 6, 7, 120, 121].into_iter().map(|s| away.due(at(s))).collect();
        assert_eq!(told, [Due::Nothing, Due::Nothing, Due::Say, Due::Nothing, Due::Nothing, Due::End]);
        away.is_back();
        assert_eq!(away.due(at(1000)), Due::Nothing);
    }
}
