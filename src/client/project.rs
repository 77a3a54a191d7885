//! Our own kinds in a file of this machine: which pipeline is run, and what else the file says.
//!
//! `here` uses it. **Invariant:** a field that does not exist is an error with its path, as the cluster's API server has
//! it; nothing of a Secret is quoted.

use super::{
    exit::Exit,
    fault::{Fault, Stop, nearest, reason},
    manifest,
};
use crate::{
    api::{GROUP, Pipeline, PipelineRun, PipelineRunSpec, VERSION, condition::reason as run_reason, crds},
    local::Objects,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

/// Names of project files, the first that is there counts.
pub(super) const FILES: [&str; 2] = ["windlass.yaml", "windlass.yml"];

/// What a file holds.
#[derive(Default)]
pub(super) struct Project {
    /// The file, as people know it.
    pub(super) file: String,
    pipelines: Vec<Pipeline>,
    runs: Vec<PipelineRun>,
    /// Secrets and ConfigMaps.
    pub(super) objects: Objects,
}

/// What is to be run.
pub(super) struct Chosen {
    /// The Pipeline's name, if it has one.
    pub(super) pipeline: Option<String>,
    /// What a name for the run can be made of.
    pub(super) base: String,
    /// The run, with its pipeline inline.
    pub(super) spec: PipelineRunSpec,
}

/// The project file of a directory, if it has one.
pub(super) fn find(directory: &Path) -> Option<PathBuf> {
    FILES.iter().map(|name| directory.join(name)).find(|path| path.is_file())
}

impl Project {
    /// Reads a file; `-` is stdin.
    ///
    /// # Errors
    /// What is wrong with it, by path.
    pub(super) fn read(path: &Path) -> Result<Self, Stop> {
        let file = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
        let text = manifest::read(path)?;
        Self::parse(file.strip_prefix("./").unwrap_or(&file), &text)
    }

    fn parse(file: &str, text: &str) -> Result<Self, Stop> {
        let mut project = Self { file: file.to_owned(), ..Self::default() };
        for (index, document) in manifest::parse(file, text)?.into_iter().enumerate() {
            project.take(index, document)?;
        }
        Ok(project)
    }

    fn take(&mut self, index: usize, document: Value) -> Result<(), Stop> {
        let at = format!("{}, document {}", self.file, index + 1);
        let word = |key: &str| document.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (version, kind) = (word("apiVersion"), word("kind"));
        let unknown =
            |message: String| Fault::new(reason::UNKNOWN_KIND, Exit::Usage, message).note("nothing was started");
        if version == format!("{GROUP}/{VERSION}") && matches!(kind.as_str(), "Pipeline" | "PipelineRun") {
            if !has_plainly_known_fields(&kind, &document) {
                check_fields(&at, &kind, &document)?;
            }
            check_names(&at, &kind, &document)?;
            let wrong = |error: serde_json::Error| {
                Fault::new(reason::INVALID_RUN, Exit::Usage, format!("{at}: {error}")).note("nothing was started")
            };
            if kind == "Pipeline" {
                self.pipelines.push(serde_json::from_value(document).map_err(wrong)?);
            } else {
                self.runs.push(serde_json::from_value(document).map_err(wrong)?);
            }
            return Ok(());
        }
        let taken = self.objects.take(&document).map_err(|error| {
            Fault::new(reason::INVALID_RUN, Exit::Usage, format!("{at}: {error}")).note("nothing was started")
        })?;
        match (taken, kind.as_str()) {
            (true, _) => Ok(()),
            (false, "") => {
                Err(unknown(format!("{at}: no kind; expected Pipeline, PipelineRun, Secret or ConfigMap")).into())
            }
            (false, _) => {
                let message = format!("{at}: kind {kind:?} of {version:?} means nothing without a cluster");
                Err(unknown(message).hint("keep Pipeline, PipelineRun, Secret and ConfigMap in this file").into())
            }
        }
    }

    /// Names of all pipelines.
    pub(super) fn names(&self) -> Vec<&str> {
        self.pipelines.iter().filter_map(|p| p.metadata.name.as_deref()).collect()
    }

    /// Chooses what to run: a pipeline or run by its name, or the only one there is.
    ///
    /// # Errors
    /// `PipelineNotFound` with what there is.
    pub(super) fn choose(&self, wanted: Option<&str>, program: &str) -> Result<Chosen, Stop> {
        match (wanted, self.runs.as_slice(), self.pipelines.as_slice()) {
            (Some(name), runs, _) => {
                if let Some(pipeline) = self.pipeline(name) {
                    return Ok(of_pipeline(pipeline));
                }
                let named = |run: &&PipelineRun| run.metadata.name.as_deref() == Some(name);
                runs.iter()
                    .find(named)
                    .map_or_else(|| Err(self.no_pipeline(name, program)), |run| self.of_run(run, program))
            }
            (None, [run], _) => self.of_run(run, program),
            (None, [], [pipeline]) => Ok(of_pipeline(pipeline)),
            (None, [], []) => Err(Fault::usage(format!("{} holds no Pipeline and no PipelineRun", self.file)).into()),
            (None, ..) => {
                let runs = self.runs.iter().filter_map(|run| run.metadata.name.as_deref());
                let names = self.names().into_iter().chain(runs).collect::<Vec<_>>().join(", ");
                let fault = Fault::usage(format!("{} holds several: {names}; say which one", self.file));
                Err(fault.note("nothing was started").into())
            }
        }
    }

    fn pipeline(&self, name: &str) -> Option<&Pipeline> {
        self.pipelines.iter().find(|pipeline| pipeline.metadata.name.as_deref() == Some(name))
    }

    fn of_run(&self, run: &PipelineRun, program: &str) -> Result<Chosen, Stop> {
        let mut spec = run.spec.clone();
        let name = run.metadata.name.as_deref().or(run.metadata.generate_name.as_deref());
        let mut pipeline = None;
        if let Some(reference) = spec.pipeline_ref.take() {
            let found = self.pipeline(&reference.name).ok_or_else(|| self.no_pipeline(&reference.name, program))?;
            spec.pipeline_spec = Some(found.spec.clone());
            pipeline = Some(reference.name);
        }
        if spec.pipeline_spec.is_none() {
            let message = format!("{}: the PipelineRun has neither pipelineSpec nor pipelineRef", self.file);
            return Err(Fault::new(reason::INVALID_RUN, Exit::Usage, message).note("nothing was started").into());
        }
        let base = name.unwrap_or("run").trim_end_matches('-').to_owned();
        Ok(Chosen { pipeline, base, spec })
    }

    fn no_pipeline(&self, name: &str, program: &str) -> Stop {
        let names = self.names();
        let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
        let message = format!("no pipeline {name:?} in {} (it has {has})", self.file);
        let fault = Fault::new(run_reason::PIPELINE_NOT_FOUND, Exit::NotFound, message);
        match nearest(name, names) {
            Some(near) => fault.hint(format!("{program} run {near}")),
            None => fault,
        }
        .into()
    }
}

fn of_pipeline(pipeline: &Pipeline) -> Chosen {
    let name = pipeline.metadata.name.clone();
    let spec = PipelineRunSpec {
        pipeline_spec: Some(pipeline.spec.clone()),
        breakpoint_timeout: "30m".into(),
        ..PipelineRunSpec::default()
    };
    Chosen { base: name.clone().unwrap_or_else(|| "run".into()), pipeline: name, spec }
}

/// Whether all fields come back from our own types. If not, one may be unknown, or have its default: the schema says
/// which, and it takes longer to make than a short run may take to begin.
fn has_plainly_known_fields(kind: &str, document: &Value) -> bool {
    let again = match kind {
        "Pipeline" => serde_json::from_value::<Pipeline>(document.clone()).and_then(serde_json::to_value),
        _ => serde_json::from_value::<PipelineRun>(document.clone()).and_then(serde_json::to_value),
    };
    let spec = |whole: &Value| whole.get("spec").cloned().unwrap_or_default();
    again.is_ok_and(|again| covers(&spec(&again), &spec(document)))
}

/// Whether `whole` has every field of `part`.
fn covers(whole: &Value, part: &Value) -> bool {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            part.iter().all(|(key, part)| whole.get(key).is_some_and(|whole| covers(whole, part)))
        }
        (Value::Array(whole), Value::Array(part)) => {
            whole.len() == part.len() && whole.iter().zip(part).all(|(whole, part)| covers(whole, part))
        }
        (_, Value::Object(_) | Value::Array(_)) => false,
        (_, _) => true,
    }
}

