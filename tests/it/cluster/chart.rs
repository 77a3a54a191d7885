//! What the chart makes of its values, and whom it gives which rights, as the real API server sees them.

use super::{installation::NAMESPACE, world::World, world::tool};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec};
use kube::{Api, api::PostParams};
use rstest::rstest;
use std::{path::Path, time::Duration};

/// The objects of the chart with these values, which `--set` or `--set-json` takes.
pub(super) fn render(how: &str, values: &str) -> Result<String, String> {
    let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join("charts/windlass");
    let arguments = ["template", "w", chart.to_str().unwrap(), "-n", "ws", "--kube-version", "1.34", how, values];
    tool("helm", &arguments, "")
}

#[rstest]
#[case::runs_with_pushes_go_where_agents_are(
    r#"agent.nodeSelector={"windlass.dev/build":"yes"}"#,
    &[r#"- "--agent-node-label=windlass.dev/build=yes""#, "windlass.dev/build: \"yes\""]
)]
#[case::prepare_has_requests("controller.replicas=1", &[r#"- "--prepare-request=memory=32Mi""#])]
#[case::prepare_may_have_limits(
    r#"prepare.resources={"limits":{"memory":"256Mi","cpu":0.5}}"#,
    &[r#"- "--prepare-limit=memory=256Mi""#, r#"- "--prepare-limit=cpu=0.5""#]
)]
#[case::selinux(r#"agent.seLinuxOptions={"type":"spc_t"}"#, &["seLinuxOptions:", "type: spc_t"])]
#[case::priority_of_agents(r#"agent.priorityClassName="first""#, &["priorityClassName: first"])]
#[case::priority_of_the_controller(r#"controller.priorityClassName="second""#, &["priorityClassName: second"])]
#[case::priority_of_the_store(r#"artifacts.priorityClassName="third""#, &["priorityClassName: third"])]
#[case::affinity(r#"controller.affinity={"nodeAffinity":{}}"#, &["affinity:", "nodeAffinity: {}"])]
#[case::affinity_of_the_store(r#"artifacts.affinity={"podAffinity":{}}"#, &["affinity:", "podAffinity: {}"])]
fn a_value_is_found_in_the_objects(#[case] values: &str, #[case] lines: &[&str]) {
    let text = render("--set-json", values).unwrap();
    let plain = render("--set-json", "controller.replicas=1").unwrap();
    for line in lines {
        assert!(text.lines().any(|found| found.trim() == *line), "{values}: no {line}");
    }
    // All but the defaults come of the value.
    assert!(values == "controller.replicas=1" || lines.iter().any(|line| !plain.contains(line)), "{values}");
}

#[rstest]
#[case(r#"agent.seLinuxOptions={"kind":"spc_t"}"#, "seLinuxOptions")]
#[case(r#"prepare.limits={"memory":"1Gi"}"#, "prepare")]
#[case(r#"controller.affinity="here""#, "affinity")]
fn a_value_that_does_nothing_is_refused(#[case] values: &str, #[case] word: &str) {
    let refused = render("--set-json", values).unwrap_err();
    assert!(refused.contains(word), "{values}: {refused}");
}

/// Somebody who asks the API server.
struct Who {
    user: String,
    groups: Vec<String>,
}

impl Who {
    fn account(name: &str) -> Self {
        let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{NAMESPACE}"), "system:authenticated"];
        Self { user: format!("system:serviceaccount:{NAMESPACE}:{name}"), groups: groups.map(str::to_owned).to_vec() }
    }

    fn user(name: &str) -> Self {
        Self { user: name.to_owned(), groups: vec!["system:authenticated".into()] }
    }

    /// Whether they may, in one namespace or (none) in all: `get secrets`, `create pods/exec`.
    async fn may(&self, world: &World, namespace: Option<&str>, what: &str) -> bool {
        let (verb, resource) = what.split_once(' ').unwrap();
        let (resource, subresource) = resource.split_once('/').map_or((resource, None), |(r, s)| (r, Some(s)));
        let group = match resource {
            "pipelines" | "pipelineruns" => "windlass.dev",
            "tokenreviews" => "authentication.k8s.io",
            "leases" => "coordination.k8s.io",
            "clusterroles" | "clusterrolebindings" => "rbac.authorization.k8s.io",
            _ => "",
        };
        let attributes = ResourceAttributes {
            namespace: namespace.map(str::to_owned),
            verb: Some(verb.to_owned()),
            group: Some(group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource: subresource.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SubjectAccessReviewSpec {
            user: Some(self.user.clone()),
            groups: Some(self.groups.clone()),
            resource_attributes: Some(attributes),
            ..SubjectAccessReviewSpec::default()
        };
        let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
        let reviews: Api<SubjectAccessReview> = Api::all(world.client.clone());
        reviews.create(&PostParams::default(), &review).await.unwrap().status.unwrap().allowed
    }
}

/// What none of our parts may do anywhere: it would make them masters of the cluster, or of every Secret.
const NEVER: [&str; 18] = [
    "get secrets",
    "list secrets",
    "watch secrets",
    "create secrets",
    "update secrets",
    "create pods/exec",
    "get pods/exec",
    "create pods/attach",
    "create pods/ephemeralcontainers",
    "create serviceaccounts/token",
    "impersonate users",
    "impersonate serviceaccounts",
    "get nodes/proxy",
    "create nodes/proxy",
    "bind clusterroles",
    "escalate clusterroles",
    "create clusterrolebindings",
    "update pods",
];

#[rstest]
#[case::controller(
    "windlass-controller",
    // A policy narrows what it patches of pods to their time.
    &["create pods", "delete pods", "patch pods", "patch pipelineruns/status"],
    &["get nodes", "get configmaps", "update leases", "create pipelineruns"]
)]
#[case::agent(
    "windlass-agent",
    &["list pipelineruns", "patch pipelineruns/status"],
    &["get pods", "create pods", "delete pods", "patch pipelineruns", "delete pipelineruns", "get configmaps", "patch leases", "get nodes"]
)]
#[case::artifact_server(
    "windlass-artifacts",
    &["create tokenreviews"],
    &["get pods", "get pipelineruns", "patch pipelineruns/status", "get configmaps", "get leases"]
)]
#[tokio::test]
async fn our_parts_read_no_secret_and_enter_no_container(
    #[case] account: &str,
    #[case] may: &[&str],
    #[case] may_not: &[&str],
) {
    let world = World::new().await;
    let account = Who::account(account);
    for what in may {
        assert!(account.may(&world, None, what).await, "{} may not {what}", account.user);
    }
    for what in NEVER.iter().chain(may_not) {
        assert!(!account.may(&world, None, what).await, "{} may {what} in all namespaces", account.user);
    }
    for what in NEVER {
        for namespace in [world.namespace.as_str(), NAMESPACE, "kube-system"] {
            assert!(!account.may(&world, Some(namespace), what).await, "{} may {what} in {namespace}", account.user);
        }
    }
}

