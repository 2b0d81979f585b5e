//! The keys `.` and `..`: ordinary keys to Cairn, but every spelling of them, `%2E%2E` too, is a step through the path
//! to the URL standard, and `reqwest::Url` takes the step. So these two go out through hyper, below the URLs.

use std::time::Duration;

use cairn_api_spec::{Operation, name::encode_key, operation::Action};
use http::{Uri, uri::PathAndQuery};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use reqwest::{
    Body, Method, Response,
    header::{CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH},
};

use crate::{
    error::{Failure, chain},
    generated::{PLACEHOLDER, of_a_server},
    parameters::{Parameters, content_type, increment, ttl},
};

/// Whether a key needs this.
pub(crate) fn needed(key: &str) -> bool {
    matches!(key, "." | "..")
}

#[derive(Clone, Debug)]
pub(crate) struct DotClient(Client<HttpConnector, Body>);

impl DotClient {
    pub(crate) fn new(connect_timeout: Duration) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(connect_timeout));
        connector.set_nodelay(true);
        Self(Client::builder(TokioExecutor::new()).build(connector))
    }

    /// Sends an operation; the caller has the deadline.
    pub(crate) async fn send(
        &self,
        client: &reqwest::Client,
        base: &str,
        operation: &Operation,
    ) -> Result<Response, Failure> {
        let unsent = |error: &dyn std::error::Error| Failure::Unsent(chain(error));
        let request = build(client, base, operation)?;
        let mut request = http::Request::<Body>::try_from(request).map_err(|error| unsent(&error))?;
        *request.uri_mut() = with_key(request.uri(), operation.name.key()).map_err(|error| unsent(&error))?;
        match self.0.request(request).await {
            Ok(response) => of_a_server(Response::from(response.map(Body::wrap)))
                .map_err(|error| Failure::Broken(chain(&error.without_url()))),
            Err(error) if error.is_connect() => Err(unsent(&error)),
            Err(error) => Err(Failure::Broken(chain(&error))),
        }
    }
}

fn build(client: &reqwest::Client, base: &str, operation: &Operation) -> Result<reqwest::Request, Failure> {
    let Parameters { bucket, consistency, durability, idempotency_key, if_match, if_none_match } =
        Parameters::of(operation);
    let (method, resource) = match &operation.action {
        Action::Get => (Method::GET, "keys"),
        Action::Head => (Method::HEAD, "keys"),
        Action::Put(_) => (Method::PUT, "keys"),
        Action::Delete { .. } => (Method::DELETE, "keys"),
        Action::Increment { .. } => (Method::POST, "counters"),
        Action::Explain => (Method::GET, "explain"),
    };
    let mut request = client.request(method, format!("{base}/{resource}/{PLACEHOLDER}"));
    request = request.query(&[("bucket", bucket)]).query(&[("durability", durability)]);
    request = request.query(&[("consistency", consistency)]);
    if let Some(key) = idempotency_key {
        request = request.header("idempotency-key", key);
    }
    if let Some(trace) = operation.trace {
        request = request.header("traceparent", trace.to_string());
    }
    if let Some(condition) = if_match {
        request = request.header(IF_MATCH, condition);
    }
    if let Some(condition) = if_none_match {
        request = request.header(IF_NONE_MATCH, condition);
    }
    match &operation.action {
        Action::Put(put) => {
            let content_type = content_type(put).map_err(|error| Failure::Unsent(error.to_string()))?;
            request = request.query(&[("ttl", ttl(put.ttl))]).body(put.value.clone());
            if let Some(content_type) = content_type {
                request = request.header(CONTENT_TYPE, content_type);
            }
        }
        Action::Increment { delta, ttl, .. } => request = request.json(&increment(*delta, *ttl)),
        Action::Get | Action::Head | Action::Delete { .. } | Action::Explain => {}
    }
    request.build().map_err(|error| Failure::Unsent(chain(&error)))
}

/// The same URI with the key in place of the placeholder.
fn with_key(uri: &Uri, key: &str) -> Result<Uri, http::Error> {
    let prefix = uri.path().strip_suffix(PLACEHOLDER).unwrap_or(uri.path());
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path: PathAndQuery = format!("{prefix}{}{query}", encode_key(key)).parse()?;
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(path);
    Ok(Uri::from_parts(parts)?)
}
