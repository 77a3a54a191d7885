//! How people reach PID 1: a socket in `out`, one call and one reply a connection. The supervisor's
//! loop holds the [`Control`]; [`call`] is the other side, in a process that was exec'd into the box.
//!
//! ```text
//! kubectl exec … windlass-runner continue ──{"verb":"continue"}──> control ──> schedule
//!                                         <──{"done":{…}}─────────
//! ```
//!
//! **Invariant:** nothing here blocks the loop: callers, what they say and how long they may take are
//! bounded. Whoever runs in the box may call; a box can deceive itself alone. A caller is waited for until it
//! has told what it heard: with PID 1 it would be killed.

use super::Error;
use super::schedule::Verb;
use nix::poll::{PollFd, PollFlags};
use serde::{Deserialize, Serialize};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Name of the socket in `out`.
const SOCKET_FILE: &str = "control";
/// Most callers at a time.
const CALLERS: usize = 16;
/// Longest call.
const CALL_BYTES: usize = 4096;
/// Largest reply: an environment in base64, and room.
const REPLY_BYTES: u64 = 4 * 1024 * 1024;
/// How long a call may take in all.
const CALL_MS: u64 = 10_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "camelCase")]
pub(super) enum Call {
    /// [`Verb::Continue`].
    Continue {
        /// The step it is meant for, if one was named.
        step: Option<String>,
    },
    /// [`Verb::Finish`].
    Finish {
        /// The step it is meant for, if one was named.
        step: Option<String>,
    },
    /// [`Verb::Retry`].
    Retry {
        /// The step it is meant for, if one was named.
        step: Option<String>,
    },
    /// A terminal.
    Shell,
    /// What a command begins with.
    Environment,
}

impl Call {
    /// The call of a verb.
    pub(super) fn of(verb: Verb, step: Option<String>) -> Self {
        match verb {
            Verb::Continue => Self::Continue { step },
            Verb::Finish => Self::Finish { step },
            Verb::Retry => Self::Retry { step },
        }
    }
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) enum Reply {
    /// It is not done; why, for people.
    Refused(String),
    /// It is done; what, for people.
    Done(String),
    /// A terminal waits at this socket.
    Terminal {
        /// Where.
        socket: PathBuf,
        /// What a person should know before the first prompt.
        notice: String,
    },
    /// Directory and variables in base64, each ended by NUL.
    Environment(String),
}

/// The socket, and who calls.
pub(super) struct Control {
    listener: UnixListener,
    callers: Vec<Caller>,
}

/// One connection.
struct Caller {
    stream: UnixStream,
    said: Vec<u8>,
    /// What is left of the reply, once there is one. Nothing is left once it was told: then the caller is to leave.
    reply: Option<Vec<u8>>,
    until: u64,
    over: bool,
}

impl Control {
    /// Listens in `out`.
    pub(super) fn open(outbox: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(outbox.join(SOCKET_FILE))?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, callers: Vec::new() })
    }

    /// What the loop is to wait for.
    pub(super) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        let callers = self.callers.iter().map(|caller| {
            let speaks = caller.reply.as_ref().is_some_and(|left| !left.is_empty());
            let wanted = if speaks { PollFlags::POLLOUT } else { PollFlags::POLLIN };
            PollFd::new(caller.stream.as_fd(), wanted)
        });
        std::iter::once(PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)).chain(callers)
    }

    /// Takes what callers say and gives replies, as far as that goes without waiting.
    pub(super) fn serve(
        &mut self,
        now: u64,
        mut answer: impl FnMut(Call) -> Result<Reply, Error>,
    ) -> Result<(), Error> {
        self.accept(now);
        for caller in &mut self.callers {
            if let Some(call) = caller.hear() {
                let reply = match call {
                    Ok(call) => answer(call)?,
                    Err(why) => Reply::Refused(why),
                };
                // Strings only: this cannot fail.
                caller.reply = Some(serde_json::to_vec(&reply).unwrap_or_default());
            }
            caller.tell();
        }
        self.callers.retain(|caller| !caller.over && now < caller.until);
        Ok(())
    }

    /// Whether somebody who was answered has not left yet.
    pub(super) fn is_heard(&self) -> bool {
        self.callers.iter().any(|caller| caller.reply.is_some())
    }

    /// Takes new callers; those that are too many have to come again.
    fn accept(&mut self, now: u64) {
        // No more at once: callers that come again and again must not hold the loop.
        for _ in 0..CALLERS {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if self.callers.len() < CALLERS && stream.set_nonblocking(true).is_ok() {
                self.callers.push(Caller { stream, said: Vec::new(), reply: None, until: now + CALL_MS, over: false });
            }
        }
    }
}

impl Caller {
    /// The call, once it is there; the inner error is for people.
    fn hear(&mut self) -> Option<Result<Call, String>> {
        let mut buffer = [0; CALL_BYTES];
        match self.stream.read(&mut buffer) {
            Ok(0) => self.over = true,
            Ok(_) if self.reply.is_some() => return None,
            Ok(count) => self.said.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => self.over = true,
        }
        if self.reply.is_some() {
            return None;
        }
        match self.said.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                let call = serde_json::from_slice(self.said.get(..end).unwrap_or_default());
                Some(call.map_err(|error| format!("that is no call: {error}")))
            }
            None if self.said.len() > CALL_BYTES => Some(Err("the call is too long".into())),
            None => None,
        }
    }

    /// Writes what the caller takes now.
    fn tell(&mut self) {
        let Some(reply) = self.reply.as_mut().filter(|left| !left.is_empty()) else { return };
        while !reply.is_empty() {
            match self.stream.write(reply) {
                Ok(count) => drop(reply.drain(..count)),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.over = true;
                    return;
                }
            }
        }
        self.over |= self.stream.shutdown(Shutdown::Write).is_err();
    }
}

