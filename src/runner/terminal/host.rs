//! Holds a shell on a pty while people come and go. The supervisor starts it with a socket as stdin;
//! its stdout is the log of the step, in which it says who came and how the shell was left.
//!
//! **Invariant:** the shell begins with the first person, and only its end, or an order to end, ends
//! the host. Nobody who reads slowly stops the others for longer than [`PATIENCE_MS`], and nobody at
//! all attached stops nothing: what is printed meanwhile is lost.

use super::frame::{Frame, Reader, Size};
use crate::runner::signals::{OF_A_LOOP, Signals};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
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

/// Somebody who is attached.
struct Person {
    stream: UnixStream,
    reader: Reader,
    /// What is yet to be written, and since when none of it was taken.
    waiting: Vec<u8>,
    stuck: Option<Instant>,
    gone: bool,
}

/// The shell and its terminal.
struct Shell {
    child: Child,
    master: OwnedFd,
    /// Kept, or a shell that closes its own would look like a terminal that is hung up.
    #[expect(dead_code, reason = "it is held, not read")]
    slave: OwnedFd,
    size: Size,
}

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
}

/// Runs until the shell ends; the answer is an exit code.
///
/// # Errors
/// What cannot be done, for people.
pub(in crate::runner) fn run(args: &[OsString]) -> Result<u8, String> {
    let Some((code, words)) = args.split_first() else { return Err("a command is missing".into()) };
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
    };
    loop {
        host.wait()?;
        while let Some(signal) = host.signals.read() {
            if signal != Signal::SIGCHLD {
                return Ok(host.close(signal));
            }
        }
        host.meet();
        host.hear()?;
        host.print();
        if let Some(code) = host.left() {
            host.last_words(code);
            return Ok(0);
        }
        host.type_code();
        host.enter();
        host.tell();
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
                let reader = Reader::default();
                self.people.push(Person { stream, reader, waiting: Vec::new(), stuck: None, gone: false });
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

    /// The shell's exit code, once it has ended.
    fn left(&mut self) -> Option<i32> {
        let status = self.shell.as_mut()?.child.try_wait().ok().flatten()?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        Some(status.code().or_else(|| signal.map(|signal| 128 + signal)).unwrap_or_default())
    }

    /// Gives everybody what was printed last, and how the shell ended.
    fn last_words(&mut self, code: i32) {
        log(&format!("the shell was left with exit code {code}"));
        self.print();
        self.say_goodbye(&Frame::Left(code));
    }

    /// An order to end: the terminal is hung up, which ends what runs on it, but for who ignores that. Nobody left the
    /// shell, so this is no good end.
    fn close(&mut self, signal: Signal) -> u8 {
        drop(self.shell.take());
        self.say_goodbye(&Frame::Data(b"\r\nthe step was ended\r\n".to_vec()));
        u8::try_from(128 + signal as i32).unwrap_or(u8::MAX)
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

impl Person {
    /// The frames that came; nobody is there any more if the connection ended or made no sense.
    fn hear(&mut self) -> Vec<Frame> {
        let mut buffer = [0; 16 * 1024];
        let frames = match self.stream.read(&mut buffer) {
            Ok(0) => None,
            Ok(count) => self.reader.take(buffer.get(..count).unwrap_or_default()).ok(),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Some(Vec::new()),
            Err(_) => None,
        };
        self.gone |= frames.is_none();
        frames.unwrap_or_default()
    }

    fn tell(&mut self, now: Instant) {
        let mut some = self.waiting.is_empty();
        while !self.waiting.is_empty() && !self.gone {
            match self.stream.write(&self.waiting) {
                Ok(count) => {
                    some = true;
                    self.waiting.drain(..count);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => self.gone = true,
            }
        }
        self.stuck = if self.waiting.is_empty() { None } else { Some(self.stuck.filter(|_| !some).unwrap_or(now)) };
    }
}

impl Shell {
    fn start(words: &[OsString], size: Size) -> Result<Self, String> {
        let failed = |what: &str, error: io::Error| format!("the terminal cannot be made: {what}: {error}");
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).map_err(|e| failed("/dev/ptmx", e.into()))?;
        rustix::pty::grantpt(&master).map_err(|e| failed("grant", e.into()))?;
        rustix::pty::unlockpt(&master).map_err(|e| failed("unlock", e.into()))?;
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).map_err(|e| failed("open", e.into()))?;
        rustix::io::ioctl_fionbio(&master, true).map_err(|e| failed("unblock", e.into()))?;
        rustix::termios::tcsetwinsize(&master, size.winsize()).map_err(|e| failed("resize", e.into()))?;
        let copy = || slave.try_clone().map(Stdio::from).map_err(|e| failed("share", e));
        let runner = std::env::current_exe().map_err(|e| failed("runner", e))?;
        let child = Command::new(runner)
            .arg(super::ON_TTY_COMMAND)
            .args(words)
            .stdin(copy()?)
            .stdout(copy()?)
            .stderr(copy()?)
            .spawn()
            .map_err(|e| failed("start", e))?;
        Ok(Self { child, master, slave, size })
    }

    /// Programs redraw when the size changes; who comes back to the same size has to see them, too.
    fn resize(&mut self, size: Size) {
        if size == self.size {
            let other = Size { columns: size.columns.saturating_add(1), ..size };
            let _ = rustix::termios::tcsetwinsize(&self.master, other.winsize());
        }
        let _ = rustix::termios::tcsetwinsize(&self.master, size.winsize());
        self.size = size;
    }
}

impl Size {
    fn winsize(self) -> Winsize {
        Winsize { ws_row: self.rows, ws_col: self.columns, ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// A line in the step's log.
fn log(line: &str) {
    // The log is for people who come later; the terminal goes on without.
    let _ = writeln!(io::stdout(), "{line}");
}
