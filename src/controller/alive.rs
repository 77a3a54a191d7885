//! When the agents gave their last sign of life, by the controller's own clock. Called by `observe`.
//!
//! **Invariant:** pure, and clocks of nodes count for nothing: the age of a sign is the time since its Lease was
//! seen to change. The first look cannot tell, and takes the agent to be there.

use super::status::elapsed;
use k8s_openapi::jiff::Timestamp;
use std::{collections::HashMap, time::Duration};

/// A node of which nothing was read for this long is forgotten: nodes come and go.
const KEPT: Duration = Duration::from_secs(24 * 3600);

/// What is known of one node's agent.
struct Sign {
    /// As its Lease has it: by the node's clock.
    renewed: Timestamp,
    /// When that was seen first.
    seen: Timestamp,
    /// When it was read last.
    read: Timestamp,
}

/// The last signs of life, by node.
#[derive(Default)]
pub(super) struct Signs(HashMap<String, Sign>);

impl Signs {
    /// When the agent of `node`, whose Lease says `renewed` now, gave its last sign.
    pub(super) fn note(&mut self, node: &str, renewed: Timestamp, now: Timestamp) -> Timestamp {
        if let Some(sign) = self.0.get_mut(node) {
            if sign.renewed != renewed {
                (sign.renewed, sign.seen) = (renewed, now);
            }
            sign.read = now;
            return sign.seen;
        }
        self.0.retain(|_, sign| elapsed(sign.read, now) < KEPT);
        self.0.insert(node.to_owned(), Sign { renewed, seen: now, read: now });
        now
    }

    /// The Lease of `node` is gone.
    pub(super) fn forget(&mut self, node: &str) {
        self.0.remove(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::SignedDuration;
    use rstest::rstest;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
    }

    #[rstest]
    fn the_age_of_a_sign_does_not_depend_on_the_nodes_clock(#[values(-3600, -30, 0, 180)] skew: i64) {
        let mut signs = Signs::default();
        let mut age = |renewed: i64, now: i64| elapsed(signs.note("n", at(renewed + skew), at(now)), at(now)).as_secs();
        assert_eq!(age(0, 3), 0, "the first look cannot tell");
        assert_eq!(age(0, 9), 6);
        assert_eq!(age(10, 11), 0);
        assert_eq!(age(10, 50), 39, "silent");
        assert_eq!(age(60, 61), 0, "there again");
    }

    #[test]
    fn nodes_are_apart_and_forgotten_in_the_end() {
        let mut signs = Signs::default();
        signs.note("a", at(0), at(0));
        assert_eq!(signs.note("b", at(0), at(50)), at(50));
        assert_eq!(signs.note("a", at(0), at(50)), at(0));
        signs.forget("a");
        assert_eq!(signs.note("a", at(0), at(60)), at(60));
        signs.note("c", at(0), at(60 + 24 * 3600));
        assert_eq!(signs.0.len(), 1);
    }
}
