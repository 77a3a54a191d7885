//! A real registry (`distribution` v3) that wants tokens, and the service that hands them out, on loopback.
//!
//! Tests start one each; what a user may do there is up to the test. `registry` is one of the tools of the test cluster
//! and is found on the `PATH` of `target/cluster/env`.
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
    sync::Arc,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;
use tokio::{net::TcpStream, task::JoinHandle};

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

/// The registry, while the value lives.
pub(crate) struct TokenRegistry {
    /// As `127.0.0.1:PORT`.
    pub(crate) host: String,
    /// Where tokens come from, as `127.0.0.1:PORT`.
    pub(crate) token_host: String,
    registry: Child,
    service: JoinHandle<()>,
    _home: TempDir,
    _turn: Option<File>,
}

impl TokenRegistry {
    /// A registry on any free ports.
    pub(crate) async fn start(users: Vec<User>) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        Self::at(&free.to_string(), "127.0.0.1:0", users, None).await
    }

    /// The registry that the agent of the test cluster knows. Its ports are fixed, so tests take turns.
    pub(crate) async fn start_known(users: Vec<User>) -> Self {
        let env = |name: &str| std::env::var(name).expect("source target/cluster/env");
        let turn = File::create(format!("{}/token-registry.lock", env("WINDLASS_CLUSTER_LOGS"))).unwrap();
        turn.lock().unwrap();
        Self::at(&env("WINDLASS_TOKEN_REGISTRY"), &env("WINDLASS_TOKEN_SERVICE"), users, Some(turn)).await
    }

    async fn at(host: &str, token_host: &str, users: Vec<User>, turn: Option<File>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let (x, y) = key.public_key().as_ref()[1..].split_at(32);
        let public = json!({"kty": "EC", "crv": "P-256", "kid": KEY, "x": BASE64.encode(x), "y": BASE64.encode(y)});
        let keys = home.path().join("keys.json");
        std::fs::write(&keys, json!({"keys": [public]}).to_string()).unwrap();

        let listener = tokio::net::TcpListener::bind(token_host).await.unwrap();
        let token_host = listener.local_addr().unwrap().to_string();
        let service = Arc::new(Service { key, random, users });
        let service = Router::new().route("/token", get(token)).with_state(service);
        let service = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });

        // JSON is YAML.
        let config = json!({
            "version": "0.1",
            "log": {"level": "warn", "accesslog": {"disabled": true}},
            "storage": {"filesystem": {"rootdirectory": home.path().join("data")}},
            "http": {"addr": host},
            "auth": {"token": {
                "realm": format!("http://{token_host}/token"), "service": SERVICE, "issuer": SERVICE, "jwks": keys,
            }},
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
        let mut started = Self { host: host.into(), token_host, registry, service, _home: home, _turn: turn };
        started.ready().await;
        started
    }

    async fn ready(&mut self) {
        for _ in 0..400 {
            if let Some(ended) = self.registry.try_wait().unwrap() {
                let log = std::fs::read_to_string(self._home.path().join("log")).unwrap();
                panic!("the registry ended ({ended}); is target/cluster/env sourced? {log}");
            }
            if TcpStream::connect(&self.host).await.is_ok() {
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
        let _ = self.registry.kill();
        let _ = self.registry.wait();
    }
}

/// The token service; <https://distribution.github.io/distribution/spec/auth/token/>.
struct Service {
    key: EcdsaKeyPair,
    random: SystemRandom,
    users: Vec<User>,
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
    (StatusCode::OK, json!({"token": token, "expires_in": 300}).to_string())
}

/// What is granted of `repository:team/app:pull,push`.
fn granted(scope: &str, user: Option<&User>) -> Option<Value> {
    let (name, asked) = scope.strip_prefix("repository:")?.rsplit_once(':')?;
    let (_, may) = user?.may.iter().find(|(begin, _)| name.starts_with(begin))?;
    let actions: Vec<_> = asked.split(',').filter(|action| may.contains(action)).collect();
    Some(json!({"type": "repository", "name": name, "actions": actions}))
}

impl Service {
    /// A JSON Web Token, signed with ES256.
    fn sign(&self, user: &str, access: &[Value]) -> String {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let head = json!({"typ": "JWT", "alg": "ES256", "kid": KEY});
        let claims = json!({
            "iss": SERVICE, "aud": SERVICE, "sub": user, "access": access, "iat": now, "nbf": now, "exp": now + 300,
        });
        let signed = format!("{}.{}", BASE64.encode(head.to_string()), BASE64.encode(claims.to_string()));
        let signature = self.key.sign(&self.random, signed.as_bytes()).unwrap();
        format!("{signed}.{}", BASE64.encode(signature))
    }
}
