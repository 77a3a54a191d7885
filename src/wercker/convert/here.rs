//! One pipeline of a file as a run on this machine: what a Pipeline holds, and what only such a run has beside it.
//!
//! **Invariant:** the steps are those of the conversion for a cluster; only what the machine itself gives is different:
//! variables, files of steps, ports, volumes, logins and the engine.

use super::{
    super::{
        document::{Container, Document, Pipeline, Step, Text},
        environment::Environment,
    },
    Converter, MOST_NAME, Options, slug,
};
use crate::{
    api::here::HereStep,
    steps::expand::{self, ExpandError},
    wire,
    yaml::{Diagnostic, Findings, Span, reason},
};
use std::{collections::BTreeMap, path::PathBuf};

/// What a run on this machine begins with.
#[derive(Clone, Default)]
pub struct Here {
    /// Its variables.
    pub environment: Environment,
    /// Whether it is a deploy, whatever its pipeline is called.
    pub deploys: bool,
    /// Whether images stay on this machine.
    pub docker_local: bool,
    /// The checkpoint whose image the box is made of.
    pub checkpoint: Option<String>,
}

/// A pipeline, and what a run on this machine has beside it.
#[derive(Clone, Default)]
pub struct MadeHere {
    /// The Pipeline as YAML.
    pub yaml: String,
    /// Warnings.
    pub findings: Findings,
    /// Variables that are keys of the Secret of protected ones, though they were not hidden: they log in, or sound so.
    pub protected: Vec<String>,
    /// Keys of a Secret of its own, [`TEXTS`]: texts that hold hidden values.
    pub texts: BTreeMap<String, String>,
    /// Ports and volumes of the box.
    pub of_box: Beside,
    /// Those of services, by their name in the Pipeline.
    pub of_services: BTreeMap<String, Beside>,
    /// Logins for pulls, by image: user name and password.
    pub logins: BTreeMap<String, (String, String)>,
    /// Whether steps get the engine.
    pub docker: bool,
    /// Directories of steps, and where the box has them.
    pub steps: Vec<(PathBuf, String)>,
    /// The image of the box.
    pub image: String,
    /// What steps do instead of what the Pipeline says, by their names.
    pub work: BTreeMap<String, HereStep>,
    /// Images that pushes push in place of the box, by the names of the steps.
    pub built: BTreeMap<String, String>,
}

/// What a container has on this machine only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Beside {
    /// As written: `N`, `H:C`, `IP:H:C`, each with an optional protocol.
    pub ports: Vec<Text>,
    /// Directories of this machine.
    pub volumes: Vec<Volume>,
}

/// A directory of this machine in a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Here: a path, from the project on.
    pub here: String,
    /// In the container.
    pub there: String,
    /// Whether the container may not write to it.
    pub read_only: bool,
}

/// `HERE:THERE`, with `:ro` or `:rw` behind it.
fn volume(text: &str) -> Option<Volume> {
    let mut parts = text.split(':');
    let (here, there) = (parts.next()?, parts.next()?);
    let read_only = match (parts.next(), parts.next()) {
        (None | Some("rw"), None) => false,
        (Some("ro"), None) => true,
        _ => return None,
    };
    let volume = Volume { here: here.to_owned(), there: there.to_owned(), read_only };
    (!here.is_empty() && there.starts_with('/')).then_some(volume)
}

/// Name of the Secret that holds [`MadeHere::texts`].
pub const TEXTS: &str = "wercker-texts";

/// Makes a run of a pipeline, or of a deploy target of it.
///
/// # Errors
/// All that cannot be run, with what to do instead.
pub fn here(
    document: &Document,
    options: &Options,
    pipeline: &Pipeline,
    target: Option<&(Text, Vec<Step>)>,
) -> Result<MadeHere, Findings> {
    let mut converter = Converter::new(document, options);
    let written = &pipeline.name.value;
    let name = slug(written, MOST_NAME, "pipeline");
    let object = converter.object(pipeline, target, &name, written);
    let findings = converter.findings.sorted();
    if findings.has_errors() {
        return Err(findings);
    }
    Ok(MadeHere { yaml: object.yaml(), findings, ..converter.beside })
}

