//! What watches keep of a run: enough to know which run to look at. Called by the two controllers.
//!
//! **Invariant:** whatever a run holds, its head can be read; one that cannot be read as a whole stops no other.

use crate::api::PipelineRun;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;

/// A run without all that is read afresh when it is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Head {
    #[serde(default)]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    pipeline_ref: Value,
}

impl Head {
    /// Name of the Pipeline that the run refers to.
    pub(super) fn pipeline(&self) -> Option<&str> {
        self.spec.pipeline_ref.get("name")?.as_str()
    }
}

impl Resource for Head {
    type DynamicType = ();
    type Scope = <PipelineRun as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        PipelineRun::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        PipelineRun::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        PipelineRun::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        PipelineRun::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::ResourceExt;
    use rstest::rstest;

    #[rstest]
    #[case(
        r#"{"metadata": {"name": "r"}, "spec": {"pipelineRef": {"name": "p"}, "params": 5}, "status": []}"#,
        Some("p")
    )]
    #[case(r#"{"metadata": {"name": "r"}, "spec": {"pipelineRef": "p"}}"#, None)]
    #[case(r#"{"metadata": {"name": "r"}}"#, None)]
    fn a_head_can_be_read_whatever_the_run_holds(#[case] text: &str, #[case] pipeline: Option<&str>) {
        let head: Head = serde_json::from_str(text).unwrap();
        assert_eq!((head.name_any().as_str(), head.pipeline()), ("r", pipeline));
    }
}
