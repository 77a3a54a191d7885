//! A `wercker.yml` as it is meant, with the place of everything that can be wrong.
//!
//! `read` makes it; `convert` turns it into our own kinds.
//!
//! **Invariant:** data only. What was written is kept as text: nothing is expanded here.

use crate::yaml::{Node, Span};

/// A text and where it stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    /// As written, without quotes.
    pub value: String,
    /// Where.
    pub at: Span,
}

/// The whole file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Document {
    /// The box of pipelines that have none.
    pub box_: Option<Container>,
    /// The services of pipelines that name none.
    pub services: Vec<Container>,
    /// Longest time of a command, in minutes.
    pub command_timeout: Option<(u32, Span)>,
    /// Longest time without output, in minutes.
    pub no_response_timeout: Option<(u32, Span)>,
    /// Directory below the source where steps start.
    pub source_dir: Option<Text>,
    /// File of patterns that are not copied.
    pub ignore_file: Option<Text>,
    /// In the order of the file.
    pub pipelines: Vec<Pipeline>,
    /// In the order of the file.
    pub workflows: Vec<Workflow>,
}

/// A box or a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// Where it begins.
    pub at: Span,
    /// The image, its tag included.
    pub id: Text,
    /// Host name of a service.
    pub name: Option<Text>,
    /// Wins over the tag of `id`.
    pub tag: Option<Text>,
    /// Words, if it is a list; else one text that is split into words.
    pub cmd: Option<Command>,
    /// As `cmd`.
    pub entrypoint: Option<Command>,
    /// Names, in capitals as Wercker makes them, and values.
    pub env: Vec<(Text, Text)>,
    /// As written: `N`, `H:C`, `IP:H:C`, each with an optional protocol.
    pub ports: Vec<Text>,
    /// As written: `host:container`.
    pub volumes: Vec<Text>,
    /// A pipeline whose result is the service: `file://path#pipeline`.
    pub url: Option<Text>,
    /// All keys that log in to a registry, by their name.
    pub login: Vec<(String, Text)>,
}

/// `cmd` or `entrypoint`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    /// Split into words.
    pub words: Vec<String>,
    /// Where.
    pub at: Span,
}

/// A pipeline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pipeline {
    /// Its key.
    pub name: Text,
    /// Its own box.
    pub box_: Option<Container>,
    /// Its own services; they replace those of the file.
    pub services: Option<Vec<Container>>,
    /// What runs.
    pub steps: Vec<Step>,
    /// Other lists of steps, chosen by `--deploy-target`.
    pub targets: Vec<(Text, Vec<Step>)>,
    /// What runs at the end, after success and failure.
    pub after_steps: Vec<Step>,
    /// Where the source is put.
    pub base_path: Option<Text>,
    /// `docker: true`: the engine's socket in the box.
    pub docker: Option<Span>,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Where its id stands.
    pub at: Span,
    /// Who made it; `wercker` if none is named. `internal` for those of Wercker itself.
    pub owner: String,
    /// Its name without owner and version.
    pub id: String,
    /// `file://…` or `https://…`, where the id has one.
    pub url: Option<String>,
    /// `name`: what people see.
    pub name: Option<Text>,
    /// `cwd`.
    pub cwd: Option<Text>,
    /// `checkpoint`.
    pub checkpoint: Option<Text>,
    /// All other keys, in order.
    pub properties: Vec<Property>,
}

/// A property of a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its key.
    pub name: Text,
    /// Its value.
    pub value: Node,
}

/// A workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workflow {
    /// Its name.
    pub name: Text,
    /// Its pipelines, in an order in which they can run.
    pub nodes: Vec<WorkflowNode>,
}

/// A pipeline in a workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkflowNode {
    /// Its name in the workflow.
    pub name: Text,
    /// The pipeline that it runs.
    pub pipeline: Text,
    /// Names of the nodes that come before.
    pub requires: Vec<Text>,
    /// Whose output it begins with.
    pub artifact: Option<Text>,
    /// A file of variables.
    pub env_file: Option<Text>,
}

impl Step {
    /// The id as written, without version and address.
    #[must_use]
    pub fn full_id(&self) -> String {
        if self.owner == "wercker" { self.id.clone() } else { format!("{}/{}", self.owner, self.id) }
    }

    /// The value of a property.
    #[must_use]
    pub fn property(&self, name: &str) -> Option<&Property> {
        self.properties.iter().find(|property| property.name.value == name)
    }

    /// The text of a property.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<Text> {
        let value = &self.property(name)?.value;
        value.text().map(|text| Text { value: text.to_owned(), at: value.at })
    }

    /// What people see of it.
    #[must_use]
    pub fn title(&self) -> String {
        self.name.as_ref().map_or_else(|| self.full_id(), |name| name.value.clone())
    }

    /// Whether it is one of Wercker's own.
    #[must_use]
    pub fn is_internal(&self) -> bool {
        self.owner == "internal"
    }

    /// Whether it is shell code written in the file.
    #[must_use]
    pub fn is_script(&self) -> bool {
        self.id == "script" && self.owner == "wercker"
    }
}

impl Pipeline {
    /// What of it can be run: its own steps, if it has any, and each of its targets.
    pub fn turns(&self) -> impl Iterator<Item = Option<&(Text, Vec<Step>)>> {
        let own = !self.steps.is_empty() || self.targets.is_empty();
        own.then_some(None).into_iter().chain(self.targets.iter().map(Some))
    }
}

impl Document {
    /// A pipeline by its name.
    #[must_use]
    pub fn pipeline(&self, name: &str) -> Option<&Pipeline> {
        self.pipelines.iter().find(|pipeline| pipeline.name.value == name)
    }

    /// All steps of all pipelines, after-steps and targets included.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.pipelines.iter().flat_map(|pipeline| {
            let targets = pipeline.targets.iter().flat_map(|(_, steps)| steps);
            pipeline.steps.iter().chain(targets).chain(&pipeline.after_steps)
        })
    }
}
