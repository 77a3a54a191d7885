//! Who owns what local runs made, and the removal of what has no living owner.
//!
//! `start` sweeps before each run; `node` gives every container, network and directory its owner.
//!
//! **Invariant:** what belongs to a process that may live is left alone: of another machine, of another set of
//! processes (a container that shares the socket), or whatever cannot be read.

use super::directory;
use crate::engine::{OWNER_LABEL, docker::DockerEngine, docker::containers::Owned};
use nix::{errno::Errno, sys::signal::kill, unistd::Pid};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::PathBuf,
    str::FromStr,
};

/// A process of this machine or another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    /// The machine and the set of processes: a number means the same process only within both.
    place: String,
    /// The boot of the machine.
    boot: String,
    pid: u32,
    /// When the process started, in the kernel's ticks since boot: numbers are used again.
    started: u64,
}

impl Owner {
    /// This process.
    ///
    /// # Errors
    /// When the system does not say.
    pub(super) fn me() -> io::Result<Self> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname")?;
        let processes = fs::read_link("/proc/self/ns/pid")?;
        // `pid:[4026531836]`
        let processes: String = processes.to_string_lossy().chars().filter(char::is_ascii_digit).collect();
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
        let pid = std::process::id();
        let Process::Started(started) = Process::of(pid) else {
            return Err(io::Error::other("the start of this process is not known"));
        };
        Ok(Self { place: format!("{}.{processes}", host.trim()), boot: boot.trim().to_owned(), pid, started })
    }

    /// Whether the process is certainly gone, as seen by `me`.
    fn is_gone(&self, me: &Self) -> bool {
        self.place == me.place && (self.boot != me.boot || !Process::of(self.pid).may_be(self.started))
    }
}

/// What can be seen of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    /// It started then, in the kernel's ticks since boot.
    Started(u64),
    /// There is one of this number, and no more is shown of it: it is another user's, and `/proc` is mounted with
    /// `hidepid` (`proc(5)`).
    Hidden,
    Gone,
}

impl Process {
    fn of(pid: u32) -> Self {
        if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
            return Self::read(&stat).unwrap_or(Self::Hidden);
        }
        // A signal that does nothing finds a process that is not shown, too.
        let pid = i32::try_from(pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw);
        match pid.map(|pid| kill(pid, None)) {
            None | Some(Err(Errno::ESRCH)) => Self::Gone,
            Some(Ok(()) | Err(_)) => Self::Hidden,
        }
    }

    /// Field 22 of `proc_pid_stat(5)`; the name before it may hold anything.
    fn read(stat: &str) -> Option<Self> {
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        // A zombie does nothing any more.
        if fields.next()? == "Z" {
            return Some(Self::Gone);
        }
        Some(Self::Started(fields.nth(18)?.parse().ok()?))
    }

    /// Whether it can be the one that started then.
    fn may_be(self, when: u64) -> bool {
        match self {
            Self::Started(started) => started == when,
            Self::Hidden => true,
            Self::Gone => false,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}/{}", self.place, self.boot, self.pid, self.started)
    }
}

impl FromStr for Owner {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.trim().splitn(4, '/');
        let mut part = || parts.next().ok_or(());
        let (place, boot) = (part()?.to_owned(), part()?.to_owned());
        let (pid, started) = (part()?.parse().map_err(|_| ())?, part()?.parse().map_err(|_| ())?);
        Ok(Self { place, boot, pid, started })
    }
}

/// Labels of something that a run made.
pub(super) fn labels(owner: &Owner, own: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let mut labels = own;
    labels.insert(OWNER_LABEL.to_owned(), owner.to_string());
    labels
}

/// Removes what dead owners left: containers, then their networks, committed images, and directories.
///
/// What cannot be removed now is left to the next sweep: nobody waits for this one, and somebody else may be at it.
pub(super) async fn sweep(engine: DockerEngine, base: PathBuf, me: Owner) {
    let orphaned = |found: &Owned| {
        let owner = found.labels.get(OWNER_LABEL).and_then(|text| text.parse::<Owner>().ok());
        owner.is_some_and(|owner| owner.is_gone(&me))
    };
    let containers = engine.owned_containers().await.unwrap_or_default();
    let mut dead = BTreeSet::new();
    for container in containers.iter().filter(|found| orphaned(found)) {
        let removed = engine.remove_container(&container.id).await;
        if let Err(error) = removed {
            tracing::debug!("a container of an earlier run stays: {error}");
        }
        dead.extend(DockerEngine::local_uid(&container.labels).map(str::to_owned));
    }
    for network in engine.owned_networks().await.unwrap_or_default().iter().filter(|found| orphaned(found)) {
        let _ = engine.remove_network(&network.id).await;
    }
    for (path, owner, image) in directory::left(&base) {
        if owner.parse::<Owner>().is_ok_and(|owner| owner.is_gone(&me)) {
            if let Some(uid) = path.file_name().and_then(|name| name.to_str()) {
                dead.insert(uid.to_owned());
            }
            directory::remove(&engine, &path, &image, &me).await;
        }
    }
    if dead.is_empty() {
        return;
    }
    let _ = engine.remove_made(|uid| dead.contains(uid)).await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::process::Command;

    #[test]
    fn this_process_lives_and_its_label_leads_back_to_it() {
        let me = Owner::me().unwrap();
        assert_eq!(me.to_string().parse(), Ok(me.clone()));
        assert!(!me.is_gone(&me));
    }

    #[test]
    fn a_process_that_ended_is_gone_even_if_its_number_is_used_again() {
        let me = Owner::me().unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let Process::Started(started) = Process::of(child.id()) else { panic!("it runs") };
        let of_child = Owner { pid: child.id(), started, ..me.clone() };
        assert!(!of_child.is_gone(&me));
        let earlier = Owner { started: of_child.started - 1, ..of_child.clone() };
        assert!(earlier.is_gone(&me), "another process has the number");
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(of_child.is_gone(&me));
    }

    #[rstest]
    #[case::runs("7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1", Some(Process::Started(4711)))]
    #[case::zombie("7 (a) Z 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4711 1 1", Some(Process::Gone))]
    #[case::cut("7 (a) S 1 7", None)]
    fn what_proc_says_of_a_process_is_read(#[case] stat: &str, #[case] expected: Option<Process>) {
        assert_eq!(Process::read(stat), expected);
    }

    #[test]
    fn a_process_that_is_hidden_may_live() {
        assert!(Process::Hidden.may_be(1));
        assert_eq!(Process::of(4_000_000_000), Process::Gone);
        assert!(!Process::Gone.may_be(1) && Process::Started(1).may_be(1) && !Process::Started(2).may_be(1));
    }

    #[rstest]
    #[case::another_boot(|o: &mut Owner| o.boot = "x".into(), true)]
    #[case::another_machine(|o: &mut Owner| (o.place, o.pid) = ("x.1".into(), 4_000_000), false)]
    fn a_number_means_something_only_in_its_place(#[case] change: fn(&mut Owner), #[case] gone: bool) {
        let me = Owner::me().unwrap();
        let mut other = me.clone();
        change(&mut other);
        assert_eq!(other.is_gone(&me), gone);
    }

    #[rstest]
    #[case("")]
    #[case("a/b/c/d")]
    #[case("a/b/1")]
    fn what_is_no_owner_is_not_read_as_one(#[case] text: &str) {
        assert!(text.parse::<Owner>().is_err());
    }
}