/// Calls PID 1 and waits for its reply.
///
/// # Errors
/// That nobody answers, for people.
pub(super) fn call(outbox: &Path, call: &Call) -> Result<Reply, String> {
    hold(outbox, call).map(|(reply, _)| reply)
}

/// Calls PID 1, which does not end before the connection is closed or it has waited long enough.
///
/// # Errors
/// As [`call`].
pub(super) fn hold(outbox: &Path, call: &Call) -> Result<(Reply, UnixStream), String> {
    let reply = || -> io::Result<(Reply, UnixStream)> {
        let mut stream = UnixStream::connect(outbox.join(SOCKET_FILE))?;
        stream.set_read_timeout(Some(Duration::from_millis(CALL_MS)))?;
        let mut line = serde_json::to_vec(call)?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut bytes = Vec::new();
        (&stream).take(REPLY_BYTES).read_to_end(&mut bytes)?;
        if bytes.is_empty() {
            return Err(io::Error::other("too many ask at once; try again"));
        }
        Ok((serde_json::from_slice(&bytes)?, stream))
    };
    reply().map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => "no run goes on in this box".into(),
        _ => format!("the run does not answer: {error}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A control that answers with what it was asked, in a thread until all of `calls` were answered.
    fn served(dir: &Path, calls: usize) -> std::thread::JoinHandle<Vec<Call>> {
        let mut control = Control::open(dir).unwrap();
        std::thread::spawn(move || {
            let mut heard = Vec::new();
            let began = std::time::Instant::now();
            while heard.len() < calls || !control.callers.is_empty() {
                assert!(began.elapsed() < Duration::from_secs(20), "{heard:?}");
                let now = u64::try_from(began.elapsed().as_millis()).unwrap();
                let answer = |call: Call| {
                    heard.push(call);
                    Ok(Reply::Environment("x".repeat(1_500_000)))
                };
                control.serve(now, answer).unwrap();
                std::thread::sleep(Duration::from_millis(1));
            }
            heard
        })
    }

    #[test]
    fn calls_are_answered_whole_beside_a_caller_that_says_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let thread = served(dir.path(), 2);
        let silent = UnixStream::connect(dir.path().join(SOCKET_FILE)).unwrap();
        for verb in [Verb::Continue, Verb::Retry] {
            let reply = call(dir.path(), &Call::of(verb, Some("test".into()))).unwrap();
            assert_eq!(reply, Reply::Environment("x".repeat(1_500_000)));
        }
        drop(silent);
        let step = Some("test".to_owned());
        assert_eq!(thread.join().unwrap(), [Call::Continue { step: step.clone() }, Call::Retry { step }]);
    }

    #[test]
    fn what_is_no_call_is_refused_and_who_says_nothing_is_let_go() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(call(dir.path(), &Call::Shell), Err("no run goes on in this box".into()));
        let mut control = Control::open(dir.path()).unwrap();
        let none = |_: Call| -> Result<Reply, Error> { panic!("nothing was asked") };
        let refused = |control: &mut Control, said: &[u8]| {
            let mut stream = UnixStream::connect(dir.path().join(SOCKET_FILE)).unwrap();
            stream.write_all(said).unwrap();
            for _ in 0..3 {
                control.serve(0, none).unwrap();
            }
            let mut reply = Vec::new();
            stream.read_to_end(&mut reply).unwrap();
            matches!(serde_json::from_slice(&reply).unwrap(), Reply::Refused(_))
        };
        assert!(refused(&mut control, b"make coffee\n"));
        assert!(refused(&mut control, &[b'x'; CALL_BYTES + 1]));
        let _silent = UnixStream::connect(dir.path().join(SOCKET_FILE)).unwrap();
        control.serve(0, none).unwrap();
        assert_eq!(control.callers.len(), 1);
        control.serve(CALL_MS, none).unwrap();
        assert_eq!(control.callers.len(), 0);
    }

    #[test]
    fn who_was_answered_is_known_until_it_has_left() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = Control::open(dir.path()).unwrap();
        let _silent = UnixStream::connect(dir.path().join(SOCKET_FILE)).unwrap();
        let place = dir.path().to_owned();
        let caller = std::thread::spawn(move || hold(&place, &Call::Shell).unwrap());
        let began = std::time::Instant::now();
        while !caller.is_finished() {
            assert!(began.elapsed() < Duration::from_secs(20));
            control.serve(0, |_| Ok(Reply::Done("gone on".into()))).unwrap();
        }
        let (reply, held) = caller.join().unwrap();
        assert_eq!((reply, control.is_heard()), (Reply::Done("gone on".into()), true));
        control.serve(1, |_| panic!("it asked once")).unwrap();
        assert!(control.is_heard());
        drop(held);
        control.serve(2, |_| panic!("it asked once")).unwrap();
        assert!(!control.is_heard());
    }

    #[test]
    fn callers_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let mut control = Control::open(dir.path()).unwrap();
        let all: Vec<_> =
            (0..CALLERS + 5).map(|_| UnixStream::connect(dir.path().join(SOCKET_FILE)).unwrap()).collect();
        control.serve(0, |_| Ok(Reply::Done(String::new()))).unwrap();
        assert_eq!((control.callers.len(), all.len()), (CALLERS, CALLERS + 5));
    }
}
