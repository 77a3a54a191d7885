//! What the agent takes from a PipelineRun: whose volumes to follow, and the frozen pipeline.
//!
//! The API watch in `mod` calls [`Run::read`] for every object that it is shown.
//!
//! **Invariant:** pure. Nothing of the pod is in here: what a step may do comes from the frozen spec alone.

use super::{
    journal::{StepOutline, outline},
    status::AgentStatus,
};
use crate::api::{
    PipelineRun, PipelineSpec,
    run::{Cancel, pod_name},
};

/// What is wanted of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// Go on.
    #[default]
    Go,
    /// End the step, run the after-steps.
    Cancel,
    /// The pod is being deleted: end what the agent itself does.
    Abandon,
}

/// A run as the agent follows it; one attempt, one pod.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID of the run.
    pub uid: String,
    /// UID of the pod, pinned by the controller.
    pub pod_uid: String,
    /// Name of the pod.
    pub pod_name: String,
    /// From 1.
    pub attempt: u32,
    /// The Pipeline it refers to.
    pub pipeline: Option<String>,
    /// For the tag of that name.
    pub build_number: i64,
    /// The frozen pipeline.
    pub spec: PipelineSpec,
    /// Its steps.
    pub outline: Vec<StepOutline>,
}

/// What a watch event means for the agent.
#[derive(Clone, Debug, PartialEq)]
pub enum Seen {
    /// Follow it.
    Follow {
        /// The run.
        run: Box<Run>,
        /// What the agent wrote before, perhaps in an earlier life.
        recorded: Box<AgentStatus>,
        /// What is wanted of it.
        wish: Wish,
    },
    /// It is over, with this pod: a box of it that waits for that may go.
    Over {
        /// UID of the pod; checked to be one.
        pod_uid: String,
    },
    /// Nothing to do for this run.
    Leave,
    /// The frozen pipeline cannot be read by this version.
    Unreadable(String),
}

impl Run {
    /// Reads an object that the API server gave.
    #[must_use]
    pub fn read(object: &PipelineRun) -> Seen {
        let Some(status) = &object.status else { return Seen::Leave };
        let meta = &object.metadata;
        let (Some(namespace), Some(name), Some(uid)) = (&meta.namespace, &meta.name, &meta.uid) else {
            return Seen::Leave;
        };
        let (Some(pod_uid), Some(frozen)) = (&status.pod_uid, &status.pipeline_spec) else { return Seen::Leave };
        if !is_uid(pod_uid) {
            return Seen::Leave;
        }
        if status.completion_time.is_some() {
            return Seen::Over { pod_uid: pod_uid.clone() };
        }
        let spec: PipelineSpec = match serde_json::from_value(frozen.clone()) {
            Ok(spec) => spec,
            Err(error) => return Seen::Unreadable(error.to_string()),
        };
        let attempt = status.attempt.unwrap_or(1);
        let wish = match object.spec.cancel {
            _ if meta.deletion_timestamp.is_some() => Wish::Abandon,
            Some(Cancel::Immediate) => Wish::Abandon,
            Some(Cancel::Graceful) => Wish::Cancel,
            None => Wish::Go,
        };
        let run = Self {
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            pod_uid: pod_uid.clone(),
            pod_name: status.pod_name.clone().unwrap_or_else(|| pod_name(name, attempt)),
            attempt,
            pipeline: object.spec.pipeline_ref.as_ref().map(|pipeline| pipeline.name.clone()),
            build_number: status.build_number.unwrap_or(0),
            outline: outline(&spec, object.spec.breakpoint.as_ref()),
            spec,
        };
        Seen::Follow { run: Box::new(run), recorded: Box::new(AgentStatus::recorded(status, attempt)), wish }
    }

    /// Whether both are the same attempt of the same run.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.uid, &self.pod_uid, self.attempt) == (&other.uid, &other.pod_uid, other.attempt)
    }
}

/// Whether a text can be the UID of a pod, and so the name of its directory. A static pod's has no dashes.
fn is_uid(text: &str) -> bool {
    (8..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn object(change: impl FnOnce(&mut Value)) -> PipelineRun {
        let spec = json!({"box": {"image": "debian"}, "steps": [{"name": "a", "script": "true"}]});
        let mut object = json!({
            "apiVersion": "windlass.dev/v1alpha1", "kind": "PipelineRun",
            "metadata": {"name": "hello-1", "namespace": "team", "uid": "u1"},
            "spec": {"pipelineSpec": spec},
            "status": {"pipelineSpec": spec, "podUID": "0f1e2d3c-aaaa-bbbb-cccc-000011112222", "attempt": 2, "buildNumber": 7},
        });
        change(&mut object);
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_run_in_its_pod_is_followed() {
        let Seen::Follow { run, recorded, wish } = Run::read(&object(|_| {})) else { panic!("not followed") };
        assert_eq!((run.attempt, run.build_number, wish), (2, 7, Wish::Go));
        assert_eq!(run.outline.len(), 1);
        assert_eq!(*recorded, AgentStatus::default());
    }

    #[rstest]
    #[case::before_the_pod(|o: &mut Value| o["status"]["podUID"] = Value::Null)]
    #[case::not_resolved(|o: &mut Value| o["status"]["pipelineSpec"] = Value::Null)]
    #[case::a_uid_that_is_a_path(|o: &mut Value| o["status"]["podUID"] = json!("../../../etc/kubernetes"))]
    fn others_are_left_alone(#[case] change: fn(&mut Value)) {
        assert_eq!(Run::read(&object(change)), Seen::Leave);
    }

    #[test]
    fn a_run_that_is_over_is_told_with_its_pod() {
        let seen = Run::read(&object(|o| o["status"]["completionTime"] = json!("2026-01-01T00:00:00Z")));
        assert!(matches!(seen, Seen::Over { pod_uid } if is_uid(&pod_uid)));
    }

    #[test]
    fn a_frozen_pipeline_of_another_version_is_told() {
        let seen = Run::read(&object(|o| o["status"]["pipelineSpec"] = json!({"steps": 3})));
        assert!(matches!(seen, Seen::Unreadable(_)));
    }

    #[rstest]
    #[case(|o: &mut Value| o["spec"]["cancel"] = json!("Graceful"), Wish::Cancel)]
    #[case(|o: &mut Value| o["spec"]["cancel"] = json!("Immediate"), Wish::Abandon)]
    #[case(|o: &mut Value| o["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z"), Wish::Abandon)]
    fn wishes(#[case] change: fn(&mut Value), #[case] expected: Wish) {
        let Seen::Follow { wish, .. } = Run::read(&object(change)) else { panic!("not followed") };
        assert_eq!(wish, expected);
    }

    #[test]
    fn a_report_of_an_earlier_attempt_does_not_count() {
        let seen = Run::read(&object(|o| o["status"]["report"] = json!({"attempt": 1, "result": "Failed"})));
        let Seen::Follow { recorded, .. } = seen else { panic!("not followed") };
        assert_eq!(recorded.report, None);
    }
}
