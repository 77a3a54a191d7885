//! The registries of the documents by their own names, each as its documents write it. The chart's values lead the
//! names to a front of this test, which asks for the right login and hands on to the cluster's open registry.

use super::{
    push::digest,
    world::{World, step, verdict},
};
use crate::fast::registry::ecr::{self, Answer, Api};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{Request, Response, Uri, header};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};
use tokio::net::TcpListener;

/// Where the values of the chart lead the names; see `tests/cluster/install.sh`.
const FRONT_PORT: u16 = 5011;
const API_PORT: u16 = 5010;
const KEY_FILE: &str = "{\n  \"type\": \"service_account\",\n  \"private_key\": \"-----BEGIN\\nMIIE\\n\"\n}";

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

/// Answers for several registries: `Authorization` of each by its name.
struct Front {
    logins: BTreeMap<String, String>,
    client: Client<HttpConnector, Incoming>,
    registry: String,
}

impl Front {
    async fn start(logins: &[(&str, &str)]) {
        let basic = |login: &str| format!("Basic {}", STANDARD.encode(login));
        let front = Arc::new(Self {
            logins: logins.iter().map(|(host, login)| ((*host).to_owned(), basic(login))).collect(),
            client: Client::builder(TokioExecutor::new()).build_http(),
            registry: std::env::var("WINDLASS_REGISTRY").unwrap(),
        });
        let listener = TcpListener::bind(("127.0.0.1", FRONT_PORT)).await.unwrap();
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let front = front.clone();
                let service = service_fn(move |request| {
                    let front = front.clone();
                    async move { front.serve(request).await }
                });
                tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
            }
        });
    }

    async fn serve(&self, mut request: Request<Incoming>) -> Result<Response<Body>, hyper_util::client::legacy::Error> {
        let text = |name| request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = self.logins.get(text(header::HOST)).is_some_and(|login| login == text(header::AUTHORIZATION));
        if !known {
            let body = Full::new(Bytes::new()).map_err(|never| match never {}).boxed_unsync();
            let answer = Response::builder().status(401).header(header::WWW_AUTHENTICATE, "Basic realm=\"front\"");
            return Ok(answer.body(body).unwrap());
        }
        let path = request.uri().path_and_query().unwrap().clone();
        *request.uri_mut() = format!("http://{}{path}", self.registry).parse::<Uri>().unwrap();
        request.headers_mut().remove(header::AUTHORIZATION);
        Ok(self.client.request(request).await?.map(BodyExt::boxed_unsync))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_registries_of_the_documents() {
    let world = World::new().await;
    let aws = Api::start_at(API_PORT, &[Answer::Login { seconds: 43200.0 }]).await;
    Front::start(&[
        ("registry-1.docker.io", "turing:hub-password"),
        ("quay.io", "knuth:quay-password"),
        ("gcr.io", &format!("_json_key:{KEY_FILE}")),
        (ecr::REGISTRY, ecr::LOGIN),
    ])
    .await;
    let data = json!({
        "hub": "hub-password", "quay": "quay-password", "google": format!("{KEY_FILE}\n"), "id": ecr::ACCESS,
        "secret": ecr::SECRET,
    });
    world.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "keys"}, "stringData": data}).to_string(),
    );
    let own = &world.namespace;
    let env = [
        ("HUB", "hub"),
        ("QUAY", "quay"),
        ("GCR_JSON_KEY_FILE", "google"),
        ("AWS_ACCESS_KEY_ID", "id"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
    ];
    let env: String = env
        .iter()
        .map(|(name, key)| format!("    - {{name: {name}, secretKeyRef: {{name: keys, key: {key}}}}}\n"))
        .collect();
    let status = world
        .run(
            "r",
            &format!(
                r#"    box: {{image: 'busybox:local'}}
    env:
{env}    - {{name: USERNAME, value: turing}}
    - {{name: AWS_REGION, value: eu-west-1}}
    - {{name: WERCKER_GIT_BRANCH, value: feature/x}}
    steps:
    - {{name: make, script: 'echo made > /made'}}
    - name: hub
      dockerPush: {{username: $USERNAME, password: $HUB, tag: my-tag, repository: {own}/bar, registry: 'https://registry.hub.docker.com'}}
    - name: hub-alone
      dockerPush: {{username: $USERNAME, password: $HUB, tag: alone, repository: '{own}/bar'}}
    - name: quay
      dockerPush: {{username: knuth, password: $QUAY, tag: my-tag, repository: 'quay.io/{own}/foo', registry: 'https://quay.io/v2'}}
    - name: google
      dockerPush: {{username: _json_key, password: $GCR_JSON_KEY_FILE, repository: 'gcr.io/{own}/image', registry: 'https://gcr.io'}}
    - name: amazon
      dockerPush:
        awsAccessKey: $AWS_ACCESS_KEY_ID
        awsSecretKey: $AWS_SECRET_ACCESS_KEY
        awsRegion: $AWS_REGION
        awsRegistryId: "123456789012"
        repository: {own}/your_repo_name"#
            ),
        )
        .await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?}", verdict(&status));
    let ecr = format!("{}/{own}/your_repo_name", ecr::REGISTRY);
    let expected = [
        ("hub", format!("docker.io/{own}/bar"), "bar", "my-tag"),
        ("hub-alone", format!("docker.io/{own}/bar"), "bar", "alone"),
        ("quay", format!("quay.io/{own}/foo"), "foo", "my-tag"),
        ("google", format!("gcr.io/{own}/image"), "image", "latest"),
        ("amazon", ecr, "your_repo_name", "feature-x"),
    ];
    let registry = std::env::var("WINDLASS_REGISTRY").unwrap();
    for (name, repository, path, tag) in expected {
        let image = &step(&status, name).images[0];
        assert_eq!((image.repository.as_str(), image.tags[0].as_str()), (repository.as_str(), tag), "{name}");
        assert_eq!(digest(&format!("{registry}/{own}/{path}:{tag}")), image.digest, "{name}");
    }
    assert_eq!(aws.asked(), 1);
}
