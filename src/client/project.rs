//! Our own kinds in a file of this machine: which pipeline is run, and what else the file says.
//!
//! `here` uses it. **Invariant:** what `check` refuses is refused, in the same words; nothing of a Secret is quoted.

use super::{
    check::{Input, kinds},
    convert,
    exit::Exit,
    fault::{Fault, Stop, nearest, reason},
    manifest,
};
use crate::{
    api::{GROUP, Pipeline, PipelineRun, PipelineRunSpec, VERSION, condition::reason as run_reason},
    local::Objects,
    yaml::{self, Diagnostic, Severity},
};
use serde_json::Value;
use std::path::{Path, PathBuf};

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

/// The project file of this directory, if it has one: ours first, as it may have been made of a `wercker.yml` beside it.
pub(super) fn find() -> Option<PathBuf> {
    FILES.iter().chain(&convert::NAMES).map(PathBuf::from).find(|path| path.is_file())
}

/// The directory that a file stands for: where it is. What is no file, as a pipe of the shell, is nowhere, and stands
/// for the current one.
pub(super) fn directory_of(file: &Path) -> &Path {
    let beside = file.parent().filter(|directory| file.is_file() && !directory.as_os_str().is_empty());
    beside.unwrap_or(Path::new("."))
}

impl Project {
    /// Reads what a file holds.
    ///
    /// # Errors
    /// What is wrong with it, by path.
    pub(super) fn of(input: &Input) -> Result<Self, Stop> {
        Self::parse(input.name.strip_prefix("./").unwrap_or(&input.name), &input.text)
    }

    fn parse(file: &str, text: &str) -> Result<Self, Stop> {
        refuse(file, text)?;
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
        no_pipeline(name, &self.file, &self.names(), program)
    }
}

/// A pipeline that a project's file does not have.
pub(super) fn no_pipeline(name: &str, file: &str, names: &[&str], program: &str) -> Stop {
    missing("pipeline", name, file, names, &format!("{program} run"))
}

/// What a project's file does not have; `verb` runs one of those that it has.
pub(super) fn missing(what: &str, name: &str, file: &str, names: &[&str], verb: &str) -> Stop {
    let has = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let message = format!("no {what} {name:?} in {file} (it has {has})");
    let fault = Fault::new(run_reason::PIPELINE_NOT_FOUND, Exit::NotFound, message);
    let only = match names {
        [only] => Some(*only),
        _ => None,
    };
    match nearest(name, names.iter().copied()).or(only) {
        Some(meant) => fault.hint(format!("{verb} {meant}")),
        None => fault,
    }
    .into()
}

/// A run of a pipeline.
pub(super) fn of_pipeline(pipeline: &Pipeline) -> Chosen {
    let name = pipeline.metadata.name.clone();
    let spec = PipelineRunSpec {
        pipeline_spec: Some(pipeline.spec.clone()),
        breakpoint_timeout: "30m".into(),
        ..PipelineRunSpec::default()
    };
    Chosen { base: name.clone().unwrap_or_else(|| "run".into()), pipeline: name, spec }
}

/// Refuses what `check` refuses, in its words.
fn refuse(file: &str, text: &str) -> Result<(), Stop> {
    let (findings, _) = kinds::judge(text);
    let errors = findings.list().iter().filter(|found| found.severity == Severity::Error);
    let mut faults: Vec<Fault> = errors.map(|found| fault(found, file, text)).collect();
    match faults.last_mut() {
        Some(last) => {
            last.notes.push("nothing was started".into());
            Err(Stop::Faults(faults))
        }
        None => Ok(()),
    }
}

fn fault(found: &Diagnostic, file: &str, text: &str) -> Fault {
    let place = Diagnostic { hint: None, ..found.clone() }.details(file, text);
    // A note is indented, as the arrow is already.
    let notes = place.lines().map(|line| line.strip_prefix("  -->").map_or(line.to_owned(), |at| format!("-->{at}")));
    let notes = notes.collect();
    let hint = found.hint.as_deref().map(yaml::clean);
    Fault { notes, hint, ..Fault::new(found.reason, Exit::Usage, yaml::clean(&found.message)) }
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
        "steps: [{name: a, script: 'true', cwb: x}]",
        "error[UnknownKey]: spec.steps[0]: no such key: cwb\n  --> windlass.yaml:4:64\n  4 | spec: {box: {image: debian}, \
         steps: [{name: a, script: 'true', cwb: x}]}\n    |                                                                ^^^ \
         did you mean cwd?\n  nothing was started\n"
    )]
    #[case::deep(
        "steps: [{name: a, dockerPush: {repository: x, tgas: [a]}}]",
        "spec.steps[0].dockerPush: no such key: tgas"
    )]
    #[case::typed("steps: [{name: a, script: 5}]", "expected text; quote it")]
    #[case::name("steps: [{name: ../x, script: 'true'}]", "spec.steps[0].name \"../x\" cannot be a name")]
    #[case::twice(
        "steps: [{name: a, script: 'true'}], afterSteps: [{name: a, script: 'true'}]",
        "spec.afterSteps[0].name \"a\" stands twice"
    )]
    #[case::meaning(
        "steps: [{name: a, dockerPush: {repository: 'A B'}}]",
        "error[InvalidProperty]: steps[0].dockerPush"
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
    fn a_file_is_quoted_in_few_words() {
        let told = told(&TWO.replacen("name: a,", &format!("name: {},", "S".repeat(900_000)), 1), None);
        assert!(told.starts_with("error[WrongType]: ") && told.len() < 6000, "{} bytes", told.len());
    }

    #[test]
    fn kinds_of_a_cluster_mean_nothing_here() {
        let text = "{apiVersion: apps/v1, kind: Deployment, metadata: {name: x}}";
        assert!(told(text, None).contains("means nothing without a cluster"));
    }
}
