//! Applies what stands beside a run in its file: Pipelines, Secrets, ConfigMaps, whatever the cluster knows.
//!
//! `start` and `run` use it. **Invariant:** server-side, with our own field manager and without force: what others
//! own is never taken from them. No value of a Secret gets into a message.

use super::{
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    manifest::{is_secret, name_of},
    refusal::Ask,
};
use crate::api::{GROUP, Pipeline, manager};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, ApiResource, Scope},
    error::DiscoveryError,
};
use serde_json::{Value, json};

/// Applies an object.
///
/// # Errors
/// A kind that the cluster does not know, or whatever it answered.
pub(super) async fn apply(cluster: &Cluster, object: &Value, file: &str, dry_run: bool) -> Result<DynamicObject, Stop> {
    let (name, title) = (name_of(object), title(object));
    if object.pointer("/metadata/name").is_none() {
        return Err(
            Fault::usage(format!("{file}: a {} has no metadata.name", title.split('/').next().unwrap_or(""))).into()
        );
    }
    let (resource, namespaced) = resource(cluster, object, file).await?;
    let mut object = object.clone();
    let written = object.pointer("/metadata/namespace").and_then(Value::as_str);
    let namespace = written.unwrap_or(&cluster.namespace).to_owned();
    let api: Api<DynamicObject> = if namespaced {
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("namespace".into(), json!(namespace));
        }
        Api::namespaced_with(cluster.client.clone(), &namespace, &resource)
    } else {
        Api::all_with(cluster.client.clone(), &resource)
    };
    let mut params = PatchParams::apply(manager::CLI).validation_strict();
    params.dry_run = dry_run;
    let ask = Ask::object("patch", &resource.plural, &object, file);
    let answer = cluster.ask(ask, api.patch(name, &params, &Patch::Apply(&object))).await;
    answer.map_err(|stop| if is_secret(&object) { silent(stop, &object, file) } else { stop })
}

/// `secret/login`, `deployment.apps/web`: how kubectl names an object.
#[must_use]
pub(super) fn title(object: &Value) -> String {
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let group = word("apiVersion").split_once('/').map(|(group, _)| format!(".{group}")).unwrap_or_default();
    format!("{}{group}/{}", word("kind").to_lowercase(), name_of(object))
}

/// What the cluster calls the objects of this kind, and whether they are in namespaces.
async fn resource(cluster: &Cluster, object: &Value, file: &str) -> Result<(ApiResource, bool), Stop> {
    let word = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (version, kind) = (word("apiVersion"), word("kind"));
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let gvk = GroupVersionKind::gvk(group, version, kind);
    // Ours is known: a cluster without Windlass is told from a kind that is written wrongly.
    if group == GROUP {
        return Ok((ApiResource::erase::<Pipeline>(&()), true));
    }
    let unknown = || {
        let message = format!("{file}: this cluster has no kind {kind} in apiVersion {}", word("apiVersion"));
        let fault = Fault::new(reason::UNKNOWN_KIND, Exit::Usage, message).note("no run was started");
        fault.hint(format!("kubectl api-resources --api-group={group:?}"))
    };
    let found = async {
        match discovery::pinned_kind(&cluster.client, &gvk).await {
            Err(kube::Error::Discovery(DiscoveryError::MissingKind(_) | DiscoveryError::MissingResource(_))) => {
                Ok(None)
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            other => other.map(Some),
        }
    };
    let found = cluster.ask(Ask { verb: "get", resource: "API groups", name: None, sent: None }, found).await?;
    let (resource, capabilities) = found.ok_or_else(unknown)?;
    Ok((resource, capabilities.scope == Scope::Namespaced))
}

/// What the cluster says of a Secret may quote it; then its words are left out.
fn silent(stop: Stop, secret: &Value, file: &str) -> Stop {
    let Stop::Faults(faults) = stop else { return stop };
    let values: Vec<String> = ["data", "stringData"]
        .iter()
        .filter_map(|key| secret.get(*key))
        .flat_map(|map| map.as_object().map(|m| m.values().cloned().collect()).unwrap_or_else(|| vec![map.clone()]))
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        .filter(|value| !value.is_empty())
        .collect();
    // The API server quotes values that it cannot read in its own way, the nested ones too.
    let quotes = |text: &str| text.contains("Value:") || values.iter().any(|value| text.contains(value.as_str()));
    let judge = |fault: Fault| {
        if !quotes(&fault.message) && !fault.notes.iter().any(|note| quotes(note)) {
            return fault;
        }
        let message = format!("{file}: the cluster refused secret/{}", name_of(secret));
        Fault::new(fault.reason, fault.exit, message).note("its words are not shown, as they quote a value")
    };
    Stop::Faults(faults.into_iter().map(judge).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_have_the_names_that_kubectl_gives_them() {
        let title_of =
            |version: &str| title(&json!({"apiVersion": version, "kind": "Thing", "metadata": {"name": "x"}}));
        assert_eq!((title_of("v1").as_str(), title_of("apps/v1").as_str()), ("thing/x", "thing.apps/x"));
    }

    #[test]
    fn words_that_quote_a_secret_are_left_out() {
        let secret = json!({"kind": "Secret", "metadata": {"name": "login"}, "stringData": {"pin": 7391}});
        let stop = |message: &str| Stop::from(Fault::new(reason::INVALID_RUN, Exit::Usage, message));
        let told = |message: &str| match silent(stop(message), &secret, "f") {
            Stop::Faults(faults) => faults[0].render(false),
            Stop::ClosedPipe => String::new(),
        };
        let quoting = told("expected string, got &value.valueUnstructured{Value:7391}");
        assert!(quoting.contains("refused secret/login") && !quoting.contains("7391"), "{quoting}");
        let nested = told("got &value.valueUnstructured{Value:map[string]interface {}{\"password\":\"hunter2\"}}");
        assert!(nested.contains("refused secret/login") && !nested.contains("hunter2"), "{nested}");
        assert!(told("f: .stringData: no such field").contains("no such field"));
    }
}
