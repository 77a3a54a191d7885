//! A small HTTP server over git's own CGI program, as hosts of repositories have it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
};

/// How it answers.
#[derive(Clone, Default)]
pub(super) struct Manner {
    /// `user:password` in base64 that every request must carry.
    pub(super) login: Option<&'static str>,
    /// Where every request is sent instead.
    pub(super) redirect: Option<String>,
    /// Whether git's second protocol is spoken, in which any commit can be asked for.
    pub(super) old_protocol: bool,
    /// How many requests are answered with 503 first.
    pub(super) broken: usize,
    /// Whether requests are never answered.
    pub(super) silent: bool,
}

/// A server; it ends with the test's process.
pub(super) struct Server {
    pub(super) port: u16,
    /// `METHOD path authorization` of each request.
    pub(super) seen: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub(super) fn new(repositories: PathBuf, manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::new(Vec::new()));
        thread::spawn({
            let seen = seen.clone();
            move || {
                for stream in listener.incoming() {
                    let (repositories, manner, seen) = (repositories.clone(), manner.clone(), seen.clone());
                    // A client that goes away in the middle is its own affair.
                    thread::spawn(move || answer(stream.unwrap(), &repositories, &manner, &seen));
                }
            }
        });
        Self { port, seen }
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    pub(super) fn requests(&self) -> Vec<String> {
        self.seen.lock().unwrap().clone()
    }
}

/// Headers by lower-case name.
struct Request {
    method: String,
    target: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn read(stream: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let mut words = line.split_ascii_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut request = Request { method, target, headers: vec![], body: vec![] };
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        request.headers.push((name.to_lowercase(), value.to_owned()));
    }
    if request.header("transfer-encoding") == "chunked" {
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).ok()?;
            let size = usize::from_str_radix(line.trim(), 16).ok()?;
            let mut chunk = vec![0; size + 2];
            stream.read_exact(&mut chunk).ok()?;
            request.body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        request.body = vec![0; request.header("content-length").parse().unwrap_or(0)];
        stream.read_exact(&mut request.body).ok()?;
    }
    Some(request)
}

fn answer(stream: TcpStream, repositories: &PathBuf, manner: &Manner, seen: &Mutex<Vec<String>>) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    let request = read(&mut reader)?;
    let number = {
        let mut seen = seen.lock().unwrap();
        seen.push(format!("{} {} {}", request.method, request.target, request.header("authorization")));
        seen.len()
    };
    if manner.silent {
        thread::park();
    }
    let refuse = |stream: &mut TcpStream, head: String| {
        write!(stream, "HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").ok()
    };
    if number <= manner.broken {
        return refuse(&mut stream, "503 Busy".into());
    }
    if let Some(to) = &manner.redirect {
        return refuse(&mut stream, format!("302 Found\r\nLocation: {to}{}", request.target));
    }
    if manner.login.is_some_and(|login| request.header("authorization") != format!("Basic {login}")) {
        return refuse(&mut stream, "401 No\r\nWWW-Authenticate: Basic realm=\"private\"".into());
    }
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let mut backend = Command::new("git");
    backend.args(["-c", "safe.directory=*", "http-backend"]).env_clear();
    backend.env("PATH", std::env::var_os("PATH").unwrap()).env("GIT_CONFIG_NOSYSTEM", "1");
    backend.env("GIT_PROJECT_ROOT", repositories).env("GIT_HTTP_EXPORT_ALL", "1");
    backend.env("REQUEST_METHOD", &request.method).env("PATH_INFO", path).env("QUERY_STRING", query);
    backend.env("CONTENT_TYPE", request.header("content-type"));
    backend.env("CONTENT_LENGTH", request.body.len().to_string());
    backend.env("HTTP_CONTENT_ENCODING", request.header("content-encoding"));
    if !manner.old_protocol {
        backend.env("GIT_PROTOCOL", request.header("git-protocol"));
    }
    let mut backend = backend.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut input = backend.stdin.take().unwrap();
    let body = request.body;
    thread::spawn(move || input.write_all(&body));
    let output = backend.wait_with_output().unwrap().stdout;
    let text = String::from_utf8_lossy(&output);
    let status = text.lines().next().and_then(|line| line.strip_prefix("Status: ")).unwrap_or("200 OK");
    write!(stream, "HTTP/1.1 {status}\r\nConnection: close\r\n").ok()?;
    stream.write_all(&output).ok()
}

/// A git repository to fetch from: bare, at `<directory>/<name>`, with a branch `main`.
pub(super) struct Origin {
    directory: tempfile::TempDir,
}

impl Origin {
    pub(super) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self) -> PathBuf {
        self.directory.path().to_owned()
    }

    /// Makes a repository with one commit for each list of files.
    pub(super) fn repository(&self, name: &str, commits: &[&[(&str, &str)]]) {
        let path = self.path().join(name);
        fs::create_dir_all(&path).unwrap();
        self.git(name, &["init", "-q", "-b", "main", "."]);
        for (number, files) in commits.iter().enumerate() {
            for (file, content) in *files {
                let file = path.join(file);
                fs::create_dir_all(file.parent().unwrap()).unwrap();
                fs::write(file, content).unwrap();
            }
            self.git(name, &["add", "-A"]);
            self.git(name, &["commit", "-q", "--allow-empty", "-m", &format!("change {}", number + 1)]);
        }
    }

    /// Runs git in a repository; what it printed.
    pub(super) fn git(&self, name: &str, arguments: &[&str]) -> String {
        let mut command = Command::new("git");
        command.args(["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "protocol.file.allow=always"]);
        command.args(arguments).current_dir(self.path().join(name)).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("GIT_CONFIG_NOSYSTEM", "1");
        let output = command.output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }
}
