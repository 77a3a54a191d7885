//! Values of variables that are secret are in nothing that a run on this machine says: no line, event, error or object.

use super::{
    super::local::{Project, open_registry},
    project, run,
};
use rstest::rstest;

const VALUE: &str = "supersecret99";

/// The run fails, or is refused, for this reason, and tells the value nowhere.
#[rstest]
#[case::tag(
    "  - internal/docker-push: {repository: REGISTRY/unsaid, tag: v-$TOKEN}",
    "the value of variable TOKEN is in a tag"
)]
#[case::repository(
    "  - internal/docker-push: {repository: REGISTRY/unsaid/$TOKEN, tag: v}",
    "the value of variable TOKEN is in the repository"
)]
#[case::image_of_a_container("  - internal/docker-run: {name: web, image: REGISTRY/unsaid/$TOKEN}", "web")]
#[case::command_of_a_container(
    "  - internal/docker-run: {name: web, image: 'busybox:local', cmd: nosuch$TOKEN}",
    "nosuch***"
)]
#[case::file_of_a_build("  - internal/docker-build: {image-name: app, dockerfile: $TOKEN}", "docker-build")]
fn a_step_tells_no_secret(#[case] step: &str, #[case] says: &str) {
    let step = step.replace("REGISTRY", &open_registry());
    let project = project(&format!("box: busybox:local\nbuild:\n{step}\n"));
    nothing_is_told(&project, says, Some(1));
}

#[rstest]
#[case::pulled("box: REGISTRY/unsaid/$TOKEN", "ImagePullFailed", Some(1))]
#[case::service("box: busybox:local\nservices: [REGISTRY/unsaid/$TOKEN]", "ImagePullFailed", Some(1))]
#[case::no_image("box: {id: BAD $TOKEN}", "InvalidImageName", Some(2))]
fn an_image_tells_no_secret(#[case] head: &str, #[case] says: &str, #[case] code: Option<i32>) {
    let head = head.replace("REGISTRY", &open_registry());
    let project = project(&format!("{head}\nbuild:\n  - script: {{code: echo made}}\n"));
    nothing_is_told(&project, says, code);
}

/// The registry repeats nothing of a login; we say whom it refused.
#[test]
fn a_refused_login_tells_no_secret() {
    let variable = |name: &str| std::env::var(name).unwrap();
    let registry = variable("WINDLASS_TLS_REGISTRY");
    let ca = format!("{registry}={}", variable("WINDLASS_TLS_REGISTRY_CA"));
    let login = "username: $TOKEN, password: $PW";
    let step = format!("  - internal/docker-push: {{repository: {registry}/unsaid/user, tag: v, {login}}}");
    let project = project(&format!("box: busybox:local\nbuild:\n{step}\n"));
    for format in [&[][..], &["--json"], &["-o", "json"]] {
        nothing_is_told_by(&project, &[&["build", "--registry-ca", &ca], format].concat(), "refused user ", Some(1));
    }
}

fn nothing_is_told(project: &Project, says: &str, code: Option<i32>) {
    for format in [&["build"][..], &["build", "--json"], &["build", "-o", "json"]] {
        nothing_is_told_by(project, format, says, code);
    }
}

fn nothing_is_told_by(project: &Project, arguments: &[&str], says: &str, code: Option<i32>) {
    let said = run(project, arguments, &[("XXX_TOKEN", VALUE), ("XXX_PW", "hunter22")]);
    let all = said.all();
    assert!(said.code == code && all.contains(says), "{all}");
    assert!(!all.contains(VALUE) && !all.contains("hunter22"), "{all}");
}