#[rstest]
#[case::view("view", &["get pipelineruns", "watch pipelines", "get pods/log"], &["create pipelineruns", "delete pipelines", "get secrets"])]
#[case::edit("edit", &["create pipelineruns", "patch pipelines", "get pipelineruns", "delete pipelineruns"], &[])]
#[case::admin("admin", &["create pipelineruns", "deletecollection pipelineruns"], &[])]
#[case::windlass_view(
    "windlass-view",
    &["list pipelineruns", "get pods/log"],
    &["create pipelineruns", "get secrets", "get configmaps", "create pods", "create pods/exec", "get pods/exec"]
)]
#[case::windlass_edit(
    "windlass-edit",
    &["create pipelines", "update pipelineruns"],
    &["get secrets", "create pods", "create pods/exec", "get pods/exec", "patch pipelineruns/status"]
)]
#[case::windlass_shell("windlass-shell", &["create pods/exec", "get pods/exec"], &["create pipelineruns", "get secrets"])]
#[tokio::test]
async fn people_get_what_their_role_says(#[case] role: &str, #[case] may: &[&str], #[case] may_not: &[&str]) {
    let world = World::new().await;
    let user = Who::user(&format!("ann-of-{}", world.namespace));
    let none = user.may(&world, Some(&world.namespace), may[0]).await;
    assert!(!none, "without a role nobody may {}", may[0]);
    let binding = ["create", "rolebinding", "ann", &format!("--clusterrole={role}"), &format!("--user={}", user.user)];
    world.kubectl(&binding, "").unwrap();
    // The API server sees the binding a moment later.
    for _ in 0..200 {
        if user.may(&world, Some(&world.namespace), may[0]).await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for what in may {
        assert!(user.may(&world, Some(&world.namespace), what).await, "{role} may not {what}");
    }
    for what in may_not {
        assert!(!user.may(&world, Some(&world.namespace), what).await, "{role} may {what}");
    }
    assert!(!user.may(&world, Some("default"), may[0]).await, "{role} may {} elsewhere", may[0]);
}

/// `WINDLASS_CLUSTER=current`: what is to be named is named by the script, and then all scripts find it.
#[test]
fn the_cluster_of_ones_own_kubeconfig_can_be_used() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (out, repositories) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let up = root.join("tests/cluster/up.sh").display().to_string();
    let own = ["WINDLASS_REGISTRY=r.corp:5000", "WINDLASS_GIT_URL=http://git.corp"].map(str::to_owned);
    let more = [
        format!("WINDLASS_GIT_DIR={}", repositories.path().display()),
        format!("WINDLASS_OUT={}", out.path().display()),
        "WINDLASS_CLUSTER=current".to_owned(),
    ];
    let unset = ["-u", "WINDLASS_REGISTRY", "-u", "WINDLASS_GIT_URL", "-u", "WINDLASS_GIT_DIR"];
    let refused = tool("env", &[&unset[..], &[more[1].as_str(), &more[2], &up]].concat(), "").unwrap_err();
    for name in ["WINDLASS_REGISTRY", "WINDLASS_GIT_DIR", "WINDLASS_GIT_URL"] {
        assert!(refused.contains(&format!("\n  {name}: ")), "{refused}");
    }
    let all: Vec<&str> = own.iter().chain(&more).map(String::as_str).chain([up.as_str()]).collect();
    tool("env", &all, "").unwrap();
    // Nothing but what the script wrote down.
    let path = format!("PATH={}", std::env::var("PATH").unwrap());
    let script = format!(
        "set -eu; cd '{}'; . '{}/env'; kubectl get --raw /readyz >/dev/null
         tests/cluster/values.sh | helm template w charts/windlass --kube-version 1.34 -f - 2>/dev/null
         tests/cluster/git-serve.sh publish examples/hello/app hello",
        root.display(),
        out.path().display()
    );
    let said = tool("env", &["-i", &path, "bash", "-c", &script], "").unwrap();
    assert!(said.contains("- --insecure-registry=r.corp:5000\n") && !said.contains("windlass-artifacts"), "{said}");
    assert!(said.ends_with("\nhttp://git.corp/hello.git\n"), "{said}");
    assert!(repositories.path().join("hello.git/HEAD").is_file());
}