impl Converter<'_> {
    /// Expands a text with what the run begins with; it stays as it is where there is no such run.
    pub(super) fn expand_here(&mut self, text: &str, at: Span) -> String {
        let Some(here) = &self.options.here else { return text.to_owned() };
        let known: BTreeMap<String, String> = expand::variables(text)
            .filter_map(|name| Some((name.to_owned(), here.environment.get(name)?.to_owned())))
            .collect();
        match expand::expand(text, &known) {
            Ok(expanded) => expanded,
            Err(ExpandError::Undefined(name)) => {
                self.undefined(&name, at);
                text.to_owned()
            }
            Err(ExpandError::Malformed(_) | ExpandError::TooLong) => text.to_owned(),
        }
    }

    /// A variable that nothing sets.
    pub(super) fn undefined(&mut self, name: &str, at: Span) {
        let said = format!("the variable {name} is not set");
        let hint =
            format!("set X_{name}, or XXX_{name} if it is secret, or write one of them into the file ENVIRONMENT");
        let found = Diagnostic::error(crate::api::condition::reason::UNDEFINED_VARIABLE, said);
        self.findings.push(found.at(at, "named here").hint(hint));
    }

    /// Whether a text names a variable that is hidden.
    pub(super) fn hides(&self, text: &str) -> bool {
        let hidden =
            |name: &str| self.options.here.as_ref().is_some_and(|here| here.environment.hidden.contains_key(name));
        expand::variables(text).any(hidden)
    }

    /// A key of the run's own Secret that holds a text.
    pub(super) fn hide(&mut self, key: &str, text: String) {
        self.beside.texts.insert(key.to_owned(), text);
    }

    /// Lets a variable be a key of the Secret of protected ones; one that is not set is told.
    pub(super) fn protect(&mut self, name: &str, at: Span) {
        let Some(here) = &self.options.here else { return };
        if here.environment.get(name).is_none() {
            self.undefined(name, at);
        } else {
            self.beside.protected.push(name.to_owned());
        }
    }

    /// Ports and volumes of a container.
    pub(super) fn beside(&mut self, container: &Container) -> Beside {
        let mut volumes = Vec::new();
        for text in &container.volumes {
            let expanded = self.expand_here(&text.value, text.at);
            for volume in expanded.split([' ', ',']).filter(|volume| !volume.is_empty()) {
                if let Some(volume) = self::volume(volume) {
                    volumes.push(volume);
                    continue;
                }
                let said = format!("volumes: {volume:?} is no directory of this machine in the container");
                let found = Diagnostic::error(reason::WRONG_TYPE, said);
                self.findings.push(found.at(text.at, "expected HERE:THERE, or HERE:THERE:ro"));
            }
        }
        Beside { ports: container.ports.clone(), volumes }
    }

    /// The login of an image.
    pub(super) fn login(&mut self, container: &Container, image: &str) {
        let of = |key: &str| container.login.iter().find(|(name, _)| name == key).map(|(_, text)| text.clone());
        let azure = of("azure-client-id").zip(of("azure-client-secret"));
        let Some((user, password)) = azure.or_else(|| of("username").zip(of("password"))) else {
            if !container.login.is_empty() && of("registry").is_none() {
                let said = format!(
                    "{image} is pulled with your docker login: log in first, for AWS with \
                     aws ecr get-login-password | docker login --username AWS --password-stdin REGISTRY"
                );
                self.lost(container.at, &said);
            }
            return;
        };
        let login = (self.expand_here(&user.value, user.at), self.expand_here(&password.value, password.at));
        self.beside.logins.insert(image.to_owned(), login);
    }

    /// Where the box has the files of a step.
    pub(super) fn step_files(&mut self, directory: &std::path::Path) -> String {
        let steps = &mut self.beside.steps;
        if let Some((_, place)) = steps.iter().find(|(known, _)| known == directory) {
            return place.clone();
        }
        let place = format!("{}/{}", wire::STEPS_DIR, steps.len());
        steps.push((directory.to_owned(), place.clone()));
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wercker::read_all;
    use rstest::rstest;

    /// What is made of the first pipeline of a text, or what is said of it.
    fn made(text: &str, hidden: &[(&str, &str)]) -> Result<MadeHere, String> {
        let (document, findings) = read_all(text);
        assert!(!findings.has_errors(), "{:?}", findings.list());
        let hidden = hidden.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Environment { hidden, ..Environment::default() };
        let options = Options { here: Some(Here { environment, ..Here::default() }), ..Options::default() };
        let rendered = |findings: Findings| findings.list().iter().map(|found| found.render("f", text)).collect();
        here(&document, &options, &document.pipelines[0], None).map_err(rendered)
    }

    #[rstest]
    #[case("/a:/b", Some(("/a", "/b", false)))]
    #[case("a/b:/c:ro", Some(("a/b", "/c", true)))]
    #[case("a:/b:rw", Some(("a", "/b", false)))]
    #[case("a:/b:z", None)]
    #[case("a:/b:ro:ro", None)]
    #[case("a:b", None)]
    #[case(":/b", None)]
    #[case("/a", None)]
    fn volumes_are_read(#[case] text: &str, #[case] expected: Option<(&str, &str, bool)>) {
        let text = format!("box:\n  id: debian:12\n  volumes: '{text}'\nbuild:\n  - script: {{code: make}}\n");
        let made = made(&text, &[]);
        match expected {
            Some((here, there, read_only)) => {
                let volume = Volume { here: here.into(), there: there.into(), read_only };
                assert_eq!(made.ok().unwrap().of_box.volumes, [volume]);
            }
            None => assert!(made.err().unwrap().contains("--> f:3:12")),
        }
    }

    #[test]
    fn containers_of_one_line_keep_their_secrets_apart() {
        let text = "box: debian:12\nservices: [{id: a, env: {PW: x$A}}, {id: b, env: {PW: x$B}}]\nbuild:\n  - script: {code: make}\n";
        let made = made(text, &[("A", "1"), ("B", "2")]).ok().unwrap();
        assert_eq!(made.texts.values().collect::<Vec<_>>(), ["x1", "x2"]);
        assert!(made.texts.keys().all(|key| made.yaml.contains(&format!("key: \"{key}\"\n"))), "{}", made.yaml);
    }

    const LOGIN: &str = "username: ci, password: $PW";

    #[rstest]
    #[case("registry: https://quay.io/v2", "team/app:1", "quay.io/team/app:1")]
    #[case("registry: $HOST", "team/app:1", "quay.io/team/app:1")]
    #[case(
        "azure-login-server: team.azurecr.io, azure-client-id: a, azure-client-secret: $PW",
        "app",
        "team.azurecr.io/app"
    )]
    #[case(
        "azure-login-server: t.azurecr.io, azure-client-id: a, azure-client-secret: $PW",
        "t.azurecr.io/app",
        "t.azurecr.io/app"
    )]
    fn a_login_is_for_the_registry_beside_it(#[case] registry: &str, #[case] image: &str, #[case] expected: &str) {
        let login = if registry.starts_with("azure") { "" } else { LOGIN };
        let own = format!("{{id: '{image}', {registry}, {login}}}");
        let text = format!("box: {own}\nservices: [{own}]\nbuild:\n  - script: {{code: make}}\n");
        let made = made(&text, &[("PW", "hunter2"), ("HOST", "https://quay.io")]).unwrap();
        assert_eq!(made.logins.keys().collect::<Vec<_>>(), [expected]);
        assert_eq!(made.yaml.matches(&format!("image: {expected}\n")).count(), 2, "{}", made.yaml);
    }

    #[rstest]
    #[case("ghcr.io/team/app", "quay.io", "registry host \"quay.io\" differs from image host \"ghcr.io\"")]
    #[case("team/app", "quay", "\"quay\" is not a host")]
    fn a_login_for_another_registry_is_refused(#[case] image: &str, #[case] registry: &str, #[case] why: &str) {
        let text = format!("box: {{id: {image}, registry: {registry}, {LOGIN}}}\nbuild:\n  - script: {{code: make}}\n");
        let said = made(&text, &[("PW", "hunter2")]).err().unwrap();
        assert!(said.contains(why), "{said}");
    }

    fn step(properties: &str) -> String {
        format!("box: debian:12\nbuild:\n  - internal/{properties}\n")
    }

    #[test]
    fn a_password_of_a_step_is_a_variable_that_is_protected() {
        let run = step("docker-run: {name: a, image: team/app, registry: quay.io, username: ci, password: $PW}");
        let made = made(&run, &[("PW", "hunter2")]).unwrap();
        let Some(HereStep::DockerRun(run)) = made.work.get("a") else { panic!() };
        assert_eq!(run.registry.as_deref(), Some("quay.io"));
        assert_eq!(run.login, Some(("ci".into(), "$PW".into())));
        assert_eq!(made.protected, ["PW"]);
        assert!(made.yaml.contains("key: PW"), "{}", made.yaml);
    }

    #[rstest]
    #[case("docker-run: {name: a, image: x, username: ci, password: hunter2}", "password must be one variable")]
    #[case("docker-run: {name: a, image: x, username: ci, password: '$PW-1'}", "password must be one variable")]
    #[case("docker-run: {name: a, image: x, password: $PW}", "username and password go together")]
    #[case(
        "docker-build: {image-name: a, registry-auth-config: '{\"q.io\": {\"Username\": \"u\", \"Password\": \"hunter2\"}}'}",
        "Password must be one variable"
    )]
    #[case(
        "docker-build: {image-name: a, registry-auth-config: 'hunter2 $PW'}",
        "neither one variable nor JSON of logins"
    )]
    fn a_password_of_the_file_is_refused_and_not_repeated(#[case] properties: &str, #[case] why: &str) {
        let said = made(&step(properties), &[("PW", "x")]).err().unwrap();
        assert!(said.contains(why), "{said}");
        let said = said.lines().filter(|line| !line.contains(" |")).collect::<String>();
        assert!(!said.contains("hunter2"), "{said}");
    }

    #[test]
    fn what_does_not_count_for_a_built_image_is_told() {
        let made = made(&step("docker-push: {repository: a/b, image-name: app, tag: x, cmd: run, ports: '80'}"), &[]);
        let made = made.ok().unwrap();
        let said: Vec<&str> = made.findings.list().iter().map(|found| found.message.as_str()).collect();
        let does_not = |key: &str| {
            format!("internal/docker-push: {key} does not count: the image of image-name is pushed as it was built")
        };
        assert_eq!(said, [does_not("cmd"), does_not("ports")]);
        assert_eq!(made.built.values().collect::<Vec<_>>(), ["app"]);
        let scratch = super::tests::made(&step("docker-scratch-push: {repository: a/b, image-name: app}"), &[]);
        assert!(scratch.err().unwrap().contains("image-name is for internal/docker-push"));
    }

    #[rstest]
    #[case("$PW")]
    #[case("{\"q.io\": {\"Username\": \"u\", \"Password\": \"$PW\"}}")]
    fn logins_of_a_build_are_variables(#[case] config: &str) {
        let made =
            made(&step(&format!("docker-build: {{image-name: a, registry-auth-config: '{config}'}}")), &[("PW", "x")])
                .unwrap();
        let Some(HereStep::DockerBuild(build)) = made.work.get("docker-build") else { panic!() };
        assert_eq!(build.logins.as_deref(), Some(config));
        assert_eq!(made.protected, ["PW"]);
    }
}
