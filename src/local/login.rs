//! The user's docker login, for pulls and pushes of local runs.
//!
//! `setup` asks for the login of a pull; [`WithLogins`] gives one to pushes whose step names none.
//!
//! **Invariant:** a login goes to the host that it was made for, as everywhere, and never to the engine for a push. What a
//! step of the pipeline says wins. No value is in an error.

use super::{Objects, workshop::Workshop};
use crate::{
    agent::{
        credentials::values_of,
        line::Line,
        push::{HereWork, Push, Transport},
    },
    api::{PipelineSpec, condition::reason, push::SecretsInImage},
    engine::docker::pulls::PullLogin,
    registry::{
        PushError, Pushed, Repository,
        docker_config::{DockerLogins, HUB_KEY},
    },
};
use futures::future::BoxFuture;

/// The login for a pull, as the engine takes it. A login that cannot be had is left out: most images are public.
pub(super) async fn of_pull(logins: &DockerLogins, image: &str) -> Option<PullLogin> {
    let repository = Repository::of_image(image)?;
    let login = logins.login(&repository).await.ok().flatten()?;
    let token = login.identity_token().map(|token| token.expose().clone());
    Some(PullLogin {
        username: token.is_none().then(|| login.username().to_owned()),
        password: token.is_none().then(|| login.password().expose().clone()),
        identity_token: token,
        server: server(repository.host),
    })
}

/// A login of the pipeline's own for a pull.
pub(super) fn for_pull((username, password): &(String, String), image: &str) -> Option<PullLogin> {
    let host = Repository::of_image(image)?.host;
    Some(PullLogin {
        username: Some(username.clone()),
        password: Some(password.clone()),
        identity_token: None,
        server: server(host),
    })
}

/// What the engine calls a registry.
fn server(host: String) -> String {
    if host == "docker.io" { HUB_KEY.to_owned() } else { host }
}

/// Lets the docker login stand in for Secrets of `credentials` that were not given.
pub(super) fn stand_in(spec: &mut PipelineSpec, objects: &Objects) {
    let steps = spec.steps.iter_mut().chain(&mut spec.after_steps);
    let pushes = steps.flat_map(|step| {
        step.docker_push.iter_mut().chain(step.docker_scratch_push.as_mut().map(|scratch| &mut scratch.push))
    });
    for push in pushes {
        push.credentials.take_if(|credentials| !objects.secrets.contains_key(&credentials.secret_name));
    }
}

/// A transport that logs in as the user where a step says nothing of its own. The runner prints why a push failed, and
/// knows nothing of variables that only log in: they are masked here.
pub(super) struct WithLogins<T> {
    pub(super) inner: T,
    pub(super) logins: DockerLogins,
    pub(super) workshop: Workshop,
}

impl<T: Transport> WithLogins<T> {
    /// The push with the user's login; `None` if it has one, or there is none.
    async fn logged_in(&self, push: &Push) -> Result<Option<Push>, PushError> {
        if push.credentials.is_some() {
            return Ok(None);
        }
        let login = self.logins.login(&push.repository).await;
        let Some(login) = login.map_err(|text| PushError::new(reason::CREDENTIALS_NOT_FOUND, text))? else {
            return Ok(None);
        };
        let mut own = push.clone();
        if own.plan.secrets_in_image != SecretsInImage::Allow {
            own.secrets.extend(values_of(&login));
        }
        own.credentials = Some(login);
        Ok(Some(own))
    }
}

impl<T: Transport> Transport for WithLogins<T> {
    fn push<'a>(&'a self, push: &'a Push, line: &'a Line) -> BoxFuture<'a, Result<Pushed, PushError>> {
        Box::pin(async move {
            let pushed = async {
                let own = self.logged_in(push).await?;
                self.inner.push(own.as_ref().unwrap_or(push), line).await
            };
            pushed.await.map_err(|error| self.workshop.masked(error))
        })
    }

    fn digest_of<'a>(
        &'a self,
        push: &'a Push,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        Box::pin(async move {
            let found = async {
                let own = self.logged_in(push).await?;
                self.inner.digest_of(own.as_ref().unwrap_or(push), tag, line).await
            };
            found.await.map_err(|error| self.workshop.masked(error))
        })
    }

    fn tag_again<'a>(
        &'a self,
        push: &'a Push,
        digest: &'a str,
        tag: &'a str,
        line: &'a Line,
    ) -> BoxFuture<'a, Result<(), PushError>> {
        Box::pin(async move {
            let tagged = async {
                let own = self.logged_in(push).await?;
                self.inner.tag_again(own.as_ref().unwrap_or(push), digest, tag, line).await
            };
            tagged.await.map_err(|error| self.workshop.masked(error))
        })
    }

    fn here<'a>(&'a self, work: &'a HereWork, line: &'a Line) -> BoxFuture<'a, Result<Option<String>, PushError>> {
        Box::pin(self.workshop.carry_out(work, line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::logins;
    use serde_json::json;
    use std::collections::BTreeMap;

    #[test]
    fn the_docker_login_stands_in_for_what_was_not_given() {
        let spec = json!({"box": {"image": "debian"}, "steps": [
            {"name": "a", "dockerPush": {"repository": "a.io/x", "credentials": {"secretName": "given"}}},
            {"name": "b", "dockerScratchPush": {"repository": "a.io/x", "credentials": {"secretName": "missing"}}},
        ]});
        let mut spec: PipelineSpec = serde_json::from_value(spec).unwrap();
        let objects = Objects { secrets: BTreeMap::from([("given".into(), BTreeMap::new())]), ..Objects::default() };
        stand_in(&mut spec, &objects);
        let left: Vec<bool> =
            spec.steps.iter().map(|step| logins::push_of(step).unwrap().credentials.is_some()).collect();
        assert_eq!(left, [true, false]);
    }
}
