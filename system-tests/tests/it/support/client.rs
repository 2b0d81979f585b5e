//! HTTP as the tests speak it.

use std::time::Duration;

use bytes::Bytes;
use cairn_api_spec::{
    data::KeyList,
    error::{ErrorCode, Problem},
    name::encode_key,
};
use reqwest::{
    Method,
    header::{HeaderMap, HeaderValue},
};
use serde::de::DeserializeOwned;

/// A client that neither follows redirects nor repeats anything.
#[derive(Clone)]
pub(crate) struct Client(reqwest::Client);

/// A whole reply.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Client {
    pub(crate) fn new() -> Self {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            // A server answers 408 on a connection that had no request for five seconds, also on one that the pool opened
            // ahead of need; it must not be taken for the reply to a request that is on its way at that moment.
            .pool_idle_timeout(Duration::from_secs(3))
            .timeout(Duration::from_secs(60));
        Self(client.build().unwrap())
    }

    /// Sends a request; `Err` when no reply came.
    pub(crate) async fn send(
        &self,
        method: Method,
        url: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Reply, reqwest::Error> {
        let mut request = self.0.request(method, url).body(body);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_str(value).unwrap());
        }
        let response = request.send().await?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        Ok(Reply { status, headers, body: response.bytes().await? })
    }

    pub(crate) async fn get(&self, url: &str) -> Reply {
        self.send(Method::GET, url, &[], Bytes::new()).await.unwrap_or_else(|error| panic!("GET {url}: {error:?}"))
    }

    pub(crate) async fn json<T: DeserializeOwned>(&self, url: &str) -> T {
        let reply = self.get(url).await;
        assert_eq!(reply.status, 200, "GET {url}: {reply:?}");
        reply.json()
    }

    /// A document, or why there is none.
    pub(crate) async fn try_json<T: DeserializeOwned>(&self, url: &str) -> Result<T, String> {
        match self.send(Method::GET, url, &[], Bytes::new()).await {
            Ok(reply) if reply.status == 200 => Ok(reply.json()),
            Ok(reply) => Err(reply.text()),
            Err(error) => Err(error.to_string()),
        }
    }

    pub(crate) async fn delete(&self, url: &str) -> Reply {
        let sent = self.send(Method::DELETE, url, &[], Bytes::new()).await;
        sent.unwrap_or_else(|error| panic!("DELETE {url}: {error:?}"))
    }

    pub(crate) async fn get_key(&self, server: &str, key: &str) -> Reply {
        self.get(&key_url(server, key)).await
    }

    /// Stores a value; `query` begins with `?` when there is one.
    pub(crate) async fn put_key(&self, server: &str, key: &str, query: &str, value: impl Into<Bytes>) -> Reply {
        let url = format!("{}{query}", key_url(server, key));
        let sent = self.send(Method::PUT, &url, &[], value.into()).await;
        sent.unwrap_or_else(|error| panic!("PUT {url}: {error:?}"))
    }

    /// Every key of the default bucket, by pages of `limit`.
    pub(crate) async fn list(&self, server: &str, limit: usize) -> Vec<String> {
        let (mut keys, mut cursor) = (Vec::new(), String::new());
        loop {
            let page: KeyList = self.json(&format!("{server}/keys?limit={limit}{cursor}")).await;
            assert!(page.keys.len() <= limit);
            keys.extend(page.keys.into_iter().map(|entry| entry.key));
            match page.next_cursor {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return keys,
            }
        }
    }
}

impl Reply {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> T {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    pub(crate) fn is_stored(&self) -> bool {
        matches!(self.status, 201 | 204)
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// The key's version, from `ETag`.
    pub(crate) fn version(&self) -> u64 {
        let tag = self.header("etag").unwrap_or_else(|| panic!("no ETag: {self:?}"));
        tag.trim_matches('"').parse().unwrap()
    }

    /// The tier that answered, from `Cache-Status`.
    pub(crate) fn tier(&self) -> String {
        let status = self.header("cache-status").unwrap_or_default();
        status.split("detail=").nth(1).unwrap_or_default().to_owned()
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Fails the test unless the reply is a problem document with this code and all that belongs to it.
pub(crate) fn sends_problem(reply: &Reply, code: ErrorCode) -> Problem {
    assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{reply:?}");
    let problem: Problem = reply.json();
    assert_eq!((problem.code, reply.status, problem.status), (code, code.status(), code.status()), "{problem:?}");
    assert!(!problem.detail.is_empty() && !problem.title.is_empty() && problem.r#type == "about:blank", "{problem:?}");
    let is_id = problem.trace_id.len() == 32 && problem.trace_id.bytes().all(|b| b.is_ascii_hexdigit());
    assert!(is_id, "{problem:?}");
    if matches!(reply.status, 429 | 503) {
        let seconds: u32 = reply.header("retry-after").unwrap_or_default().parse().unwrap();
        assert_eq!((seconds > 0, Some(seconds)), (true, problem.retry_after), "{problem:?}");
    }
    problem
}

pub(crate) fn key_url(server: &str, key: &str) -> String {
    format!("{server}/keys/{}", encode_key(key))
}
