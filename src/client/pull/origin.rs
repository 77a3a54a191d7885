//! Where the bytes of a stored container come from: the artifact server, by way of the API server, or a registry.
//!
//! **Invariant:** the artifact server is asked with the caller's own rights and by GET only; its place comes from the run's
//! status and is in no message. A registry gets the login of the caller's own Docker.

use crate::{
    api::artifact::{Location, Place, SERVICE},
    client::{
        connect::Cluster,
        exit::Exit,
        fault::{Fault, reason},
    },
    registry::{
        Client, PushError, Repository, Session, Trust, digest::Digest, docker_config::DockerLogins,
        docker_trust::as_docker,
    },
};
use bytes::{Bytes, BytesMut};
use futures::{StreamExt as _, stream::BoxStream};
use http::{Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Bytes that are asked for at one time: a proxy on the way has its own idea of how long an answer may take.
const RANGE: u64 = 16 * 1024 * 1024;
/// Longest silence in an answer.
const IDLE: Duration = Duration::from_secs(60);
/// Largest manifest.
const MAX_MANIFEST: usize = 4 * 1024 * 1024;

/// Bytes, as they come.
pub(super) type Pieces = BoxStream<'static, Result<Bytes, Lost>>;

/// Why bytes did not come.
pub(super) enum Lost {
    /// Another try may go better.
    Again(String),
    /// No other try will.
    For(Box<Fault>),
}

impl Lost {
    fn fault(reason: &'static str, exit: Exit, message: impl Into<String>) -> Self {
        Self::For(Box::new(Fault::new(reason, exit, message)))
    }

    fn gone() -> Self {
        let text = "it is not in the store: it is not kept any more, or was never whole";
        Self::fault(reason::NOT_FOUND, Exit::NotFound, text)
    }
}

/// See the module.
pub(super) enum Origin {
    /// The artifact server.
    Server {
        /// Its cluster.
        cluster: Box<Cluster>,
        /// Path of the place, through the API server's proxy.
        base: String,
    },
    /// A registry.
    Registry(Box<Session>),
}

impl Origin {
    /// The origin that a location names.
    ///
    /// # Errors
    /// A location that this version cannot follow, or a login that cannot be read.
    pub(super) async fn of(cluster: &Cluster, location: &str) -> Result<Self, Fault> {
        let unknown = || {
            let text = "the run says where its container is in words that this version of windlass does not know";
            Fault::new(reason::CLUSTER_ERROR, Exit::World, text)
        };
        match Location::parse(location).ok_or_else(unknown)? {
            Location::Server { namespace, place } => {
                Ok(Self::Server { cluster: Box::new(cluster.clone()), base: proxy_path(&namespace, &place) })
            }
            Location::Registry { repository, .. } => {
                let repository = Repository::parse(&repository, None).map_err(|_| unknown())?;
                let mut trust = Trust::default();
                as_docker(&mut trust, &repository.host).await;
                let bad = |why: String| Fault::new(reason::USAGE, Exit::Usage, why);
                let client = Client::new(trust).map_err(|error| bad(error.to_string()))?;
                let credentials = DockerLogins::read().map_err(bad)?.login(&repository).await.map_err(bad)?;
                Ok(Self::Registry(Box::new(Session::new(client, repository, credentials, CancellationToken::new()))))
            }
        }
    }

    /// The manifest with this digest.
    pub(super) async fn manifest(&self, digest: &Digest) -> Result<Bytes, Lost> {
        let bytes = match self {
            Self::Server { cluster, base } => {
                let response = ask(cluster, &format!("{base}/manifests/{digest}"), None).await?;
                let mut pieces = pieces(response);
                let mut bytes = BytesMut::new();
                while let Some(piece) = pieces.next().await {
                    bytes.extend_from_slice(&piece?);
                    if bytes.len() > MAX_MANIFEST {
                        return Err(mismatch("the manifest is too large"));
                    }
                }
                bytes.freeze()
            }
            Self::Registry(session) => {
                let found = session.get_manifest(digest.as_str()).await.map_err(refused)?;
                found.ok_or_else(Lost::gone)?.1
            }
        };
        if Digest::of(&bytes) == *digest {
            Ok(bytes)
        } else {
            Err(mismatch("the store has another manifest than the run"))
        }
    }

    /// The bytes of a blob from `first` on: all, or as many as are asked for at one time.
    pub(super) async fn blob(&self, digest: &Digest, first: u64, size: u64) -> Result<Pieces, Lost> {
        match self {
            Self::Server { cluster, base } => {
                let last = first.saturating_add(RANGE).min(size).saturating_sub(1);
                let range = format!("bytes={first}-{last}");
                let response = ask(cluster, &format!("{base}/blobs/{digest}"), Some(&range)).await?;
                if response.status() != StatusCode::PARTIAL_CONTENT {
                    return Err(Lost::fault(
                        reason::CLUSTER_ERROR,
                        Exit::World,
                        "the artifact server sends no parts of blobs",
                    ));
                }
                Ok(pieces(response))
            }
            Self::Registry(session) => {
                let read = session.read_blob(digest, first).await.map_err(refused)?;
                Ok(read.ok_or_else(Lost::gone)?.map(|piece| piece.map_err(refused)).boxed())
            }
        }
    }
}

/// What comes is not what the run stored.
pub(super) fn mismatch(text: &str) -> Lost {
    Lost::fault(crate::api::condition::reason::DIGEST_MISMATCH, Exit::World, text)
}

fn proxy_path(namespace: &str, place: &Place) -> String {
    format!("/api/v1/namespaces/{namespace}/services/https:{SERVICE}:https/proxy/v2/{place}")
}

async fn ask(cluster: &Cluster, path: &str, range: Option<&str>) -> Result<Response<Body>, Lost> {
    let mut request = Request::get(path);
    if let Some(range) = range {
        request = request.header(header::RANGE, range);
    }
    let request = request.body(Body::empty());
    let request =
        request.map_err(|_| Lost::fault(reason::CLUSTER_ERROR, Exit::World, "the place of the container is none"))?;
    let answer = tokio::time::timeout(cluster.timeout, cluster.client.send(request)).await;
    let answer = answer.map_err(|_| Lost::Again(format!("no answer from {} in {:?}", cluster.url, cluster.timeout)))?;
    let answer = answer.map_err(|error| Lost::Again(format!("cannot reach {}: {error}", cluster.url)))?;
    let status = answer.status();
    match status {
        _ if status.is_success() => Ok(answer),
        StatusCode::NOT_FOUND => Err(Lost::gone()),
        StatusCode::UNAUTHORIZED => {
            Err(Lost::fault(reason::UNAUTHORIZED, Exit::Denied, "the cluster does not know who you are (401)"))
        }
        StatusCode::FORBIDDEN => Err(Lost::fault(
            reason::FORBIDDEN,
            Exit::Denied,
            "you may not get services/proxy https:windlass-artifacts:https in the namespace of Windlass",
        )),
        _ if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
            Err(Lost::Again(format!("the artifact server does not answer ({})", status.as_u16())))
        }
        _ => Err(Lost::fault(
            reason::CLUSTER_ERROR,
            Exit::World,
            format!("the artifact server answered {}", status.as_u16()),
        )),
    }
}

