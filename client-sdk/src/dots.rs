//! The keys `.` and `..`: ordinary keys to Cairn, but every spelling of them, `%2E%2E` too, is a step through the path
//! to the URL standard, and `reqwest::Url` takes the step. So these two go out through hyper, below the URLs.

use std::time::Duration;

use cairn_api_spec::{
    Operation,
    data::Increment,
    name::encode_key,
    operation::Action,
    request::{Parameters, method_and_resource},
};
use http::{Uri, uri::PathAndQuery};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use reqwest::{Body, Method, Response};

use crate::{
    error::{Failure, chain},
    generated::{PLACEHOLDER, of_a_server},
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
    let (parameters, (method, resource)) = (Parameters::of(operation), method_and_resource(&operation.action));
    let method = Method::from_bytes(method.as_bytes()).map_err(|error| Failure::Unsent(chain(&error)))?;
    let mut request = client.request(method, format!("{base}{resource}{PLACEHOLDER}"));
    for (name, value) in parameters.headers() {
        request = request.header(name, value);
    }
    request = request.query(&parameters.query().collect::<Vec<_>>());
    request = match &operation.action {
        Action::Put(put) => request.body(put.value.clone()),
        Action::Increment { delta, ttl, .. } => request.json(&Increment::new(*delta, *ttl)),
        Action::Get | Action::Head | Action::Delete { .. } | Action::Explain => request,
    };
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
