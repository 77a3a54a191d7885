//! A real registry (`distribution` v3) that wants tokens, and the service that hands them out, on loopback.
//!
//! Tests start one each; what a user may do there is up to the test. `registry` is one of the tools of the test cluster
//! and is found on the `PATH` of `target/cluster/env`.
//!
//! It can be slow, with tokens that live shorter than what they are for: [`Hurry`].
//!
//! **Invariant:** both end with the value, and the registry with its thread too, so that no port stays taken.

use axum::{Router, extract::State, routing::get};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD as BASE64},
};
use http::{HeaderMap, StatusCode, Uri, header};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};
use serde_json::{Value, json};
use std::{
    fs::File,
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::{JoinHandle, JoinSet},
};

/// Issuer and audience of the tokens.
const SERVICE: &str = "windlass-tests";
/// Name of the key that signs them.
const KEY: &str = "tests";

/// Somebody who is known to the token service.
pub(crate) struct User {
    pub(crate) name: &'static str,
    pub(crate) password: &'static str,
    /// Beginnings of repositories' names, and what is allowed below: of `pull` and `push`.
    pub(crate) may: Vec<(String, &'static [&'static str])>,
}

/// How long tokens live, and how fast the registry takes bytes.
#[derive(Clone, Copy)]
pub(crate) struct Hurry {
    pub(crate) token_life_s: u64,
    pub(crate) bytes_per_s: u32,
}

/// What the registry wants of its users.
#[derive(Clone, Copy)]
enum Asks {
    /// Tokens that live long enough.
    Tokens,
    /// Tokens that do not.
    Hurry(Hurry),
    /// The password with each request.
    Passwords,
}

/// How long the registry takes a token beyond its end.
const LEEWAY_S: u64 = 60;

/// The registry, while the value lives.
pub(crate) struct TokenRegistry {
    /// As `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// Where tokens come from, as `127.0.0.1:PORT`.
    pub(crate) token_host: String,
    registry: Child,
    service: JoinHandle<()>,
    slow: Option<JoinHandle<()>>,
    issued: Arc<AtomicUsize>,
    _home: TempDir,
    _turn: Option<File>,
}

impl TokenRegistry {
    /// A registry on any free ports.
    pub(crate) async fn start(users: Vec<User>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::at(&free.to_string(), "127.0.0.1:0", users, None, Asks::Tokens).await
    }

    /// The registry that the agent of the test cluster knows. Its ports are fixed, so tests take turns.
    pub(crate) async fn start_known(users: Vec<User>) -> Self {
        Self::known(users, Asks::Tokens).await
    }

    /// The same where tokens end while they are used.
    pub(crate) async fn start_known_in(hurry: Hurry, users: Vec<User>) -> Self {
        Self::known(users, Asks::Hurry(hurry)).await
    }

    /// The same where users send their passwords, and each may do all.
    pub(crate) async fn start_known_with_passwords(users: Vec<User>) -> Self {
        Self::known(users, Asks::Passwords).await
    }

    /// How many tokens were handed out.
    pub(crate) fn issued(&self) -> usize {
        self.issued.load(Ordering::Relaxed)
    }

    async fn known(users: Vec<User>, asks: Asks) -> Self {
        let env = |name: &str| std::env::var(name).expect("source target/cluster/env");
        let turn = File::create(format!("{}/token-registry.lock", env("WINDLASS_CLUSTER_LOGS"))).unwrap();
        turn.lock().unwrap();
        Self::at(&env("WINDLASS_TOKEN_REGISTRY"), &env("WINDLASS_TOKEN_SERVICE"), users, Some(turn), asks).await
    }

    async fn at(host: &str, token_host: &str, users: Vec<User>, turn: Option<File>, asks: Asks) -> Self {
        let home = tempfile::tempdir().unwrap();
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let public = json!({"kty": "EC", "crv": "P-256", "kid": KEY, "x": BASE64.encode(x), "y": BASE64.encode(y)});
        let passwords = home.path().join("htpasswd");
        if matches!(asks, Asks::Passwords) {
            std::fs::write(&passwords, users.iter().map(hashed).collect::<String>()).unwrap();
        }
        let hurry = if let Asks::Hurry(hurry) = asks { Some(hurry) } else { None };
        let keys = home.path().join("keys.json");
        std::fs::write(&keys, json!({"keys": [public]}).to_string()).unwrap();

        let listener = tokio::net::TcpListener::bind(token_host).await.unwrap();
        let token_host = listener.local_addr().unwrap().to_string();
        let issued = Arc::new(AtomicUsize::new(0));
        let service = Arc::new(Service { key, random, users, issued: Arc::clone(&issued), hurry });
        let service = Router::new().route("/token", get(token)).with_state(service);
        let service = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });

        // A slow one stands behind a proxy at its address.
        let (address, slow) = match hurry {
            None => (host.to_owned(), None),
            Some(hurry) => {
                let behind = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
                let listener = tokio::net::TcpListener::bind(host).await.unwrap();
                (behind.clone(), Some(tokio::spawn(proxy(listener, behind, hurry.bytes_per_s))))
            }
        };
        let auth = match asks {
            Asks::Tokens | Asks::Hurry(_) => json!({"token": {
                "realm": format!("http://{token_host}/token"), "service": SERVICE, "issuer": SERVICE, "jwks": keys,
            }}),
            Asks::Passwords => json!({"htpasswd": {"realm": SERVICE, "path": passwords}}),
        };
        // JSON is YAML.
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": home.path().join("data")}},
            "http": {"addr": address},
            "auth": auth,
        });
        let path = home.path().join("config.yml");
        std::fs::write(&path, config.to_string()).unwrap();
        let registry = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "registry", "serve"])
            .arg(&path)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(File::create(home.path().join("log")).unwrap())
            .spawn()
            .expect("setpriv of util-linux");
        let host = host.to_owned();
        let mut started = Self { host, token_host, registry, service, slow, issued, _home: home, _turn: turn };
        started.ready(&address).await;
        started
    }

    async fn ready(&mut self, address: &str) {
        for _ in 0..400 {
            if let Some(ended) = self.registry.try_wait().unwrap() {
                let log = std::fs::read_to_string(self._home.path().join("log")).unwrap();
                panic!("the registry ended ({ended}); is target/cluster/env sourced? {log}");
            }
            if TcpStream::connect(address).await.is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("the registry does not listen on {}", self.host);
    }
}