/// Refuses what the definitions do not know.
fn check_fields(at: &str, kind: &str, document: &Value) -> Result<(), Stop> {
    let wrong = |reason: &'static str, message: String| {
        Fault::new(reason, Exit::Usage, format!("{at}: {message}")).note("nothing was started")
    };
    if let Some((path, key, near)) = unknown_field(document.get("spec"), &crds::spec_schema(kind), "spec") {
        let fault = wrong(reason::UNKNOWN_KEY, format!("{path}.{key}: there is no such field"));
        return Err(match near {
            Some(near) => fault.hint(format!("did you mean {near}?")),
            None => fault,
        }
        .into());
    }
    Ok(())
}

/// Refuses names that would not be names in a cluster.
fn check_names(at: &str, kind: &str, document: &Value) -> Result<(), Stop> {
    let wrong = |reason: &'static str, message: String| {
        Fault::new(reason, Exit::Usage, format!("{at}: {message}")).note("nothing was started")
    };
    let pipeline = if kind == "Pipeline" { document.get("spec") } else { document.pointer("/spec/pipelineSpec") };
    let Some(pipeline) = pipeline else { return Ok(()) };
    let mut taken = BTreeSet::new();
    for list in ["steps", "afterSteps", "services"] {
        for (index, item) in pipeline.get(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
            let name = item.get("name").and_then(Value::as_str).unwrap_or_default();
            if !is_name(name) {
                let rule =
                    "lower-case letters, digits and '-', at most 63, beginning and ending with a letter or digit";
                return Err(
                    wrong(reason::INVALID_RUN, format!("{list}[{index}].name {name:?}: expected {rule}")).into()
                );
            }
            if !taken.insert((list == "services", name)) {
                return Err(wrong(
                    reason::INVALID_RUN,
                    format!("{list}[{index}].name {name:?}: there are two of this name"),
                )
                .into());
            }
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&name.len())
        && name.bytes().all(|b| plain(b) || b == b'-')
        && name.bytes().next().is_some_and(plain)
        && name.bytes().last().is_some_and(plain)
}

