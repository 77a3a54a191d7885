//! What the cluster refused, in words that name the object, the field and what to do.
//!
//! `connect` asks it about every error. **Invariant:** pure; the other side's words are kept, without
//! type names of its programming language.

use super::{
    connect::Cluster,
    exit::Exit,
    fault::{Fault, Stop, reason},
    manifest::as_argument,
};
use kube::core::{Status, response::StatusCause};
use serde_json::Value;

/// What was asked of the cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask<'a> {
    /// `get`, `create`, …
    pub verb: &'static str,
    /// `pipelineruns`, …
    pub resource: &'a str,
    /// The object, if there is a name.
    pub name: Option<&'a str>,
    /// What was sent, and the file it came from.
    pub sent: Option<(&'a Value, &'a str)>,
}

impl<'a> Ask<'a> {
    /// About one run.
    #[must_use]
    pub(super) fn run(verb: &'static str, name: &'a str) -> Self {
        Self { verb, resource: "pipelineruns", name: Some(name), sent: None }
    }

    /// About runs.
    #[must_use]
    pub(super) fn runs(verb: &'static str) -> Self {
        Self { verb, resource: "pipelineruns", name: None, sent: None }
    }

    /// An object of a file.
    #[must_use]
    pub(super) fn object(verb: &'static str, resource: &'a str, object: &'a Value, file: &'a str) -> Self {
        Self {
            verb,
            resource,
            name: object.pointer("/metadata/name").and_then(Value::as_str),
            sent: Some((object, file)),
        }
    }
}

/// The error in words.
#[must_use]
pub(super) fn explain(error: &kube::Error, ask: &Ask<'_>, cluster: &Cluster) -> Stop {
    match error {
        kube::Error::Api(status) => answer(status, ask, &cluster.namespace, &cluster.program),
        kube::Error::Auth(_) => Fault::new(
            reason::UNAUTHORIZED,
            Exit::Denied,
            format!("cannot log in to context {}: {}", cluster.context, root(error)),
        )
        .into(),
        kube::Error::SerdeError(_) => Fault::new(
            reason::CLUSTER_ERROR,
            Exit::World,
            format!("{} did not answer as a Kubernetes API server does: {}", cluster.url, root(error)),
        )
        .into(),
        _ => cluster.unreachable(&format!("cannot reach {}: {}", cluster.url, root(error))).into(),
    }
}

/// An answer of the API server.
#[must_use]
pub(super) fn answer(status: &Status, ask: &Ask<'_>, namespace: &str, program: &str) -> Stop {
    let fault = |reason, exit, message: String| Fault::new(reason, exit, message);
    match status.code {
        401 => fault(reason::UNAUTHORIZED, Exit::Denied, "the cluster does not know who you are (401)".into())
            .hint("log in again, as your cluster's kubeconfig asks for")
            .into(),
        403 => forbidden(status, ask, namespace).into(),
        404 if group_is_missing(status) => {
            fault(reason::NOT_INSTALLED, Exit::World, "this cluster has no windlass.dev/v1alpha1".into())
                .hint("install Windlass with its Helm chart, or choose another cluster with --context")
                .into()
        }
        404 => fault(reason::NOT_FOUND, Exit::NotFound, not_found(status, ask, namespace)).into(),
        409 if status.is_already_exists() => fault(
            reason::ALREADY_EXISTS,
            Exit::Usage,
            format!(
                "a run {:?} exists already in namespace {namespace}; a run is made once",
                ask.name.unwrap_or_default()
            ),
        )
        .hint(format!(
            "write metadata.generateName instead of name, or start it again: {program} retry {}",
            ask.name.unwrap_or_default()
        ))
        .into(),
        409 if status.message.contains("conflict") && ask.verb == "patch" => conflict(status, ask).into(),
        400 | 422 => Stop::Faults(invalid(status, ask)),
        // What server-side apply says of a document that does not fit the schema.
        500 if status.message.contains("typed patch object") => Stop::Faults(invalid(status, ask)),
        code => fault(reason::CLUSTER_ERROR, Exit::World, format!("the cluster answered {code}: {:?}", status.message))
            .into(),
    }
}

/// Fields that somebody else applied.
fn conflict(status: &Status, ask: &Ask<'_>) -> Fault {
    let file = ask.sent.map_or("", |(_, file)| file);
    let name = ask.name.unwrap_or_default();
    let manager = between(&status.message, "conflict with \"", "\"").unwrap_or("somebody else");
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    let fields: Vec<&str> = causes.iter().map(|c| c.field.as_str()).filter(|f| !f.is_empty()).take(5).collect();
    let what = if fields.is_empty() { "fields".into() } else { fields.join(", ") };
    let message = format!("{file}: {} {name:?}: {manager} has set {what} to something else", ask.resource);
    Fault::new(reason::FIELD_CONFLICT, Exit::Usage, message).note("no run was started").hint(format!(
        "kubectl apply --server-side --force-conflicts -f {}   or take it out of the file",
        as_argument(file)
    ))
}

fn root(error: &dyn std::error::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}

fn group_is_missing(status: &Status) -> bool {
    status.details.as_ref().is_none_or(|d| d.name.is_empty())
        && (status.message.contains("404 page not found") || status.message.contains("could not find the requested"))
}

fn not_found(status: &Status, ask: &Ask<'_>, namespace: &str) -> String {
    match status.details.as_ref().filter(|d| d.kind == "namespaces") {
        Some(details) => format!("no namespace {:?} in this cluster", details.name),
        None => {
            let kind = ask.resource.trim_end_matches('s');
            format!("no {kind} {:?} in namespace {namespace}", ask.name.unwrap_or_default())
        }
    }
}