fn pieces(response: Response<Body>) -> Pieces {
    let body = response.into_body().into_data_stream();
    let read = futures::stream::unfold(Some(body), |state| async move {
        let mut body = state?;
        match tokio::time::timeout(IDLE, body.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), Some(body))),
            Ok(Some(Err(error))) => Some((Err(Lost::Again(format!("the connection broke: {error}"))), None)),
            Err(_) => Some((Err(Lost::Again(format!("nothing came for {}s", IDLE.as_secs()))), None)),
        }
    });
    read.boxed()
}

/// What a registry's refusal means for a person.
fn refused(error: PushError) -> Lost {
    use crate::api::condition::reason as of_step;
    if error.transient {
        return Lost::Again(error.message);
    }
    let exit = match error.reason {
        of_step::REGISTRY_UNAUTHORIZED | of_step::REGISTRY_FORBIDDEN => Exit::Denied,
        _ => Exit::World,
    };
    Lost::fault(error.reason, exit, error.message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_server_is_one_service() {
        let place = Place::parse("team/hello/11-22").unwrap();
        assert_eq!(
            proxy_path("windlass-system", &place),
            "/api/v1/namespaces/windlass-system/services/https:windlass-artifacts:https/proxy/v2/team/hello/11-22"
        );
    }
}
