//! Takes the values of the run's Secrets out of all that people see of a local run: messages, images, the object itself.
//! What steps print is masked by the runner; what the engine builds and runs for them, by `workshop`.
//!
//! `start` masks why there is no run, `node` each state of the run that it shows.
//!
//! **Invariant:** names of steps and words of the API stay as they are: programs go by them.

use super::Request;
use crate::{
    api::{PipelineRun, PipelineRunSpec, status::PipelineRunStatus},
    mask::Mask,
    steps::logins::env_objects,
};
use serde_json::Value;

/// The key of a login that is nobody's secret.
const USER_NAME: &str = "username";
/// Fields whose words are names or the API's own: they tell nothing, and programs go by them.
const WORDS: [&str; 12] = [
    "name",
    "imagePullPolicy",
    "type",
    "onExit",
    "saveOn",
    "secretsInImage",
    "timestamps",
    "submodules",
    "lfs",
    "onFailure",
    "cancel",
    "phase",
];
/// Names of these are made of their images.
const SERVICES: &str = "services";

impl Request {
    /// A mask for the values of the run's Secrets, and more.
    pub(super) fn mask<'a>(&'a self, more: impl Iterator<Item = &'a str>) -> Mask {
        let of_variables = self.spec.pipeline_spec.as_ref().map(|spec| env_objects(spec).0).unwrap_or_default();
        let is_secret = |object: &str, key: &str| key != USER_NAME || of_variables.contains(&object);
        let values = self.objects.secrets.iter().flat_map(|(object, keys)| {
            keys.iter().filter(move |(key, _)| is_secret(object, key)).map(|(_, value)| value)
        });
        let values = values.filter_map(|value| std::str::from_utf8(value).ok()).map(str::trim_end);
        let passwords = self.beside.logins.values().map(|(_, password)| password.as_str());
        Mask::new(values.chain(passwords).chain(more))
    }
}

/// A run as people may see it.
pub(super) fn run(mask: &Mask, run: &PipelineRun) -> PipelineRun {
    let mut run = run.clone();
    run.spec = spec(mask, &run.spec);
    if let Some(status) = &mut run.status {
        mask_status(mask, status);
    }
    run
}

fn mask_status(mask: &Mask, status: &mut PipelineRunStatus) {
    let hide = |text: &mut String| *text = mask.text(text);
    status.conditions.iter_mut().for_each(|condition| hide(&mut condition.message));
    status.source_revision.iter_mut().for_each(hide);
    status.params.iter_mut().for_each(|param| hide(&mut param.value));
    if let Some(spec) = &mut status.pipeline_spec {
        tree(mask, spec);
    }
    for step in &mut status.steps {
        step.message.iter_mut().for_each(hide);
        step.addresses.iter_mut().for_each(hide);
        step.results.values_mut().for_each(hide);
        for image in &mut step.images {
            hide(&mut image.repository);
            image.tags.iter_mut().for_each(hide);
        }
    }
    status.report.iter_mut().filter_map(|report| report.message.as_mut()).for_each(hide);
    status.summary.iter_mut().filter_map(|summary| summary.image.as_mut()).for_each(hide);
}

/// What was asked for.
fn spec(mask: &Mask, spec: &PipelineRunSpec) -> PipelineRunSpec {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    tree(mask, &mut value);
    serde_json::from_value(value).unwrap_or_default()
}

fn tree(mask: &Mask, value: &mut Value) {
    match value {
        Value::String(text) => *text = mask.text(text),
        Value::Array(items) => items.iter_mut().for_each(|item| tree(mask, item)),
        Value::Object(fields) => {
            for (key, field) in fields.iter_mut() {
                if let Some(services) = field.as_array_mut().filter(|_| key == SERVICES) {
                    let names = services.iter_mut().filter_map(|service| service.get_mut("name"));
                    names.for_each(|name| tree(mask, name));
                }
                if !(field.is_string() && WORDS.contains(&key.as_str())) {
                    tree(mask, field);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::{ImageStatus, Report, StepStatus, Summary};
    use rstest::rstest;
    use serde_json::json;

    const VALUE: &str = "supersecret99";

    fn asked() -> PipelineRunSpec {
        serde_json::from_value(json!({"pipelineSpec": {
            "box": {"image": format!("r.io/{VALUE}"), "imagePullPolicy": "Always"},
            "services": [{"name": VALUE, "image": format!("r.io/{VALUE}"), "onExit": "FailRun"}],
            "steps": [
                {"name": "build", "script": format!("echo {VALUE}")},
                {"name": "push", "dockerPush": {"repository": VALUE, "tags": [VALUE], "secretsInImage": "Allow"}},
            ],
        }, "params": [{"name": "p", "value": VALUE}]}))
        .unwrap()
    }

    /// A run that holds the value wherever one can get.
    fn told() -> PipelineRun {
        let mut run = PipelineRun::new("hello", asked());
        let said = Some(format!("pulling {VALUE}"));
        let image =
            ImageStatus { repository: VALUE.into(), tags: vec![format!("v-{VALUE}")], ..ImageStatus::default() };
        let step = StepStatus {
            name: "build".into(),
            message: said.clone(),
            images: vec![image],
            addresses: vec![VALUE.into()],
            results: [("r".to_owned(), VALUE.to_owned())].into(),
            ..StepStatus::default()
        };
        let condition = json!({"type": "Succeeded", "status": "False", "reason": "StepFailed", "message": said,
            "lastTransitionTime": "2026-11-21T14:03:07Z"});
        run.status = Some(PipelineRunStatus {
            pipeline_spec: serde_json::to_value(&run.spec.pipeline_spec).ok(),
            conditions: vec![serde_json::from_value(condition).unwrap()],
            phase: Some("Failed".into()),
            source_revision: Some(VALUE.into()),
            params: run.spec.params.clone(),
            steps: vec![step],
            report: Some(Report { message: said.clone(), ..Report::default() }),
            summary: Some(Summary { image: said, ..Summary::default() }),
            ..PipelineRunStatus::default()
        });
        run
    }

    #[test]
    fn no_value_is_in_what_is_shown() {
        let shown = serde_json::to_string(&run(&Mask::new([VALUE].into_iter()), &told())).unwrap();
        assert!(!shown.contains(VALUE), "{shown}");
        assert!(shown.contains("pulling ***") && shown.contains("v-***"), "{shown}");
    }

    #[rstest]
    #[case("build")]
    #[case("Always")]
    #[case("FailRun")]
    #[case("Allow")]
    #[case("Failed")]
    #[case("Succeeded")]
    fn what_programs_go_by_stays(#[case] value: &str) {
        assert_eq!(run(&Mask::new([value].into_iter()), &told()), told());
    }
}
