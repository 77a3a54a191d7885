//! Steps of a run on one machine: what their properties ask for.
//!
//! `local` calls [`build`] and [`run`] with the environment of the step.
//!
//! **Invariant:** as that of the folder. No message repeats what a variable holds.

use super::{
    StepError,
    expand::{self, ExpandError},
};
use crate::{
    api::{
        condition::reason,
        here::{DockerBuild, DockerRun},
    },
    registry::reference,
};
use serde::Deserialize;
use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
};

/// A build, with all variables expanded. Without `Debug`, as arguments may be secret.
pub struct BuildPlan {
    /// What the run calls the image.
    pub image_name: String,
    /// The file, below the context.
    pub dockerfile: String,
    /// Arguments.
    pub build_args: BTreeMap<String, String>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// `NAME:address`.
    pub extra_hosts: Vec<String>,
    /// Logins for pulls, by registry: user name and password.
    pub logins: BTreeMap<String, (String, String)>,
}

/// A container, with all variables expanded.
pub struct RunPlan {
    /// What a build of the run called the image, if one made it.
    pub image_name: String,
    /// The image otherwise, with its registry.
    pub image: String,
    /// Replaces the image's own.
    pub entrypoint: Vec<String>,
    /// Replaces the image's own.
    pub cmd: Vec<String>,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// Where it starts.
    pub working_dir: Option<String>,
    /// Who it is.
    pub user: Option<String>,
    /// For the pull.
    pub login: Option<(String, String)>,
}

/// A login of `registry-auth-config`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Login {
    #[serde(alias = "username")]
    username: String,
    #[serde(alias = "password")]
    password: String,
}

/// What an image that a run built is called in the run: the name of a commit.
#[must_use]
pub fn built(image_name: &str) -> String {
    let mut hasher = DefaultHasher::new();
    image_name.hash(&mut hasher);
    format!("built-{:016x}", hasher.finish())
}

/// The `image-name` of a push.
///
/// # Errors
/// `UndefinedVariable` or `InvalidProperty`.
pub fn image_name(text: &str, env: &BTreeMap<String, String>) -> Result<String, StepError> {
    expanded("image-name", text, env)
}

/// Reads a build.
///
/// # Errors
/// `UndefinedVariable` or `InvalidProperty`.
pub fn build(step: &DockerBuild, env: &BTreeMap<String, String>) -> Result<BuildPlan, StepError> {
    let one = |property: &str, text: &str| expanded(property, text, env);
    let image_name = image_name(&step.image_name, env)?;
    if image_name.trim().is_empty() {
        return Err(wrong("image-name holds nothing".into()));
    }
    let dockerfile = step.dockerfile.as_deref().map(|file| one("dockerfile", file)).transpose()?;
    let logins = step.logins.as_deref().map(|text| logins(text, env)).transpose()?.unwrap_or_default();
    Ok(BuildPlan {
        image_name,
        dockerfile: dockerfile.filter(|file| !file.is_empty()).unwrap_or_else(|| "Dockerfile".into()),
        build_args: pairs("build-args", &step.build_args, env)?,
        labels: pairs("labels", &step.labels, env)?,
        extra_hosts: all("extra-hosts", &step.extra_hosts, env)?,
        logins,
    })
}

/// The passwords that stand in a `registry-auth-config`, as they are written; `None` if it is no such JSON.
#[must_use]
pub fn passwords(text: &str) -> Option<Vec<String>> {
    Some(read_logins(text)?.into_values().map(|login| login.password).collect())
}

fn read_logins(text: &str) -> Option<BTreeMap<String, Login>> {
    // The parser's own message may quote a password.
    serde_json::from_str(text).ok()
}

/// The logins of a `registry-auth-config`: one variable that holds all of it, or JSON with variables in it. Neither is
/// expanded twice, and what a password holds cannot break the JSON.
fn logins(text: &str, env: &BTreeMap<String, String>) -> Result<BTreeMap<String, (String, String)>, StepError> {
    const PROPERTY: &str = "registry-auth-config";
    let no_logins = || wrong(format!("{PROPERTY}: expected {{\"REGISTRY\": {{\"Username\": …, \"Password\": …}}}}"));
    if expand::sole_variable(text).is_some() {
        let read = read_logins(&expanded(PROPERTY, text, env)?).ok_or_else(no_logins)?;
        return Ok(read.into_iter().map(|(host, login)| (host, (login.username, login.password))).collect());
    }
    let one = |(host, login): (String, Login)| {
        Ok((host, (expanded(PROPERTY, &login.username, env)?, expanded(PROPERTY, &login.password, env)?)))
    };
    read_logins(text).ok_or_else(no_logins)?.into_iter().map(one).collect()
}

/// Reads a container.
///
/// # Errors
/// `UndefinedVariable` or `InvalidProperty`.
pub fn run(step: &DockerRun, env: &BTreeMap<String, String>) -> Result<RunPlan, StepError> {
    let one = |property: &str, text: &str| expanded(property, text, env);
    let image = one("image", &step.image)?;
    if image.trim().is_empty() {
        return Err(wrong("image holds nothing".into()));
    }
    let login = step.login.as_ref().map(|(user, password)| Ok((one("username", user)?, one("password", password)?)));
    let registry = step.registry.as_deref().map(|registry| one("registry", registry)).transpose()?;
    let on_registry = reference::image_on(&image, registry.as_deref().unwrap_or_default());
    Ok(RunPlan {
        image: on_registry.map_err(|error| StepError::new(error.reason(), error.to_string()))?,
        image_name: image,
        entrypoint: all("entrypoint", &step.entrypoint, env)?,
        cmd: all("cmd", &step.cmd, env)?,
        env: pairs("env", &step.env, env)?.into_iter().map(|(name, value)| format!("{name}={value}")).collect(),
        working_dir: step.working_dir.as_deref().map(|dir| one("working-dir", dir)).transpose()?,
        user: step.user.as_deref().map(|user| one("user", user)).transpose()?,
        login: login.transpose()?,
    })
}

