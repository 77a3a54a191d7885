//! `windlass dev` on the real cluster: a directory of this machine in a box, a port of the box on this machine.

use super::{installation::until, world::World};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);

/// A server that reads its file once, so that only a restart shows what changed.
const SERVER: &str = "apiVersion: windlass.dev/v1alpha1
kind: PipelineRun
metadata: {name: dev}
spec:
  pipelineSpec:
    box: {image: 'busybox:local', imagePullPolicy: Never}
    source: {git: {url: 'https://git.invalid/not/used.git'}}
    steps:
    - {name: install, script: 'test -x app.sh && ./app.sh && test -d empty && test ! -e noise.log && readlink link'}
    - name: serve
      watch:
        code: 'mkdir -p /tmp/www; cp text /tmp/www/index.html; exec httpd -f -p 5000 -h /tmp/www'
        reload: true
    - {name: next, script: 'echo \"and on with $(cat text)\"'}
";

fn kubeconfig() -> PathBuf {
    let ours = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/cluster/kubeconfig");
    std::env::var_os("KUBECONFIG").map_or(ours, PathBuf::from)
}

/// A program of the test with what it printed so far.
pub(super) struct Running {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Running {
    pub(super) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let ends: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for mut end in ends {
            let said = Arc::clone(&said);
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count) = end.read(&mut buffer)
                    && count > 0
                {
                    said.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
                }
            });
        }
        Self { child, said }
    }

    pub(super) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    pub(super) fn says(&self, text: &str) {
        let began = Instant::now();
        while !self.said().contains(text) {
            assert!(began.elapsed() < PATIENCE, "it does not say {text:?}: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn interrupt(&self) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGINT).unwrap();
    }

    pub(super) fn ends(mut self) -> (Option<i32>, String) {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What is still in the pipes.
                std::thread::sleep(Duration::from_millis(100));
                return (status.code(), self.said());
            }
            if began.elapsed() > PATIENCE {
                self.child.kill().unwrap();
                panic!("it does not end: {}", self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Of a test that failed; one that ended has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory with an application, and the run beside it.
struct Place {
    app: TempDir,
    file: tempfile::NamedTempFile,
    port: u16,
}

impl Place {
    fn new(run: &str) -> Self {
        let app = tempfile::tempdir().unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), run).unwrap();
        let place = Self { app, file, port: free_port() };
        place.write("text", "one");
        place.write(".gitignore", "*.log\n");
        place.write("noise.log", "noise");
        place.write("app.sh", "#!/bin/sh\necho installed\n");
        fs::set_permissions(place.at("app.sh"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.at("empty")).unwrap();
        std::os::unix::fs::symlink("text", place.at("link")).unwrap();
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.app.path().join(path)
    }

    fn write(&self, path: &str, text: &str) {
        fs::write(self.at(path), text).unwrap();
    }

    fn dev(&self, world: &World, kubeconfig: &Path) -> Running {
        let mut command = Command::new(env!("CARGO_BIN_EXE_windlass"));
        command.env("KUBECONFIG", kubeconfig).env("WINDLASS_PROGRESS", "plain");
        command.args(["-n", &world.namespace, "dev", "-f"]).arg(self.file.path()).arg("--source").arg(self.app.path());
        command.args(["--publish", &format!("{}:5000", self.port), "--ignore", "*.tmp"]);
        Running::start(command)
    }

    /// Waits until the port on this machine serves this text.
    fn serves(&self, text: &str, dev: &Running) {
        let began = Instant::now();
        while get(self.port).as_deref() != Some(text) {
            assert!(began.elapsed() < PATIENCE, "it does not serve {text:?}, but {:?}: {}", get(self.port), dev.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

pub(super) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// What the published port answers, if it does.
pub(super) fn get(port: u16) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET / HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned())
}

#[tokio::test]
async fn a_directory_is_kept_up_to_date_in_the_box_until_ctrl_c() {
    let world = World::new().await;
    let place = Place::new(SERVER);
    let dev = place.dev(&world, &kubeconfig());
    place.serves("one", &dev);
    // Written in place; then as editors do it.
    place.write("text", "two");
    place.serves("two", &dev);
    place.write("text.tmp", "three");
    fs::rename(place.at("text.tmp"), place.at("text")).unwrap();
    place.serves("three", &dev);
    fs::remove_file(place.at("app.sh")).unwrap();
    place.write("noise.log", "more noise");
    fs::create_dir_all(place.at("new/deep")).unwrap();
    place.write("new/deep/file", "deep");
    fs::rename(place.at("empty"), place.at("moved")).unwrap();
    let list = || {
        let find = "cd /pipeline/source; find . | sort; cat new/deep/file";
        world.kubectl(&["exec", "dev-1", "-c", "box", "--", "sh", "-c", find], "").unwrap_or_default()
    };
    let expected = ".\n./.gitignore\n./link\n./moved\n./new\n./new/deep\n./new/deep/file\n./text\ndeep";
    until("the box has what is here, and no more", PATIENCE, || (list().trim() == expected).then_some(()))
        .unwrap_or_else(|_| panic!("{}\n{}", list(), dev.said()));
    dev.interrupt();
    let (code, said) = dev.ends();
    assert_eq!(code, Some(0), "{said}");
    for told in [
        "\ninstalled\ntext\n",
        "files sent (",
        "text sent",
        "finishing step serve (Ctrl-C again stops now)",
        "\nand on with three\n",
        "dev succeeded in",
        &format!("http://localhost:{} is port 5000 of the box", place.port),
    ] {
        assert!(said.contains(told), "{told}: {said}");
    }
    assert!(!said.contains("WaitingForUser"), "{said}");
}

#[tokio::test]
async fn a_lost_connection_is_made_again_and_a_second_ctrl_c_stops() {
    let world = World::new().await;
    // Who does not end when told has to be stopped.
    let place = Place::new(&SERVER.replace("mkdir -p", "trap \"\" TERM; mkdir -p").replace("exec httpd", "httpd"));
    let proxy = Proxy::start(&world);
    let dev = place.dev(&world, proxy.kubeconfig.path());
    place.serves("one", &dev);
    proxy.cut(true);
    place.write("text", "two");
    dev.says("the source did not arrive");
    proxy.cut(false);
    // That server goes on for 10 seconds when it is told to end; the box has the file long before.
    let text = || world.kubectl(&["exec", "dev-1", "-c", "box", "--", "cat", "/pipeline/source/text"], "").ok();
    until("the file arrives", PATIENCE, || (text().as_deref() == Some("two")).then_some(())).unwrap();
    dev.says("text sent");
    dev.interrupt();
    dev.says("finishing step serve");
    dev.interrupt();
    let (code, said) = dev.ends();
    assert!(code == Some(3) && said.contains("stopping dev at once"), "{code:?} {said}");
}

#[tokio::test]
async fn the_pod_of_another_attempt_gets_the_whole_source() {
    let world = World::new().await;
    let place = Place::new(&SERVER.replace("    steps:\n", "    retries: 1\n    steps:\n"));
    let dev = place.dev(&world, &kubeconfig());
    place.serves("one", &dev);
    world.kubectl(&["delete", "pod", "dev-1", "--grace-period=0", "--force"], "").unwrap();
    place.write("text", "two");
    place.serves("two", &dev);
    world.kubectl(&["get", "pod", "dev-2"], "").unwrap();
    dev.interrupt();
    let (code, said) = dev.ends();
    assert_eq!(code, Some(0), "{said}");
}

#[tokio::test]
async fn ctrl_c_before_the_watched_step_cancels() {
    let world = World::new().await;
    let place = Place::new(&SERVER.replace("test -x app.sh", "echo begun; sleep 100"));
    let dev = place.dev(&world, &kubeconfig());
    dev.says("\nbegun\n");
    dev.interrupt();
    let (code, said) = dev.ends();
    assert!(code == Some(3) && said.contains("cancelling dev: stopping step install"), "{code:?} {said}");
}

/// Stands between the command line and the API server; its connections can be cut.
struct Proxy {
    kubeconfig: tempfile::NamedTempFile,
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(world: &World) -> Self {
        let config = world.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"], "").unwrap();
        let mut config: serde_json::Value = serde_json::from_str(&config).unwrap();
        let url = config["clusters"][0]["cluster"]["server"].as_str().unwrap().to_owned();
        let server = url.trim_start_matches("https://").to_owned();
        let host = server.split(':').next().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        config["clusters"][0]["cluster"]["server"] = format!("https://127.0.0.1:{port}").into();
        if host != "127.0.0.1" {
            // The name in the server's certificate.
            config["clusters"][0]["cluster"]["tls-server-name"] = host.into();
        }
        let kubeconfig = tempfile::NamedTempFile::new().unwrap();
        fs::write(kubeconfig.path(), config.to_string()).unwrap();
        let (is_cut, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let proxy = Self { kubeconfig, is_cut: Arc::clone(&is_cut), open: Arc::clone(&open) };
        std::thread::spawn(move || {
            for here in listener.incoming().flatten() {
                if is_cut.load(Ordering::Relaxed) {
                    continue;
                }
                let there = TcpStream::connect(&server).unwrap();
                open.lock().unwrap().extend([here.try_clone().unwrap(), there.try_clone().unwrap()]);
                for (mut from, mut to) in [
                    (here.try_clone().unwrap(), there.try_clone().unwrap()),
                    (there.try_clone().unwrap(), here.try_clone().unwrap()),
                ] {
                    std::thread::spawn(move || {
                        let _ = std::io::copy(&mut from, &mut to);
                        let _ = to.shutdown(std::net::Shutdown::Both);
                    });
                }
            }
        });
        proxy
    }

    fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
        for stream in self.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }
}
