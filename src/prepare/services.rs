//! Waits until services accept connections. All containers of a pod share one network, so localhost
//! is where they are; those of a local run have an address. Checks by command are the kubelet's, or the local run's.
//!
//! Called by `mod.rs`, one thread for each service.
//!
//! **Invariant:** a wait ends within the service's time, whatever the service answers.

use super::failure::failure;
use crate::{
    api::condition::reason,
    wire::{Failure, ServiceCheck},
};
use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

/// Time between two looks.
const INTERVAL: Duration = Duration::from_millis(100);
/// Longest time for one look.
const LOOK: Duration = Duration::from_secs(5);
/// The first line of an answer is at most this long.
const STATUS_LINE_BYTES: usize = 1024;

/// Waits until the service is ready; how long that took.
///
/// # Errors
/// `ServiceNotReady` when its time is over.
pub(crate) fn wait(check: &ServiceCheck, at: IpAddr) -> Result<Duration, Failure> {
    let begin = Instant::now();
    let end = begin + Duration::from_secs(check.within_s);
    let mut earlier: Option<String> = None;
    loop {
        let now = Instant::now();
        let look_end = end.min(now + LOOK);
        let problem = match &check.http_path {
            None => connect(at, check.port, look_end).err().map(|_| format!("tcp {} not open", check.port)),
            Some(path) => http_problem(at, check.port, path, look_end),
        };
        let Some(problem) = problem else { return Ok(begin.elapsed()) };
        // A look that the end cut short says less than the one before.
        let problem = earlier.filter(|_| Instant::now() >= end).unwrap_or(problem);
        if Instant::now() + INTERVAL >= end {
            let message = format!("service {}: {problem} after {}", check.name, span(check.within_s));
            return Err(failure(reason::SERVICE_NOT_READY, message));
        }
        earlier = Some(problem);
        thread::sleep(INTERVAL);
    }
}

fn connect(at: IpAddr, port: u16, end: Instant) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&SocketAddr::new(at, port), left(end)?)
}

/// Time until `end`; none left is an error, as a socket takes zero for "no limit".
fn left(end: Instant) -> io::Result<Duration> {
    match end.saturating_duration_since(Instant::now()) {
        Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
        left => Ok(left),
    }
}

/// What keeps the address from being ready; `None` when it answers 2xx or 3xx.
fn http_problem(at: IpAddr, port: u16, path: &str, end: Instant) -> Option<String> {
    let address = format!("http {port}{path}");
    let Ok(stream) = connect(at, port, end) else { return Some(format!("{address} not open")) };
    match status(stream, path, end) {
        Ok(200..400) => None,
        Ok(code) => Some(format!("{address} answers {code}")),
        Err(_) => Some(format!("{address} gives no answer in HTTP")),
    }
}

fn status(mut stream: TcpStream, path: &str, end: Instant) -> io::Result<u16> {
    stream.set_write_timeout(Some(left(end)?))?;
    let request =
        format!("GET {} HTTP/1.0\r\nHost: localhost\r\nUser-Agent: windlass\r\nAccept: */*\r\n\r\n", encode_path(path));
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::with_capacity(STATUS_LINE_BYTES);
    let mut buffer = [0; STATUS_LINE_BYTES];
    while !answer.contains(&b'\n') && answer.len() < STATUS_LINE_BYTES {
        stream.set_read_timeout(Some(left(end)?))?;
        match stream.read(&mut buffer)? {
            0 => break,
            n => answer.extend_from_slice(buffer.get(..n).unwrap_or_default()),
        }
    }
    status_code(&answer).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The code of `HTTP/1.1 200 OK`.
fn status_code(answer: &[u8]) -> Option<u16> {
    let line = answer.split(|b| *b == b'\n').next()?;
    let mut words = std::str::from_utf8(line).ok()?.split_ascii_whitespace();
    words.next()?.strip_prefix("HTTP/1.")?;
    let code = words.next()?;
    (code.len() == 3).then(|| code.parse().ok())?
}

/// Escapes what would end the request line.
fn encode_path(path: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_graphic() {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

/// Seconds as users write them: `45s`, `2m`, `1m30s`.
fn span(seconds: u64) -> String {
    match (seconds / 60, seconds % 60) {
        (0, s) => format!("{s}s"),
        (m, 0) => format!("{m}m"),
        (m, s) => format!("{m}m{s}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn reads_the_status_of_an_answer() {
        for (answer, code) in [
            ("HTTP/1.1 200 OK\r\n", Some(200)),
            ("HTTP/1.0 302\r\n\r\n", Some(302)),
            ("HTTP/1.1 503 Service Unavailable", Some(503)),
            ("HTTP/1.1 20 OK\r\n", None),
            ("HTTP/1.1 20x OK\r\n", None),
            ("SSH-2.0-OpenSSH_9.2\r\n", None),
            ("", None),
            ("\nHTTP/1.1 200 OK", None),
        ] {
            assert_eq!(status_code(answer.as_bytes()), code, "{answer:?}");
        }
    }

    #[test]
    fn a_path_cannot_add_a_header() {
        assert_eq!(encode_path("/a b\r\nX: y?q=1&é"), "/a%20b%0D%0AX:%20y?q=1&%C3%A9");
    }

    #[test]
    fn prints_spans_as_users_write_them() {
        for (seconds, text) in [(1, "1s"), (60, "1m"), (90, "1m30s"), (120, "2m"), (1800, "30m")] {
            assert_eq!(span(seconds), text);
        }
    }

    /// A server that answers each connection with the next of `answers`, the last for ever.
    fn server(answers: &'static [&'static str]) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        thread::spawn(move || {
            for n in 0.. {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 512];
                let _ = stream.read(&mut request);
                let _ = stream.write_all(answers[n.min(answers.len() - 1)].as_bytes());
            }
        });
        port
    }

    fn http(port: u16, within_s: u64) -> Result<Duration, String> {
        let check = ServiceCheck { name: "web".into(), port, http_path: Some("/ok".into()), within_s };
        wait(&check, Ipv4Addr::LOCALHOST.into()).map_err(|failure| format!("{}: {}", failure.reason, failure.message))
    }

    #[test]
    fn waits_for_a_good_answer() {
        let port = server(&["HTTP/1.1 503 no\r\n\r\n", "", "HTTP/1.1 204 yes\r\n\r\n"]);
        assert!(http(port, 60).is_ok());
    }

    #[test]
    fn says_what_the_service_answered() {
        let port = server(&["HTTP/1.1 500 no\r\n\r\n"]);
        let message = format!("ServiceNotReady: service web: http {port}/ok answers 500 after 1s");
        assert_eq!(http(port, 1), Err(message));
        let port = server(&["hello\r\n"]);
        let message = format!("ServiceNotReady: service web: http {port}/ok gives no answer in HTTP after 1s");
        assert_eq!(http(port, 1), Err(message));
    }

    #[test]
    fn says_that_a_port_is_closed() {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let check = ServiceCheck { name: "db".into(), port, http_path: None, within_s: 0 };
        assert_eq!(
            wait(&check, Ipv4Addr::LOCALHOST.into()).unwrap_err().message,
            format!("service db: tcp {port} not open after 0s")
        );
    }
}