fn wrong(message: String) -> StepError {
    StepError::new(reason::INVALID_PROPERTY, message)
}

fn expanded(property: &str, text: &str, env: &BTreeMap<String, String>) -> Result<String, StepError> {
    expand::expand(text, env).map_err(|error| match error {
        ExpandError::Undefined(name) => {
            StepError::new(reason::UNDEFINED_VARIABLE, format!("{property}: ${name} is not set"))
        }
        ExpandError::Malformed(at) => wrong(format!("{property}: at character {at}: ${{ is not ${{NAME}}")),
        ExpandError::TooLong => wrong(format!("{property}: longer than {} bytes", expand::MAX_EXPANDED_BYTES)),
    })
}

fn all(property: &str, texts: &[String], env: &BTreeMap<String, String>) -> Result<Vec<String>, StepError> {
    texts.iter().map(|text| expanded(property, text, env)).collect()
}

fn pairs(
    property: &str,
    texts: &[String],
    env: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, StepError> {
    let one = |text: &String| {
        let (name, value) = text
            .split_once('=')
            .filter(|(name, _)| !name.is_empty())
            .ok_or_else(|| wrong(format!("{property}: {text:?} is not NAME=value")))?;
        Ok((expanded(property, name, env)?, expanded(property, value, env)?))
    };
    texts.iter().map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn env() -> BTreeMap<String, String> {
        [("TAG", "1.4"), ("PW", "hunter2")].map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn properties_are_expanded_once_they_are_apart() {
        let step = DockerBuild {
            image_name: "app:$TAG".into(),
            build_args: vec!["VERSION=$TAG".into(), "EQUALS=a=b".into()],
            logins: Some(r#"{"quay.io": {"Username": "ci", "Password": "$PW"}}"#.into()),
            ..DockerBuild::default()
        };
        let plan = build(&step, &env()).ok().unwrap();
        assert_eq!((plan.image_name.as_str(), plan.dockerfile.as_str()), ("app:1.4", "Dockerfile"));
        assert_eq!(plan.build_args["VERSION"], "1.4");
        assert_eq!(plan.build_args["EQUALS"], "a=b");
        assert_eq!(plan.logins["quay.io"], ("ci".to_owned(), "hunter2".to_owned()));
        assert_eq!(built("app"), built("app"));
        assert_ne!(built("app"), built("App"));
    }

    #[test]
    fn a_login_goes_to_the_registry_that_is_named() {
        let login = Some(("ci".to_owned(), "$PW".to_owned()));
        let step = DockerRun {
            image: "team/app:$TAG".into(),
            registry: Some("https://quay.io".into()),
            login,
            ..DockerRun::default()
        };
        let plan = run(&step, &env()).ok().unwrap();
        assert_eq!((plan.image_name.as_str(), plan.image.as_str()), ("team/app:1.4", "quay.io/team/app:1.4"));
        assert_eq!(plan.login, Some(("ci".into(), "hunter2".into())));
        let elsewhere = DockerRun { image: "ghcr.io/team/app".into(), ..step };
        let error = run(&elsewhere, &env()).err().unwrap();
        let message = "registry host \"quay.io\" differs from repository host \"ghcr.io\"";
        assert_eq!((error.reason, error.message.as_str()), (reason::REGISTRY_MISMATCH, message));
    }

    #[test]
    fn no_password_breaks_the_json_around_it() {
        let mut env = env();
        env.insert("PW".into(), "a\"$b".into());
        env.insert("ALL".into(), r#"{"quay.io": {"username": "ci", "password": "x$y"}}"#.into());
        let of = |text: &str| {
            let step = DockerBuild { image_name: "a".into(), logins: Some(text.into()), ..DockerBuild::default() };
            build(&step, &env).ok().unwrap().logins.remove("quay.io").unwrap().1
        };
        assert_eq!(of(r#"{"quay.io": {"Username": "ci", "Password": "$PW"}}"#), "a\"$b");
        assert_eq!(of("$ALL"), "x$y");
    }

    #[rstest]
    #[case(DockerBuild { image_name: "$GONE".into(), ..DockerBuild::default() }, reason::UNDEFINED_VARIABLE, "image-name: $GONE is not set")]
    #[case(DockerBuild { image_name: " ".into(), ..DockerBuild::default() }, reason::INVALID_PROPERTY, "image-name holds nothing")]
    #[case(
        DockerBuild { image_name: "a".into(), labels: vec!["x".into()], ..DockerBuild::default() },
        reason::INVALID_PROPERTY,
        "labels: \"x\" is not NAME=value"
    )]
    fn what_is_wrong_is_named(#[case] step: DockerBuild, #[case] why: &str, #[case] message: &str) {
        let error = build(&step, &env()).err().unwrap();
        assert_eq!((error.reason, error.message.as_str()), (why, message));
        let login =
            DockerBuild { image_name: "a".into(), logins: Some("{\"x\": \"$PW\"".into()), ..DockerBuild::default() };
        assert!(!build(&login, &env()).err().unwrap().message.contains("hunter2"));
    }
}
