//! Says each request and its answer, for `-vv`.
//!
//! `connect` puts it around the client. **Invariant:** the line of the request and the status only: no headers, no
//! bodies, and no place of a stored container.

use super::screen;
use crate::api::artifact::without_places;
use http::{Request, Response};
use kube::client::Body;
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Instant,
};
use tower::{Layer, Service};

/// See the module.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trace;

/// A client whose requests are said.
#[derive(Clone, Debug)]
pub(super) struct Traced<S>(S);

impl<S> Layer<S> for Trace {
    type Service = Traced<S>;

    fn layer(&self, inner: S) -> Traced<S> {
        Traced(inner)
    }
}

impl<S, B> Service<Request<Body>> for Traced<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        let line = format!("{} {}", request.method(), without_places(path));
        let began = Instant::now();
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = answer.await;
            let status = match &answer {
                Ok(response) => response.status().as_u16().to_string(),
                Err(_) => "no answer".into(),
            };
            screen::error(&format!("* {line} {status} {}ms\n", began.elapsed().as_millis()));
            answer
        })
    }
}
