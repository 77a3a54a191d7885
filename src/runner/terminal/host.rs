//! Holds a shell on a pty while people come and go. The supervisor starts it with a socket as stdin;
//! its stdout is the log of the step, in which it says who came and how the shell was left.
//!
//! What ends it: the shell's end; TERM; HUP, once nobody is attached, as no more people come.
//!
//! **Invariant:** the shell begins with the first person, and only its end, or an order to end, ends
//! the host. With a grace, nobody of the shell's session outlives the host. Nobody who reads slowly
//! stops the others for longer than [`PATIENCE_MS`], and nobody at all attached stops nothing: what is
//! printed meanwhile is lost.

mod person;
mod shell;

use super::frame::{Frame, Size};
use crate::runner::signals::{OF_A_LOOP, Signals};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use person::Person;
use shell::Shell;
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Most people at one terminal.
const PEOPLE: usize = 8;
/// How often to read what is printed before others have their turn.
const READS: usize = 16;
/// How much may wait for one of them before the shell has to wait.
const ENOUGH: usize = 256 * 1024;
/// How much may wait to be typed.
const TYPED: usize = 64 * 1024;
/// How long the shell waits for who does not read.
const PATIENCE_MS: u64 = 5_000;
/// How long the shell may take to its first prompt before the step's code is typed anyway.
const FIRST_PROMPT_MS: u64 = 500;
/// How long the last words may take.
const LAST_WORDS_MS: u64 = 1_000;
/// What a window is taken for whose size nobody knows.
const USUAL: Size = Size { rows: 24, columns: 80 };

struct Host {
    listener: UnixListener,
    signals: Signals,
    people: Vec<Person>,
    words: Vec<OsString>,
    /// A file to be sourced first, and when at the latest.
    code: Option<PathBuf>,
    type_at: Option<Instant>,
    shell: Option<Shell>,
    typed: Vec<u8>,
    /// How long what runs on the terminal may take to end with it; none: it may go on.
    grace: Option<Duration>,
    /// Nobody new comes.
    retired: bool,
}

/// Runs until the shell ends; the answer is an exit code.
///
/// # Errors
/// What cannot be done, for people.
pub(in crate::runner) fn run(args: &[OsString]) -> Result<u8, String> {
    let [grace_ms, code, words @ ..] = args else { return Err("a command is missing".into()) };
    let listener = io::stdin().as_fd().try_clone_to_owned().map_err(|error| format!("the socket: {error}"))?;
    let signals = Signals::block(&OF_A_LOOP).map_err(|errno| format!("signals: {errno}"))?;
    // In a box everything ends with PID 1; elsewhere nobody else would end us.
    let _ = nix::sys::prctl::set_pdeathsig(Signal::SIGTERM);
    let code = Some(PathBuf::from(code)).filter(|code| !code.as_os_str().is_empty());
    let mut host = Host {
        listener: UnixListener::from(listener),
        signals,
        people: Vec::new(),
        words: words.to_vec(),
        code,
        type_at: None,
        shell: None,
        typed: Vec::new(),
        grace: grace_ms.to_str().and_then(|text| text.parse().ok()).map(Duration::from_millis),
        retired: false,
    };
    loop {
        host.wait()?;
        while let Some(signal) = host.signals.read() {
            match signal {
                Signal::SIGCHLD => {}
                Signal::SIGHUP => host.retired = true,
                signal => return Ok(host.close(signal)),
            }
        }
        host.meet();
        if let Err(why) = host.hear() {
            // Who asked for the terminal may not read the log.
            host.say_goodbye(&Frame::Data(format!("{why}\r\n").into_bytes()));
            return Err(why);
        }
        host.print();
        if let Some(code) = host.shell.as_mut().and_then(Shell::left) {
            host.last_words(code);
            return Ok(0);
        }
        host.type_code();
        host.enter();
        host.tell();
        if host.retired && host.people.is_empty() {
            return Ok(host.close(Signal::SIGHUP));
        }
    }
}

