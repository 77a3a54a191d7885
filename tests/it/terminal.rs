//! A person at a terminal: a pty, on which a program of a test runs as a container's runtime or a
//! terminal emulator would start it.

use rustix::pty::OpenptFlags;
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

/// How long anything may take before the test gives up.
const PATIENCE: Duration = Duration::from_secs(60);

/// See the module.
pub(crate) struct Person {
    master: OwnedFd,
    /// Kept, so that the terminal stays when its program has ended.
    slave: OwnedFd,
    child: Child,
    seen: String,
}

impl Person {
    /// Starts a program on a terminal of 30 rows and 90 columns.
    pub(crate) fn starts(program: &Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags).unwrap();
        rustix::pty::grantpt(&master).unwrap();
        rustix::pty::unlockpt(&master).unwrap();
        let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
        rustix::io::ioctl_fionbio(&master, true).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: 30, ws_col: 90, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(program.get_program()).args(program.get_args());
        for (name, value) in program.get_envs() {
            let value: Option<&OsStr> = value;
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        if let Some(directory) = program.get_current_dir() {
            command.current_dir(directory);
        }
        let end = || slave.try_clone().unwrap();
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        Self { master, slave, child, seen: String::new() }
    }

    pub(crate) fn resizes(&self, ws_row: u16, ws_col: u16) {
        tcsetwinsize(&self.master, Winsize { ws_row, ws_col, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    pub(crate) fn types(&self, text: &str) {
        File::from(self.master.try_clone().unwrap()).write_all(text.as_bytes()).unwrap();
    }

    /// Types much, as fast as the terminal takes it. What is printed meanwhile is thrown away.
    pub(crate) fn pastes(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        let mut master = File::from(self.master.try_clone().unwrap());
        let mut left = text.as_bytes();
        while !left.is_empty() {
            self.seen();
            self.seen.clear();
            match master.write(left) {
                Ok(count) => left = &left[count..],
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
                Err(error) => panic!("{error}"),
            }
            assert!(Instant::now() < until, "{} bytes were not taken", left.len());
        }
    }

    /// How the terminal is set.
    pub(crate) fn settings(&self) -> Termios {
        tcgetattr(&self.slave).unwrap()
    }

    /// All that was printed and not waited for.
    pub(crate) fn seen(&mut self) -> &str {
        let mut buffer = [0; 4096];
        let mut master = File::from(self.master.try_clone().unwrap());
        while let Ok(count @ 1..) = master.read(&mut buffer) {
            self.seen.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        // What bash says to terminals that can tell typed text from pasted text.
        self.seen = self.seen.replace("\u{1b}[?2004h", "").replace("\u{1b}[?2004l\r", "");
        &self.seen
    }

    /// Waits for a text and forgets what came before its end.
    pub(crate) fn sees(&mut self, text: &str) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen().find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let over = self.child.try_wait().unwrap();
            if over.is_some() && self.seen().contains(text) {
                continue;
            }
            let last = self.seen.len().saturating_sub(2000);
            let last = String::from_utf8_lossy(&self.seen.as_bytes()[last..]).into_owned();
            assert!(over.is_none() && Instant::now() < until, "no {text:?} in {last:?} ({over:?})");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits for the prompt of a shell, whatever it looked like before.
    pub(crate) fn prompts(&mut self) {
        self.types("PS1='ready'\"> \"\n");
        self.sees("\nready> ");
    }

    /// Has the shell wait until its terminal has this size: that comes over its own stream, and may be later than what is
    /// typed.
    pub(crate) fn has_size(&mut self, size: &str) {
        self.types(&format!("until test \"$(stty size)\" = '{size}'; do sleep 0.1; done; echo si''zed\n"));
        self.sees("\nsized\r\nready> ");
    }

    /// Waits for the end of the program: its exit code.
    pub(crate) fn leaves(&mut self) -> Option<i32> {
        let until = Instant::now() + PATIENCE;
        loop {
            self.seen();
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "still there: {:?}", self.seen);
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The program is killed, as if its connection or its machine were gone.
    pub(crate) fn loses_the_connection(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
