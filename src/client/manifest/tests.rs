use super::*;
use crate::client::args::What;

const RUN: &str = "apiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {name: hello-1}\n\
    spec:\n  params: [{name: a, value: file}, {name: b, value: file}]\n  pipelineRef: {name: hello}\n";
const PIPELINE: &str = "apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: hello}\nspec: {}\n";

fn assembled(text: &str, place: (&str, bool), args: &RunArgs) -> Result<Manifest, Stop> {
    assemble("hello.yaml", parse("hello.yaml", text)?, place, args)
}

/// The first fault's rendered text.
fn refused(text: &str) -> String {
    refused_in(text, ("team-a", false))
}

fn refused_in(text: &str, place: (&str, bool)) -> String {
    match assembled(text, place, &RunArgs::default()) {
        Err(Stop::Faults(faults)) => faults[0].render(false),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_syntax_error_has_its_place() {
    let text = refused("kind: PipelineRun\nspec:\n  steps: [a, b\nmetadata: {}\n");
    assert!(text.starts_with("error[YamlSyntax]: hello.yaml:4:"), "{text}");
    assert!(text.contains("\n  4 | metadata: {}\n"), "{text}");
    assert!(text.ends_with("nothing was started\n"), "{text}");
    let tab = refused("spec:\n\tsteps: []\n");
    assert!(tab.starts_with("error[YamlSyntax]: hello.yaml:2:1:"), "{tab}");
}

#[test]
fn a_line_of_any_length_is_shown_around_the_place() {
    let long = format!("kind: PipelineRun\nspec: {{a: [{}}} ]\n", "x, ".repeat(300_000));
    let text = refused(&long);
    assert!(text.starts_with("error[YamlSyntax]: hello.yaml:2:9000"), "{}", &text[..200]);
    assert!(text.len() < 1000, "{} bytes", text.len());
    let lines: Vec<&str> = text.lines().collect();
    let place = lines[2].find('^').unwrap();
    assert!(lines[1].starts_with("  2 | ") && lines[1][..=place].ends_with('}'), "{text}");
    let key = format!("{}: 1\n", "k".repeat(900_000));
    assert!(refused(&format!("{key}{key}")).len() < 3000);
}

#[test]
fn a_key_that_stands_twice_is_told() {
    let text = refused("kind: PipelineRun\nspec: {a: 1}\nspec: {b: 2}\n");
    assert!(text.starts_with("error[YamlSyntax]: hello.yaml") && text.contains("key \"spec\" stands twice"), "{text}");
}

#[test]
fn numbers_stay_numbers_for_the_server_to_refuse() {
    let documents = parse("f", "{tag: 1.10, port: 5000, big: 18446744073709551615, no: no, nothing: ~}").unwrap();
    assert_eq!(
        documents[0],
        json!({"tag": 1.1, "port": 5000, "big": 18446744073709551615_u64, "no": "no", "nothing": null})
    );
}

#[test]
fn pipelines_are_applied_and_one_run_is_made() {
    let manifest = assembled(&format!("{PIPELINE}---\n{RUN}---\n"), ("team-a", false), &RunArgs::default()).unwrap();
    assert_eq!(manifest.objects.len(), 1);
    assert_eq!(manifest.objects[0]["metadata"]["namespace"], "team-a");
    assert_eq!(manifest.run["metadata"], json!({"name": "hello-1", "namespace": "team-a"}));
}

#[test]
fn a_lone_pipeline_is_run() {
    let manifest = assembled(PIPELINE, ("team-a", false), &RunArgs::default()).unwrap();
    assert_eq!(manifest.run["metadata"]["generateName"], "hello-");
    assert_eq!(manifest.run["metadata"]["labels"][meta::PIPELINE], "hello");
    assert_eq!(manifest.run["spec"], json!({"pipelineRef": {"name": "hello"}}));
}

#[test]
fn what_cannot_be_run_is_told() {
    for (text, said) in [
        ("", "holds no PipelineRun and no Pipeline"),
        ("a: 1", "document 1: no kind; expected PipelineRun, Pipeline or what they need"),
        ("{apiVersion: windlass.dev/v1alpha1, kind: PiplineRun}", "kind \"PiplineRun\" cannot be run"),
        ("{apiVersion: v1, kind: Secret, metadata: {name: x}}", "hint: kubectl apply -f hello.yaml   for other kinds"),
        (&format!("{RUN}---\nkind: Secret"), "document 2: kind \"Secret\" without apiVersion"),
        (
            "{apiVersion: windlass.dev/v1, kind: PipelineRun}",
            "apiVersion is \"windlass.dev/v1\", expected \"windlass.dev/v1alpha1\"",
        ),
        (&format!("{PIPELINE}---\n{PIPELINE}"), "holds 2 Pipelines and no PipelineRun"),
        ("{apiVersion: windlass.dev/v1alpha1, kind: PipelineRun}", "the PipelineRun has no spec"),
    ] {
        let text = refused(text);
        assert!(text.contains(said), "{text}");
    }
    assert!(refused("{apiVersion: windlass.dev/v1alpha1, kind: PiplineRun}").contains("did you mean PipelineRun?"));
}

#[test]
fn another_namespace_than_asked_for_is_refused() {
    let elsewhere = RUN.replace("{name: hello-1}", "{name: hello-1, namespace: team-b}");
    let text = refused_in(&elsewhere, ("team-a", true));
    assert!(text.contains("hello.yaml says namespace team-b, -n says team-a"), "{text}");
    // Without -n the file decides.
    let manifest = assembled(&elsewhere, ("team-a", false), &RunArgs::default()).unwrap();
    assert_eq!(manifest.run["metadata"]["namespace"], "team-b");
}

#[test]
fn flags_win_over_the_file() {
    let pair = |name: &str, value: &str| crate::client::args::KeyValue { name: name.into(), value: value.into() };
    let args = RunArgs {
        what: What {
            params: vec![pair("b", "flag"), pair("c", "flag")],
            env: vec![pair("STAGE", "")],
            ..What::default()
        },
        revision: Some("v1".into()),
        ..RunArgs::default()
    };
    let manifest = assembled(RUN, ("team-a", false), &args).unwrap();
    assert_eq!(
        manifest.run["spec"]["params"],
        json!([{"name": "a", "value": "file"}, {"name": "b", "value": "flag"}, {"name": "c", "value": "flag"}])
    );
    assert_eq!(manifest.run["spec"]["env"], json!([{"name": "STAGE", "value": ""}]));
    assert_eq!(manifest.run["spec"]["revision"], "v1");
}

#[test]
fn generated_names_leave_room_for_what_the_server_adds() {
    let name = generate_name(&"a".repeat(80));
    assert!(name.len() + 5 <= 58, "{name}");
    assert_eq!(generate_name("hello-"), "hello-");
}

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata:\n  name: login\n  annotations:\n    \
    kubectl.kubernetes.io/last-applied-configuration: has hunter2\nstringData: {password: hunter2}\n\
    data: {pin: aHVudGVyMg==}\n";

#[test]
fn what_a_run_needs_is_applied_before_it_in_the_order_of_the_file() {
    let list = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: c}}\n";
    let text = format!("{RUN}---\n{SECRET}---\n{list}---\n{PIPELINE}---\n{}", RUN.replace("hello-1", "hello-2"));
    let manifest = assembled(&text, ("team-a", false), &RunArgs::default()).unwrap();
    let names: Vec<_> = manifest.objects.iter().map(name_of).collect();
    assert_eq!(names, ["login", "c", "hello"]);
    assert_eq!(manifest.runs().map(name_of).collect::<Vec<_>>(), ["hello-1", "hello-2"]);
    // Whether other kinds are in a namespace is not known here.
    assert_eq!(manifest.objects[0].pointer("/metadata/namespace"), None);
    let refused = assembled(&text, ("team-a", false), &RunArgs { revision: Some("v1".into()), ..RunArgs::default() });
    assert!(format!("{refused:?}").contains("-p, -e and --revision are for a file with one"), "{refused:?}");
}

#[test]
fn a_value_of_a_secret_is_never_shown() {
    let documents = parse("hello.yaml", SECRET).unwrap();
    let text = shown(&documents[0]).to_string();
    assert!(text.contains("password") && !text.contains("hunter2") && !text.contains("aHVu"), "{text}");
    let broken = refused(&format!("{SECRET}password: hunter2: x\n"));
    assert!(broken.contains("the line is not shown") && !broken.contains("hunter2"), "{broken}");
}
