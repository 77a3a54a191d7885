//! What watches keep of a run: enough to know which run to look at, and what its Pipeline shows of it. Called by the
//! two controllers.
//!
//! **Invariant:** whatever a run holds, its head can be read; one that cannot be read as a whole stops no other. A
//! head is small, however large the run.

use crate::api::{PipelineRun, pipeline::LastRun};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::{Resource, ResourceExt};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::borrow::Cow;

/// A run without all that is read afresh when it is looked at.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct Head {
    #[serde(default, deserialize_with = "identity")]
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default, deserialize_with = "readable")]
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    #[serde(default)]
    pipeline_ref: Value,
}

#[derive(Clone, Debug, Default)]
struct Status {
    build_number: Option<i64>,
    phase: Option<String>,
    completion_time: Option<Time>,
}

/// Which object it is, of which version. Who wrote which field is many times larger than the rest.
fn identity<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ObjectMeta, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Identity {
        name: Option<String>,
        namespace: Option<String>,
        uid: Option<String>,
        resource_version: Option<String>,
    }
    let Identity { name, namespace, uid, resource_version } = Identity::deserialize(deserializer)?;
    Ok(ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() })
}

/// The fields that can be read.
fn readable<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Status, D::Error> {
    let status = Value::deserialize(deserializer)?;
    let field = |name: &str| status.get(name);
    Ok(Status {
        build_number: field("buildNumber").and_then(Value::as_i64),
        phase: field("phase").and_then(Value::as_str).map(ToOwned::to_owned),
        completion_time: field("completionTime").and_then(|time| Time::deserialize(time).ok()),
    })
}

impl Head {
    /// Name of the Pipeline that the run refers to.
    pub(super) fn pipeline(&self) -> Option<&str> {
        self.spec.pipeline_ref.get("name")?.as_str()
    }

    /// Its build number and what its Pipeline shows of it, once it has a number.
    pub(super) fn shown(&self) -> Option<(i64, LastRun)> {
        let Status { build_number, phase, completion_time } = self.status.clone();
        let phase = phase.unwrap_or_else(|| "Pending".into());
        Some((build_number?, LastRun { name: self.name_any(), phase, completion_time }))
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
    use rstest::rstest;

    #[rstest]
    #[case(
        r#"{"metadata": {"name": "r"}, "spec": {"pipelineRef": {"name": "p"}, "params": 5}, "status": []}"#,
        Some("p"),
        None
    )]
    #[case(r#"{"metadata": {"name": "r"}, "spec": {"pipelineRef": "p"}, "status": {"phase": "Running"}}"#, None, None)]
    #[case(
        r#"{"metadata": {"name": "r"}, "status": {"buildNumber": 7, "phase": 1, "completionTime": "soon"}}"#,
        None,
        Some((7, "Pending", false))
    )]
    #[case(
        r#"{"metadata": {"name": "r"}, "status": {"buildNumber": 7, "phase": "Failed", "completionTime": "2026-11-21T12:00:00Z"}}"#,
        None,
        Some((7, "Failed", true))
    )]
    #[case(r#"{"metadata": {"name": "r"}}"#, None, None)]
    fn a_head_can_be_read_whatever_the_run_holds(
        #[case] text: &str,
        #[case] pipeline: Option<&str>,
        #[case] shown: Option<(i64, &str, bool)>,
    ) {
        let head: Head = serde_json::from_str(text).unwrap();
        assert_eq!((head.name_any().as_str(), head.pipeline()), ("r", pipeline));
        let found = head.shown();
        let found = found.as_ref().map(|(number, run)| (*number, run.phase.as_str(), run.completion_time.is_some()));
        assert_eq!(found, shown);
    }

    #[test]
    fn a_head_is_small_however_large_the_run() {
        let large = "x".repeat(100_000);
        let run = serde_json::json!({
            "metadata": {"name": "r", "namespace": "n", "uid": "u", "resourceVersion": "5", "generation": 1,
                "annotations": {"a": large}, "labels": {"l": large}, "finalizers": [large],
                "managedFields": [{"manager": large, "fieldsV1": {"f:spec": {large.clone(): {}}}}]},
            "spec": {"pipelineRef": {"name": "p"}, "env": [{"name": "A", "value": large}]},
            "status": {"buildNumber": 1, "pipelineSpec": {"steps": [{"script": large}]}},
        });
        let head: Head = serde_json::from_str(&run.to_string()).unwrap();
        let known = (head.name_any(), head.namespace(), head.uid(), head.resource_version());
        assert_eq!(known, ("r".into(), Some("n".into()), Some("u".into()), Some("5".into())));
        assert!(format!("{head:?}").len() < 2_000, "{head:?}");
    }
}
