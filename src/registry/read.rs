//! Reads blobs of a repository.
//!
//! `windlass pull` fetches stored containers with it.
//!
//! **Invariant:** a login goes to the registry only; where that sends us for the bytes, none does. Who reads checks the
//! digest.

use super::{client::full, digest::Digest, error::PushError, session::Session};
use crate::api::condition::reason;
use bytes::Bytes;
use futures::{StreamExt as _, stream, stream::BoxStream};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

/// How often a registry may send us elsewhere for a blob.
const MAX_REDIRECTS: usize = 3;

impl Session {
    /// The bytes of a blob from `first` on, as they come; `None` if it is not there.
    ///
    /// # Errors
    /// The registry refuses or is away.
    pub async fn read_blob(
        &self,
        digest: &Digest,
        first: u64,
    ) -> Result<Option<BoxStream<'static, Result<Bytes, PushError>>>, PushError> {
        let mut url = self.blob_url(digest)?;
        let mut ours = true;
        for _ in 0..=MAX_REDIRECTS {
            let response = self.ask_for_blob(&url, first, ours).await?;
            match response.status() {
                StatusCode::NOT_FOUND => return Ok(None),
                StatusCode::PARTIAL_CONTENT => return Ok(Some(self.bytes(response, 0))),
                // It does not do ranges: what is there already comes again.
                StatusCode::OK => return Ok(Some(self.bytes(response, first))),
                status if status.is_redirection() => {
                    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
                    let next = location.and_then(|location| url.join(location).ok());
                    let next = next.filter(|next| next.username().is_empty() && next.password().is_none());
                    let lost =
                        || PushError::new(reason::REGISTRY_REFUSED, "the registry does not say where the blob is");
                    url = next.ok_or_else(lost)?;
                    ours = false;
                }
                _ => return Err(self.refused(response).await?),
            }
        }
        Err(PushError::new(reason::REGISTRY_REFUSED, "the registry sends us from place to place for a blob"))
    }

    async fn ask_for_blob(&self, url: &url::Url, first: u64, ours: bool) -> Result<Response<Incoming>, PushError> {
        let mut renewed = !ours;
        loop {
            let mut request = Request::new(full(Bytes::new()));
            *request.method_mut() = Method::GET;
            if first > 0 {
                let range = HeaderValue::from_str(&format!("bytes={first}-"));
                request.headers_mut().extend(range.ok().map(|range| (header::RANGE, range)));
            }
            let login = if ours { Some(self.authorize(&mut request).await?) } else { None };
            let response = self.client().send(url, request, self.client().patience().answer).await?;
            match login {
                Some(login) if response.status() == StatusCode::UNAUTHORIZED && !renewed => {
                    renewed = true;
                    self.renew_by(login, response).await?;
                }
                _ => return Ok(response),
            }
        }
    }

    /// The body without its first bytes; a silence is an error.
    fn bytes(&self, response: Response<Incoming>, skip: u64) -> BoxStream<'static, Result<Bytes, PushError>> {
        let (idle, host) = (self.client().patience().idle, self.repository().host.clone());
        let pieces = stream::unfold(Some((response.into_body(), skip)), move |state| {
            let host = host.clone();
            async move {
                let (mut body, mut skip) = state?;
                let away = |what: String| PushError::transient(reason::REGISTRY_UNREACHABLE, format!("{host} {what}"));
                loop {
                    let frame = match timeout(idle, body.frame()).await {
                        Ok(None) => return None,
                        Ok(Some(Ok(frame))) => frame,
                        Ok(Some(Err(error))) => return Some((Err(away(format!("broke off: {error}"))), None)),
                        Err(_) => return Some((Err(away(format!("sent nothing for {}s", idle.as_secs()))), None)),
                    };
                    let Ok(mut data) = frame.into_data() else { continue };
                    let over = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
                    skip -= over as u64;
                    let rest = data.split_off(over);
                    if !rest.is_empty() {
                        return Some((Ok(rest), Some((body, skip))));
                    }
                }
            }
        });
        pieces.boxed()
    }
}