impl Drop for TokenRegistry {
    fn drop(&mut self) {
        self.service.abort();
        if let Some(slow) = &self.slow {
            slow.abort();
        }
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

/// A line of the registry's file of passwords.
fn hashed(user: &User) -> String {
    let hashed = Command::new("htpasswd").args(["-Bbn", user.name, user.password]).output().expect("apache2-utils");
    String::from_utf8(hashed.stdout).unwrap().trim().to_owned() + "\n"
}

/// Hands connections on, and what comes in no faster than this. They end with the task.
async fn proxy(listener: tokio::net::TcpListener, to: String, bytes_per_s: u32) {
    let mut open = JoinSet::new();
    while let Ok((mut from, _)) = listener.accept().await {
        let to = to.clone();
        open.spawn(async move {
            let Ok(mut to) = TcpStream::connect(to).await else { return };
            let ((from_read, mut from_write), (mut to_read, mut to_write)) = (from.split(), to.split());
            let up = async {
                let mut piece = vec![0; 64 * 1024];
                let mut from_read = from_read;
                while let Ok(length @ 1..) = from_read.read(&mut piece).await {
                    tokio::time::sleep(Duration::from_secs_f64(length as f64 / f64::from(bytes_per_s))).await;
                    if to_write.write_all(&piece[..length]).await.is_err() {
                        break;
                    }
                }
                let _ = to_write.shutdown().await;
            };
            let down = async {
                let _ = tokio::io::copy(&mut to_read, &mut from_write).await;
                let _ = from_write.shutdown().await;
            };
            tokio::join!(up, down);
        });
    }
}

/// The token service; <https://distribution.github.io/distribution/spec/auth/token/>.
struct Service {
    key: EcdsaKeyPair,
    random: SystemRandom,
    users: Vec<User>,
    issued: Arc<AtomicUsize>,
    hurry: Option<Hurry>,
}

/// A token for what the user may do of what was asked for. Nobody is a user too, who may do nothing.
async fn token(State(service): State<Arc<Service>>, headers: HeaderMap, uri: Uri) -> (StatusCode, String) {
    let sent = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
    let login =
        |user: &&User| sent == Some(&format!("Basic {}", STANDARD.encode(format!("{}:{}", user.name, user.password))));
    let user = service.users.iter().find(login);
    if sent.is_some() && user.is_none() {
        return (StatusCode::UNAUTHORIZED, json!({"details": "incorrect username or password"}).to_string());
    }
    let query = url::form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let scopes = query.filter(|(key, _)| key == "scope").map(|(_, scope)| scope.into_owned());
    let access: Vec<Value> = scopes.filter_map(|scope| granted(&scope, user)).collect();
    let token = service.sign(user.map_or("", |user| user.name), &access);
    service.issued.fetch_add(1, Ordering::Relaxed);
    (StatusCode::OK, json!({"token": token, "expires_in": service.life_s()}).to_string())
}

/// What is granted of `repository:team/app:pull,push`.
fn granted(scope: &str, user: Option<&User>) -> Option<Value> {
    let (name, asked) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    let (_, may) = user?.may.iter().find(|(begin, _)| name.starts_with(begin))?;
    let actions: Vec<_> = asked.split(',').filter(|action| may.contains(action)).collect();
    Some(json!({"type": "repository", "name": name, "actions": actions}))
}

impl Service {
    fn life_s(&self) -> u64 {
        self.hurry.map_or(300, |hurry| hurry.token_life_s)
    }

    /// A JSON Web Token, signed with ES256.
    fn sign(&self, user: &str, access: &[Value]) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        // The registry's leeway comes on top.
        let end = if self.hurry.is_some() { now + self.life_s() - LEEWAY_S } else { now + self.life_s() };
        let head = json!({"typ": "JWT", "alg": "ES256", "kid": KEY});
        let claims = json!({
            "iss": SERVICE, "aud": SERVICE, "sub": user, "access": access, "iat": now, "nbf": now, "exp": end,
        });
        let signed = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }
}
