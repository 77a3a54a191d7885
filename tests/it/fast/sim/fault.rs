//! What goes wrong in a plan, and where.
//!
//! **Invariant:** a plan's name says all: read back, it is the same plan.

use std::{fmt, str::FromStr};

/// A fault at a write of the controller, or all along its watches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing.
    None,
    /// The controller dies before the write arrives.
    CrashBefore,
    /// The write is applied, and the controller dies before it is answered.
    CrashAfter,
    /// As `CrashAfter`; the new controller's first lists are of the past.
    StaleList,
    /// HTTP 500, not applied.
    Refused,
    /// Applied, then HTTP 504.
    AppliedTimeout,
    /// Applied, the answer is lost on the way and the client sends it again.
    Twice,
    /// HTTP 409, not applied.
    Conflict,
    /// Not applied, and never answered.
    Hang,
    /// After this event all watches end by 410 Gone.
    Gone,
    /// After every so many events the watch connection drops.
    Drop,
    /// Every watch event comes twice.
    Duplicate,
    /// Every watch event comes this many events later, or after some seconds.
    Lag,
    /// Watches show an object's last state only, once a second.
    Coalesce,
}

const NAMES: [(Fault, &str); 14] = [
    (Fault::None, "none"),
    (Fault::CrashBefore, "crash-before"),
    (Fault::CrashAfter, "crash-after"),
    (Fault::StaleList, "stale-list"),
    (Fault::Refused, "refused"),
    (Fault::AppliedTimeout, "applied-timeout"),
    (Fault::Twice, "twice"),
    (Fault::Conflict, "conflict"),
    (Fault::Hang, "hang"),
    (Fault::Gone, "gone"),
    (Fault::Drop, "drop"),
    (Fault::Duplicate, "duplicate"),
    (Fault::Lag, "lag"),
    (Fault::Coalesce, "coalesce"),
];

impl Fault {
    /// Those tried at every write.
    pub(super) const AT_WRITES: [Self; 8] = [
        Self::CrashBefore,
        Self::CrashAfter,
        Self::StaleList,
        Self::Refused,
        Self::AppliedTimeout,
        Self::Twice,
        Self::Conflict,
        Self::Hang,
    ];
    /// Tried at every watch event.
    pub(super) const AT_EVENT: Self = Self::Gone;
    /// Those that last, with how much.
    pub(super) const LASTING: [(Self, usize); 7] = [
        (Self::Drop, 1),
        (Self::Drop, 3),
        (Self::Duplicate, 1),
        (Self::Lag, 1),
        (Self::Lag, 2),
        (Self::Lag, 5),
        (Self::Coalesce, 1),
    ];
}

/// A fault and where it strikes: the number of the write or event, from 1, or how much.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Strike(pub(super) Fault, pub(super) usize);

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = NAMES.iter().find(|(fault, _)| *fault == self.0).map_or("", |(_, name)| name);
        write!(f, "{name}@{}", self.1)
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, at) = text.split_once('@').ok_or("a plan is workload/fault@n")?;
        let (fault, _) = NAMES.iter().find(|(_, known)| *known == name).ok_or("no such fault")?;
        Ok(Self(*fault, at.parse().map_err(|_| "n is a number")?))
    }
}
