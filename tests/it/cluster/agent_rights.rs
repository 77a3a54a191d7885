//! What an agent may write, with its own tokens on the real API server: the status of runs of its node until they end,
//! and its node's Lease.

use super::{
    config,
    installation::{self, AGENT, NAMESPACE},
    life::{BUSYBOX, at_work, cancel},
    world::World,
};
use http::{Method, Request};
use kube::{Client, config::AuthInfo};
use serde_json::{Value, json};

/// The service account of all agents.
const ACCOUNT: &str = "windlass-agent";

/// Who asks.
#[derive(Clone)]
enum Caller {
    /// The agent's account with this token and nothing else.
    Token(Client),
    /// The same account as if its token were of this node. There is one node only, so there is no real one.
    OfNode(Client, &'static str),
}

impl Caller {
    async fn token(bound: &[&str]) -> Self {
        let token = installation::kubectl(&[&["create", "token", ACCOUNT], bound].concat()).unwrap();
        let mut config = config().await;
        config.auth_info = serde_json::from_value::<AuthInfo>(json!({"token": token.trim()})).unwrap();
        Self::Token(Client::try_from(config).unwrap())
    }

    /// With a token as the agent's pod has it.
    async fn of_the_agents_pod() -> Self {
        let pod = installation::ready(AGENT).remove(0);
        Self::token(&["--bound-object-kind=Pod", "--bound-object-name", &pod]).await
    }

    /// What the API server says: nothing, or why not.
    async fn ask(&self, method: Method, path: &str, body: &Value) -> Result<(), String> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let mut request = Request::builder().method(method).uri(path).header("Content-Type", kind);
        let client = match self {
            Self::Token(client) => client,
            Self::OfNode(client, node) => {
                request = request
                    .header("Impersonate-User", format!("system:serviceaccount:{NAMESPACE}:{ACCOUNT}"))
                    .header("Impersonate-Group", "system:serviceaccounts")
                    .header("Impersonate-Extra-authentication.kubernetes.io%2Fnode-name", *node);
                client
            }
        };
        let answer = client.request_text(request.body(body.to_string().into_bytes()).unwrap()).await;
        answer.map(drop).map_err(|error| error.to_string())
    }
}

#[tokio::test]
async fn an_agent_writes_only_runs_of_its_own_node_and_until_they_end() {
    let world = World::new().await;
    world.start("r", &format!("{BUSYBOX}    steps: [{{name: long, script: sleep 300}}]"));
    at_work(&world, "r").await;
    let run = format!("/apis/windlass.dev/v1alpha1/namespaces/{}/pipelineruns/r", world.namespace);
    let status = format!("{run}/status");
    let own = Caller::of_the_agents_pod().await;
    let unbound = Caller::token(&[]).await;
    let other = Caller::OfNode(world.client.clone(), "other");
    let harmless = json!({"status": {"sourceRevision": "abc"}});
    own.ask(Method::PATCH, &status, &harmless).await.unwrap();
    let denied = [
        (&other, &status, harmless.clone(), "the agent of node other may not write a run of node "),
        (&unbound, &status, harmless.clone(), "may not write a run of node "),
        (&own, &status, json!({"status": {"nodeName": "other"}}), "may not move a run"),
        (
            &own,
            &status,
            json!({"status": {"completionTime": "2026-01-01T00:00:00Z"}}),
            "conditions are the controller's",
        ),
        (&own, &status, json!({"status": {"conditions": []}}), "conditions are the controller's"),
        (&own, &run, json!({"spec": {"cancel": "Immediate"}}), "cannot patch resource"),
    ];
    for (caller, path, body, words) in denied {
        let error = caller.ask(Method::PATCH, path, &body).await.expect_err(&body.to_string());
        assert!(error.contains(words), "{body}: {error}");
    }
    cancel(&world, "r", "Immediate");
    let before = world.end("r").await;
    let error = own.ask(Method::PATCH, &status, &json!({"status": {"sourceRevision": "late"}})).await.unwrap_err();
    assert!(error.contains("the run has ended"), "{error}");
    assert_eq!(world.end("r").await.source_revision, before.source_revision);
}

#[tokio::test]
async fn an_agent_writes_only_the_lease_of_its_own_node() {
    let _world = World::new().await;
    let node = std::env::var("WINDLASS_NODE").unwrap();
    let leases = format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases");
    let lease = |name: &str| format!("{leases}/{name}");
    let new = |name: &str| json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name}, "spec": {}});
    let own = Caller::of_the_agents_pod().await;
    let unbound = Caller::token(&[]).await;
    let (mine, leader) = (lease(&format!("windlass-agent-{node}")), lease("windlass-controller"));
    own.ask(Method::PATCH, &mine, &json!({"metadata": {"annotations": {"test": "yes"}}})).await.unwrap();
    let steal = json!({"spec": {"holderIdentity": "agent", "renewTime": "2036-01-01T00:00:00.000000Z"}});
    let denied = [
        (&own, Method::PATCH, leader.clone(), steal.clone(), "may not write the lease windlass-controller"),
        (
            &own,
            Method::POST,
            leases.clone(),
            new("windlass-agent-other"),
            "may not write the lease windlass-agent-other",
        ),
        (&own, Method::POST, leases.clone(), new("windlass-made-up"), "may not write the lease windlass-made-up"),
        (&unbound, Method::PATCH, mine.clone(), steal.clone(), "may not write the lease windlass-agent-"),
        (&own, Method::PUT, mine.clone(), new(&format!("windlass-agent-{node}")), "cannot update resource"),
        (&own, Method::DELETE, leader.clone(), json!({}), "cannot delete resource"),
        (&own, Method::GET, leader, json!({}), "cannot get resource"),
    ];
    for (caller, method, path, body, words) in denied {
        let error = caller.ask(method.clone(), &path, &body).await.expect_err(&format!("{method} {path}"));
        assert!(error.contains(words), "{method} {path}: {error}");
    }
    assert_ne!(installation::leader().unwrap(), "agent");
}
