use super::*;
use std::fs;

fn cases(folder: &str) -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/api").join(folder);
    let mut cases: Vec<(String, String)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap()))
        .collect();
    cases.sort();
    cases
}

/// Rules in CEL are the API server's; what is here is what only it refuses.
const ONLY_THE_SERVER: [&str; 35] = [
    "after-step-shell",
    "box-dir-root",
    "box-shell",
    "box-user-name",
    "breakpoint-nowhere",
    "breakpoint-timeout",
    "env-name-bad",
    "env-name-reserved",
    "env-too-big",
    "git-directory-up",
    "git-revision-bad",
    "git-url-bad",
    "git-url-password",
    "inline-mode",
    "inline-path-up",
    "inline-too-big",
    "param-default",
    "param-name",
    "pod-ttl-days",
    "push-aws-part",
    "push-tag-and-tags",
    "push-username-alone",
    "quantity-bad",
    "readiness-path",
    "readiness-within",
    "run-env-too-big",
    "scratch-tag-and-tags",
    "scripts-too-big",
    "service-name-taken",
    "source-and-revision",
    "source-image-directory",
    "step-retries-push",
    "timeout-long",
    "timeout-zero",
    "ttl-long",
];

#[test]
fn what_the_schema_refuses_is_refused() {
    let states = ["update-", "status-"];
    let cases: Vec<(String, String)> =
        cases("reject").into_iter().filter(|(stem, _)| !states.iter().any(|state| stem.starts_with(state))).collect();
    let passed: Vec<&str> =
        cases.iter().filter(|(_, text)| faults_of(text).is_empty()).map(|(stem, _)| stem.as_str()).collect();
    assert!(cases.len() > 60, "{}", cases.len());
    assert_eq!(passed, ONLY_THE_SERVER);
}

/// What the controller refuses and the API server does not: fields for later, and what rules cannot see.
const ONLY_THE_CONTROLLER: [&str; 3] =
    ["this version of Windlass cannot carry it out yet", "differs from repository host", "does not come from a Secret"];

#[test]
fn what_the_server_accepts_has_only_faults_of_the_controller() {
    for (stem, text) in cases("accept") {
        let found = kinds::judge(&text).0;
        let others: Vec<String> = found
            .list()
            .iter()
            .filter(|found| !ONLY_THE_CONTROLLER.iter().any(|part| found.message.contains(part)))
            .map(|found| found.render(&stem, &text))
            .collect();
        assert!(others.is_empty(), "{}", others.join("\n"));
    }
}

#[test]
fn faults_have_their_place() {
    let text = "apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: x}\nspec:\n  box: {image: Debian}\n  \
        steps:\n  - name: a\n    scrip: x\n  - name: push\n    dockerPush:\n      repository: a/b\n      ports: \"80/tpc\"\n";
    assert_eq!(
        faults_of(text),
        "error[InvalidStep]: spec.steps[0]: set exactly one of script, dockerPush, dockerScratchPush, storeContainer, watch and shell\n  \
           --> windlass.yaml:7:5\n7 |   - name: a\n  |     ^ it has none\n\
         error[UnknownKey]: spec.steps[0]: no such key: scrip\n  --> windlass.yaml:8:5\n8 |     scrip: x\n  |     ^^^^^ did you mean script?\n"
    );
    let text = text.replace("scrip:", "script:");
    assert_eq!(
        faults_of(&text),
        "error[InvalidImageName]: box.image \"Debian\": repository names are lower-case\n  --> windlass.yaml:5:16\n\
         5 |   box: {image: Debian}\n  |                ^^^^^^\n\
         error[InvalidProperty]: steps[1].dockerPush.ports: \"80/tpc\": expected tcp or udp\n  --> windlass.yaml:12:14\n\
         12 |       ports: \"80/tpc\"\n   |              ^^^^^^^^\n"
    );
}

#[test]
fn other_objects_and_parameters_are_no_faults() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n---\napiVersion: windlass.dev/v1alpha1\nkind: Pipeline\n\
        metadata: {name: x}\nspec:\n  params: [{name: tag}, {name: image, default: 'a:1'}]\n  box: {image: $(params.image)}\n  \
        steps:\n  - {name: a, dockerPush: {repository: a/b, tags: [$(params.tag)]}}\n";
    assert_eq!(faults_of(text), "");
    assert!(faults_of(&text.replace("params.tag", "params.tga")).contains("params.tga) is not a parameter"));
}
