//! Build numbers: they rise per Pipeline, inline runs per namespace; gaps happen, numbers never return.
//!
//! Counters live in the controller's own namespace, one ConfigMap per user namespace, so that a Pipeline
//! deleted and made again goes on counting, and no right on users' ConfigMaps is needed.
//!
//! **Invariant:** a number is stored as taken before it is given out; two takers never get the same.

use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use std::collections::BTreeMap;

/// Key of the runs without a Pipeline; no Pipeline can have this name.
const INLINE: &str = "_inline";
/// Takers of the same counter at one time, at most.
const TRIES: usize = 20;

/// A number could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server did not do it.
    #[error("failed to take a build number")]
    Api(#[source] kube::Error),
    /// Too many takers at one time.
    #[error("failed to take a build number: {TRIES} others were faster")]
    Contended,
}

/// Takes the next number.
///
/// # Errors
/// See [`Error`]; no number is taken then.
pub async fn next(client: &Client, own_namespace: &str, namespace: &str, pipeline: Option<&str>) -> Result<i64, Error> {
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), own_namespace);
    let name = format!("build-numbers-{namespace}");
    let key = pipeline.unwrap_or(INLINE);
    for _ in 0..TRIES {
        let found = api.get_opt(&name).await.map_err(Error::Api)?;
        let exists = found.is_some();
        let (counters, number) = increment(found.unwrap_or_else(|| empty(&name)), key);
        let result = if exists {
            api.replace(&name, &PostParams::default(), &counters).await
        } else {
            api.create(&PostParams::default(), &counters).await
        };
        match result {
            Ok(_) => return Ok(number),
            Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {}
            Err(error) => return Err(Error::Api(error)),
        }
    }
    Err(Error::Contended)
}

fn empty(name: &str) -> ConfigMap {
    let labels = BTreeMap::from([("app.kubernetes.io/part-of".to_owned(), "windlass".to_owned())]);
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), labels: Some(labels), ..Default::default() },
        ..Default::default()
    }
}

/// The counters with `key` one higher, and its new value. The object keeps its version: that is the lock.
fn increment(mut counters: ConfigMap, key: &str) -> (ConfigMap, i64) {
    let data = counters.data.get_or_insert_default();
    let number = data.get(key).and_then(|n| n.parse::<i64>().ok()).unwrap_or(0) + 1;
    data.insert(key.to_owned(), number.to_string());
    (counters, number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_apart_and_keep_the_version() {
        let mut map = empty("c");
        map.metadata.resource_version = Some("5".into());
        let (map, one) = increment(map, "a");
        let (map, two) = increment(map, "a");
        let (map, other) = increment(map, INLINE);
        assert_eq!((one, two, other), (1, 2, 1));
        assert_eq!(map.metadata.resource_version.as_deref(), Some("5"));
    }
}
