//! A cluster that answers as a test wants: enough of an API server for the command line.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

/// What is answered to a request.
pub(super) enum Answer {
    /// This status with this JSON.
    Json(u16, String),
    /// The same after a while.
    Late(Duration, u16, String),
    /// Nothing, ever.
    Never,
    /// The head of a stream, and nothing more.
    Silence,
}

/// See the module; it goes on until the test process ends.
pub(super) struct Server {
    pub(super) url: String,
    heard: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    /// `answer` is given `GET /path?query`.
    pub(super) fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (heard, bodies): (Arc<Mutex<Vec<String>>>, _) = Default::default();
        let server = Self { url, heard: Arc::clone(&heard), bodies: Arc::clone(&bodies) };
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, heard, bodies) = (Arc::clone(&answer), Arc::clone(&heard), Arc::clone(&bodies));
                std::thread::spawn(move || serve(stream, &*answer, &heard, &bodies));
            }
        });
        server
    }

    /// What came last with a request like this.
    pub(super) fn last_body(&self, what: &str) -> Option<String> {
        let bodies = self.bodies.lock().expect("a list");
        bodies.iter().rev().find(|(request, _)| request.starts_with(what)).map(|(_, body)| body.clone())
    }

    /// Whether something like this was asked.
    pub(super) fn was_asked(&self, what: &str) -> bool {
        self.asked(what) > 0
    }

    fn asked(&self, what: &str) -> usize {
        self.heard.lock().expect("a list").iter().filter(|request| request.starts_with(what)).count()
    }

    /// Waits until something like this is asked.
    pub(super) fn until_asked(&self, what: &str) {
        self.until_asked_times(what, 1);
    }

    /// Waits until something like this was asked so often.
    pub(super) fn until_asked_times(&self, what: &str, times: usize) {
        let began = Instant::now();
        while self.asked(what) < times {
            assert!(began.elapsed() < Duration::from_secs(20), "{what} was not asked: {:?}", self.heard.lock());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Serves a connection until it ends.
fn serve(
    stream: TcpStream,
    answer: &dyn Fn(&str) -> Answer,
    heard: &Mutex<Vec<String>>,
    bodies: &Mutex<Vec<(String, String)>>,
) {
    let mut to = stream.try_clone().expect("a socket");
    let mut from = BufReader::new(stream);
    while let Some((request, body)) = request(&mut from) {
        bodies.lock().expect("a list").push((request.clone(), body));
        heard.lock().expect("a list").push(request.clone());
        let (code, text) = match answer(&request) {
            Answer::Json(code, text) => (code, text),
            Answer::Late(wait, code, text) => {
                std::thread::sleep(wait);
                (code, text)
            }
            Answer::Never => loop {
                std::thread::park();
            },
            Answer::Silence => {
                let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
                let _ = to.write_all(head.as_bytes());
                loop {
                    std::thread::park();
                }
            }
        };
        let head =
            format!("HTTP/1.1 {code} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", text.len());
        if to.write_all(format!("{head}{text}").as_bytes()).is_err() {
            return;
        }
    }
}

/// The next request's first line, without the version, and its body.
fn request(from: &mut BufReader<TcpStream>) -> Option<(String, String)> {
    let mut first = String::new();
    from.read_line(&mut first).ok().filter(|count| *count > 0)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        from.read_line(&mut line).ok().filter(|count| *count > 0)?;
        if line.trim_end().is_empty() {
            break;
        }
        if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).ok()?;
    let first = first.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    Some((first, String::from_utf8_lossy(&body).into_owned()))
}
