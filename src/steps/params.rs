//! `$(params.x)` in the strings of a pipeline.
//!
//! The controller replaces them when it resolves a run; to judge a Pipeline without a run, it and `windlass check` let
//! [`with_stand_ins`] fill them.
//!
//! **Invariant:** as that of the folder. One pass: what a parameter holds is never replaced again.

use super::StepError;
use crate::api::{PipelineSpec, condition::reason, pipeline::ParamSpec, run::Param};
use std::collections::BTreeMap;

/// A pipeline as it can be judged before a run gives values to its parameters: their default stands for them, else
/// the first value that is allowed, else a word.
///
/// # Errors
/// As [`replace`].
pub fn with_stand_ins(pipeline: &PipelineSpec) -> Result<PipelineSpec, StepError> {
    let value = |param: &ParamSpec| {
        let value = param.default.clone().or_else(|| param.enum_.as_ref()?.first().cloned());
        Param { name: param.name.clone(), value: value.unwrap_or_else(|| VARIABLE.into()) }
    };
    let params: Vec<Param> = pipeline.params.iter().map(value).collect();
    let mut spec = replace(pipeline, &params)?;
    for image in std::iter::once(&mut spec.box_.image).chain(spec.services.iter_mut().map(|service| &mut service.image))
    {
        *image = image.replace(VARIABLE, "param");
    }
    Ok(spec)
}

/// Stands for a value: what expands variables leaves it unjudged. Images expand none.
const VARIABLE: &str = "$PARAM";

/// Replaces `$(params.x)` in all strings but names.
///
/// # Errors
/// `InvalidParam` for one that the pipeline does not have.
pub fn replace(pipeline: &PipelineSpec, params: &[Param]) -> Result<PipelineSpec, StepError> {
    let values: BTreeMap<&str, &str> = params.iter().map(|p| (p.name.as_str(), p.value.as_str())).collect();
    let invalid = |message: String| StepError::new(reason::INVALID_PIPELINE, message);
    let mut json = serde_json::to_value(pipeline).map_err(|e| invalid(e.to_string()))?;
    if let Some(fields) = json.as_object_mut() {
        for (key, value) in fields.iter_mut().filter(|(key, _)| *key != "params") {
            substitute_value(value, key, &values)?;
        }
    }
    serde_json::from_value(json).map_err(|e| invalid(format!("after parameters were replaced: {e}")))
}

fn substitute_value(value: &mut serde_json::Value, path: &str, params: &BTreeMap<&str, &str>) -> Result<(), StepError> {
    match value {
        serde_json::Value::String(text) if text.contains("$(params.") => {
            *text = substitute_text(text, path, params)?;
        }
        serde_json::Value::Array(items) => {
            for (i, item) in items.iter_mut().enumerate() {
                substitute_value(item, &format!("{path}[{i}]"), params)?;
            }
        }
        serde_json::Value::Object(fields) => {
            for (key, field) in fields.iter_mut().filter(|(key, _)| *key != "name") {
                substitute_value(field, &format!("{path}.{key}"), params)?;
            }
        }
        _ => {}
    }
    Ok(())
}

fn substitute_text(text: &str, path: &str, params: &BTreeMap<&str, &str>) -> Result<String, StepError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("$(params.") {
        out.push_str(before);
        let (name, tail) = after.split_once(')').ok_or_else(|| {
            StepError::new(reason::INVALID_PARAM, format!("{path}: $(params. is not closed by a parenthesis"))
        })?;
        let value = params.get(name).ok_or_else(|| {
            let known = params.keys().copied().collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            StepError::new(
                reason::INVALID_PARAM,
                format!("{path}: $(params.{name}) is not a parameter of the pipeline; it has: {known}"),
            )
        })?;
        out.push_str(value);
        rest = tail;
    }
    out.push_str(rest);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("box: {image: 'golang:$(params.v)'}")]
    #[case("box: {image: $(params.v)}")]
    #[case("box: {image: 'a:1'}, services: [{name: s, image: 'b:$(params.v)'}]")]
    fn a_pipeline_is_judged_before_its_parameters_have_values(#[case] box_: &str) {
        let push = "{name: s, dockerPush: {repository: 'a/$(params.v)', tags: [$(params.v)], ports: $(params.v)}}";
        let yaml = format!("{{params: [{{name: v}}], {box_}, steps: [{push}]}}");
        let spec = with_stand_ins(&serde_yaml::from_str(&yaml).unwrap()).unwrap();
        assert_eq!(crate::steps::pipeline::faults(&spec), []);
    }

    #[test]
    fn defaults_and_allowed_values_are_judged() {
        for param in ["{name: v, default: 'A B'}", "{name: v, enum: ['A B', b]}"] {
            let yaml = format!("{{params: [{param}], box: {{image: $(params.v)}}, steps: [{{name: s, script: x}}]}}");
            let spec = with_stand_ins(&serde_yaml::from_str(&yaml).unwrap()).unwrap();
            assert_eq!(crate::steps::pipeline::faults(&spec).len(), 1);
        }
    }
}