/// The first field that the schema does not have: where, its name, and one that may be meant.
fn unknown_field(value: Option<&Value>, schema: &Value, path: &str) -> Option<(String, String, Option<String>)> {
    match value? {
        Value::Object(fields) => {
            let known = schema.get("properties").and_then(Value::as_object);
            for (key, field) in fields {
                match (known.and_then(|known| known.get(key)), schema.get("additionalProperties")) {
                    (Some(own), _) => {
                        let found = unknown_field(Some(field), own, &format!("{path}.{key}"));
                        if found.is_some() {
                            return found;
                        }
                    }
                    (None, Some(_)) => {}
                    (None, None) if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(true)) => {}
                    (None, None) => {
                        let names = known.into_iter().flatten().map(|(name, _)| name.as_str());
                        return Some((path.to_owned(), key.clone(), nearest(key, names).map(str::to_owned)));
                    }
                }
            }
            None
        }
        Value::Array(items) => {
            let own = schema.get("items")?;
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| unknown_field(Some(item), own, &format!("{path}[{index}]")))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const TWO: &str = "apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: build}\n\
        spec: {box: {image: debian}, steps: [{name: a, script: 'true'}]}\n---\n\
        apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {name: deploy}\n\
        spec: {box: {image: debian}, steps: [{name: a, script: 'true'}]}\n---\n\
        {apiVersion: v1, kind: Secret, metadata: {name: keys}, stringData: {api: s3cret}}\n";

    fn told(text: &str, wanted: Option<&str>) -> String {
        let chosen = Project::parse("windlass.yaml", text).and_then(|p| p.choose(wanted, "windlass").map(|c| c.base));
        match chosen {
            Ok(base) => base,
            Err(Stop::Faults(faults)) => faults.iter().map(|fault| fault.render(false)).collect(),
            Err(Stop::ClosedPipe) => String::new(),
        }
    }

    #[test]
    fn a_pipeline_is_chosen_by_its_name() {
        assert_eq!(told(TWO, Some("deploy")), "deploy");
        let missing = told(TWO, Some("bild"));
        let expected = "error[PipelineNotFound]: no pipeline \"bild\" in windlass.yaml (it has build, deploy)\n\
            hint: windlass run build\n";
        assert_eq!(missing, expected);
        assert!(told(TWO, None).contains("holds several: build, deploy"), "{}", told(TWO, None));
        assert_eq!(Project::parse("x", TWO).ok().unwrap().objects.secrets["keys"]["api"], b"s3cret");
    }

    #[test]
    fn a_run_refers_to_a_pipeline_of_the_file() {
        let run = |name: &str| {
            format!(
                "{TWO}---\napiVersion: windlass.dev/v1alpha1\nkind: PipelineRun\nmetadata: {{generateName: go-}}\n\
                spec: {{pipelineRef: {{name: {name}}}}}\n"
            )
        };
        assert_eq!(told(&run("deploy"), None), "go");
        assert!(told(&run("gone"), None).contains("no pipeline \"gone\""));
    }

    #[rstest]
    #[case::field(
        "steps: [{name: a, scirpt: 'true'}]",
        "spec.steps[0].scirpt: there is no such field\n  nothing was started\nhint: did you mean script?"
    )]
    #[case::deep(
        "steps: [{name: a, dockerPush: {repository: x, tgas: [a]}}]",
        "spec.steps[0].dockerPush.tgas: there is no such field"
    )]
    #[case::typed("steps: [{name: a, script: 5}]", "expected a string")]
    #[case::name("steps: [{name: ../x, script: 'true'}]", "steps[0].name \"../x\": expected lower-case")]
    #[case::twice(
        "steps: [{name: a, script: 'true'}], afterSteps: [{name: a, script: 'true'}]",
        "there are two of this name"
    )]
    fn what_a_cluster_would_refuse_is_refused(#[case] steps: &str, #[case] words: &str) {
        let text = format!(
            "apiVersion: windlass.dev/v1alpha1\nkind: Pipeline\nmetadata: {{name: build}}\n\
            spec: {{box: {{image: debian}}, {steps}}}\n"
        );
        let told = told(&text, None);
        assert!(told.contains(words), "{told}");
    }

    #[test]
    fn kinds_of_a_cluster_mean_nothing_here() {
        let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}";
        assert!(told(text, None).contains("means nothing without a cluster"));
    }
}