fn forbidden(status: &Status, ask: &Ask<'_>, namespace: &str) -> Fault {
    let who = between(&status.message, "User \"", "\"");
    match who.filter(|_| status.message.contains("cannot")) {
        Some(who) => {
            let place = if status.message.contains("at the cluster scope") {
                "in all namespaces".to_owned()
            } else {
                format!("in {namespace}")
            };
            let role = if matches!(ask.verb, "get" | "list" | "watch") { "windlass-view" } else { "windlass-edit" };
            let fault = Fault::new(
                reason::FORBIDDEN,
                Exit::Denied,
                format!("{who} may not {} {} {place}", ask.verb, ask.resource),
            );
            // Our roles say nothing about what is not ours.
            let ours = matches!(ask.resource, "pipelines" | "pipelineruns");
            if ours { fault.hint(format!("needs ClusterRole {role}")) } else { fault }
        }
        None => {
            Fault::new(reason::FORBIDDEN, Exit::Denied, format!("the cluster refused it (403): {:?}", status.message))
        }
    }
}

fn between<'t>(text: &'t str, start: &str, end: &str) -> Option<&'t str> {
    text.split_once(start)?.1.split_once(end).map(|(found, _)| found)
}

fn invalid(status: &Status, ask: &Ask<'_>) -> Vec<Fault> {
    let (object, file) = ask.sent.map_or((&Value::Null, ""), |(o, f)| (o, f));
    let place = if file.is_empty() { String::new() } else { format!("{file}: ") };
    let mut faults = unknown_fields(status, &place);
    let causes = status.details.as_ref().map(|d| d.causes.as_slice()).unwrap_or_default();
    let told = causes.iter().filter(|c| !c.message.contains("rules were not checked because"));
    faults.extend(told.map(|cause| refused(cause, object, &place)));
    if faults.is_empty() {
        let message = format!("{place}the cluster refused it: {}", status.message);
        faults.push(Fault::new(reason::INVALID_RUN, Exit::Usage, message));
    }
    if let Some(last) = faults.last_mut().filter(|_| ask.verb == "create") {
        last.notes.push("nothing was started".into());
    }
    faults
}

/// `strict decoding error: unknown field "spec.x", unknown field "spec.y"`.
fn unknown_fields(status: &Status, place: &str) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut rest = status.message.as_str();
    while let Some((_, after)) = rest.split_once("field \"") {
        let Some((field, tail)) = after.split_once('"') else { break };
        let duplicate = rest.split("field \"").next().is_some_and(|before| before.ends_with("duplicate "));
        let what = if duplicate { "stands twice" } else { "no such field" };
        faults.push(Fault::new(reason::UNKNOWN_KEY, Exit::Usage, format!("{place}{field}: {what}")));
        rest = tail;
    }
    // Server-side apply says it in other words.
    while let Some((path, tail)) = rest.split_once(": field not declared in schema") {
        let field = path.rsplit([' ', '\n']).next().unwrap_or(path).trim_start_matches('.');
        faults.push(Fault::new(reason::UNKNOWN_KEY, Exit::Usage, format!("{place}{field}: no such field")));
        rest = tail;
    }
    faults
}

fn refused(cause: &StatusCause, object: &Value, place: &str) -> Fault {
    let field = named(&cause.field, object);
    let message = plain_words(&cause.message);
    let in_step = cause.field.contains("teps[");
    let why = match () {
        () if in_step && message.contains("exactly one of") => reason::INVALID_STEP,
        () if cause.field.contains("pipelineSpec")
            || object.get("kind").and_then(Value::as_str) == Some("Pipeline") =>
        {
            crate::api::condition::reason::INVALID_PIPELINE
        }
        () => reason::INVALID_RUN,
    };
    Fault::new(why, Exit::Usage, format!("{place}{field}: {message}"))
}

/// `spec.steps[2]` becomes `spec.steps[2] (deploy)`.
fn named(field: &str, object: &Value) -> String {
    let Some((path, tail)) = field.rsplit_once("teps[").and_then(|(head, tail)| {
        let (index, rest) = tail.split_once(']')?;
        Some((format!("{head}teps[{index}]"), rest))
    }) else {
        return field.to_owned();
    };
    let pointer: String = path.replace('[', "/").replace(']', "").split('.').map(|part| format!("/{part}")).collect();
    match object.pointer(&pointer).and_then(|step| step.get("name")).and_then(Value::as_str) {
        Some(name) => format!("{path} ({name}){tail}"),
        None => field.to_owned(),
    }
}

/// Takes off what is said of every wrong value: `Invalid value: "object": set exactly one of …`.
fn plain_words(message: &str) -> String {
    let Some(rest) = message.strip_prefix("Invalid value: ") else {
        return message.strip_prefix("Required value").map_or_else(|| message.to_owned(), |_| "is required".to_owned());
    };
    // The value is quoted as JSON, or bare; what follows it says what is wrong.
    let mut stream = serde_json::Deserializer::from_str(rest).into_iter::<Value>();
    let value = stream.next().and_then(Result::ok);
    let said = rest.get(stream.byte_offset()..).and_then(|r| r.strip_prefix(": "));
    // The schema's own words begin with the field once more.
    let said = said.map(|said| match said.split_once(" in body ") {
        Some((field, said)) if !field.contains(' ') => said,
        Some(_) | None => said,
    });
    match (value, said) {
        (Some(Value::String(kind)), Some(said))
            if matches!(kind.as_str(), "object" | "array" | "string" | "integer" | "null") =>
        {
            said.to_owned()
        }
        (Some(value), Some(said)) => {
            let value = value.to_string();
            if value.len() > 80 || said.contains(&value) { said.to_owned() } else { format!("{value}: {said}") }
        }
        _ => rest.split_once(": ").map_or(rest, |(_, said)| said).to_owned(),
    }
}

#[cfg(test)]
mod tests;