impl Host {
    /// Waits until something can be done.
    fn wait(&self) -> Result<(), String> {
        let mut files = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
        ];
        for person in &self.people {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, self.typed.len() < TYPED);
            wanted.set(PollFlags::POLLOUT, !person.waiting.is_empty());
            // A hangup is told even to who wants nothing; it is heard when there is room again.
            if !wanted.is_empty() {
                files.push(PollFd::new(person.stream.as_fd(), wanted));
            }
        }
        if let Some(shell) = &self.shell {
            let mut wanted = PollFlags::empty();
            wanted.set(PollFlags::POLLIN, !self.is_held());
            wanted.set(PollFlags::POLLOUT, !self.typed.is_empty());
            if !wanted.is_empty() {
                files.push(PollFd::new(shell.master.as_fd(), wanted));
            }
        }
        // Who does not read is in nobody's way as long as little waits.
        let stuck = self.people.iter().filter_map(|person| person.stuck).filter(|_| self.is_held());
        let times = stuck.map(|since| since + Duration::from_millis(PATIENCE_MS)).chain(self.type_at);
        let timeout = times.min().map_or(PollTimeout::NONE, |at| {
            let left = at.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
            PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut files, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(errno) => Err(format!("poll: {errno}")),
        }
    }

    /// Whether the shell has to wait for somebody who reads slowly.
    fn is_held(&self) -> bool {
        self.people.iter().any(|person| person.waiting.len() > ENOUGH)
    }

    /// Lets people in; those that are too many have to come again.
    fn meet(&mut self) {
        // No more at once, so that nobody holds this by coming again and again.
        for _ in 0..PEOPLE {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if self.people.len() < PEOPLE && stream.set_nonblocking(true).is_ok() {
                self.people.push(Person::new(stream));
            }
        }
    }

    /// Takes what people type, and their windows' sizes: the last to say one is believed.
    fn hear(&mut self) -> Result<(), String> {
        let mut size = None;
        for person in &mut self.people {
            if self.typed.len() >= TYPED {
                break;
            }
            for frame in person.hear() {
                match frame {
                    Frame::Data(bytes) => self.typed.extend(bytes),
                    Frame::Size(new) => size = Some(new),
                    Frame::Left(_) => person.gone = true,
                }
            }
        }
        let Some(size) = size else { return Ok(()) };
        let size = if size.rows == 0 || size.columns == 0 { USUAL } else { size };
        match &mut self.shell {
            Some(shell) => shell.resize(size),
            None => {
                self.shell = Some(Shell::start(&self.words, size)?);
                self.type_at = self.code.is_some().then(|| Instant::now() + Duration::from_millis(FIRST_PROMPT_MS));
                log("a terminal was opened");
            }
        }
        Ok(())
    }

    /// Hands what the shell prints to everybody.
    fn print(&mut self) {
        let Some(shell) = &self.shell else { return };
        let mut buffer = [0; 16 * 1024];
        for _ in 0..READS {
            if self.is_held() {
                return;
            }
            match nix::unistd::read(&shell.master, &mut buffer) {
                Ok(count) if count > 0 => {
                    let frame = Frame::Data(buffer.get(..count).unwrap_or_default().to_vec());
                    self.people.iter_mut().for_each(|person| frame.put(&mut person.waiting));
                    self.type_at = self.type_at.map(|_| Instant::now());
                }
                // Nothing now, or nobody has the terminal open any more.
                Ok(_) | Err(_) => return,
            }
        }
    }

    /// Has the shell run the step's code, once it has prompted.
    fn type_code(&mut self) {
        if self.type_at.is_some_and(|at| Instant::now() >= at) {
            self.type_at = None;
            if let Some(code) = self.code.take() {
                let quoted = crate::runner::script::quoted(&code);
                self.typed.splice(..0, [b". ".as_slice(), &quoted, b"\n"].concat());
            }
        }
    }

    /// Types what people typed, as far as the terminal takes it.
    fn enter(&mut self) {
        let Some(shell) = self.shell.as_ref().filter(|_| self.type_at.is_none()) else { return };
        while !self.typed.is_empty() {
            match nix::unistd::write(&shell.master, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::EINTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Writes to everybody what they take now; lets go who left, and who does not read for too long.
    fn tell(&mut self) {
        let now = Instant::now();
        self.people.iter_mut().for_each(|person| person.tell(now));
        let patience = Duration::from_millis(PATIENCE_MS);
        let lost = |person: &Person| person.stuck.is_some_and(|since| now >= since + patience);
        let crowded = self.is_held();
        self.people.retain(|person| !(person.gone || crowded && lost(person)));
    }

    /// Gives everybody what was printed last, and how the shell ended.
    fn last_words(&mut self, code: i32) {
        log(&format!("the shell was left with exit code {code}"));
        self.print();
        self.end(&Frame::Left(code));
    }

    /// An order to end. Nobody left the shell, so this is no good end.
    fn close(&mut self, signal: Signal) -> u8 {
        self.end(&Frame::Data(b"\r\nthe step was ended\r\n".to_vec()));
        u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
    }

    /// Hangs the terminal up, lets everybody go with `last`, and waits until what ran there has ended, if it is to.
    fn end(&mut self, last: &Frame) {
        let (shell, grace) = (self.shell.take(), self.grace);
        let ending = shell.and_then(|shell| grace.map(|grace| (shell.hang_up(), grace)));
        self.say_goodbye(last);
        // To who is attached, this is the end.
        self.people.clear();
        if let Some((ending, grace)) = ending {
            ending.wait(grace);
        }
    }

    fn say_goodbye(&mut self, last: &Frame) {
        self.people.iter_mut().for_each(|person| last.put(&mut person.waiting));
        let until = Instant::now() + Duration::from_millis(LAST_WORDS_MS);
        while self.people.iter().any(|person| !person.gone && !person.waiting.is_empty()) {
            let left = until.saturating_duration_since(Instant::now());
            let mut files: Vec<_> =
                self.people.iter().map(|person| PollFd::new(person.stream.as_fd(), PollFlags::POLLOUT)).collect();
            if left.is_zero() || poll(&mut files, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)).is_err() {
                return;
            }
            let now = Instant::now();
            self.people.iter_mut().for_each(|person| person.tell(now));
            self.people.retain(|person| !person.gone);
        }
    }
}

/// A line in the step's log, if it takes one now: the log is for people who come later, the terminal goes on without.
fn log(line: &str) {
    let stdout = io::stdout();
    // While nobody reads what the box prints the supervisor takes no more, and who waits for that hears no order to end.
    if poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLOUT)], PollTimeout::ZERO) == Ok(1) {
        let _ = writeln!(&stdout, "{line}");
    }
}
