//! The ways into the cluster, and what their answers mean for a history.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{Bucket, EntryName, ErrorCode, cluster::Ring};
use cairn_client::{Cache, Error};
use cairn_system_tests::history::{Condition, Kind, Outcome};
use reqwest::Method;
use tokio::{sync::watch, task::AbortHandle};

use super::{
    Client, Reply, key_url,
    workload::{value_of, write_of},
};

/// How long a client waits for one answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// How long the map is followed by one request.
const POLL_SECONDS: u32 = 5;
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// A way into the cluster.
#[derive(Clone)]
pub(crate) enum Entry {
    /// One server, which is asked for every key.
    Master(Client, String),
    /// The node that owns the key by the map.
    Owner(Client, Arc<Routes>),
    /// The SDK.
    Sdk(Cache),
}

/// What an operation came to.
pub(crate) struct Answer {
    pub(crate) outcome: Outcome,
    /// What a user would call an error.
    pub(crate) failure: Option<String>,
}

impl From<Outcome> for Answer {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, failure: None }
    }
}

/// The map, followed as long as somebody uses it.
pub(crate) struct Routes {
    ring: watch::Receiver<Ring>,
    follower: AbortHandle,
}

impl Routes {
    pub(crate) async fn follow(client: Client, url: String) -> Arc<Self> {
        let (sender, ring) = watch::channel(client.json::<Ring>(&format!("{url}/ring")).await);
        let follower = tokio::spawn(async move {
            loop {
                let etag = format!("\"{}\"", sender.borrow().epoch);
                let url = format!("{url}/ring?wait={POLL_SECONDS}");
                let headers = [("if-none-match", etag.as_str())];
                let polled = client.send(Method::GET, &url, &headers, Bytes::new());
                if let Ok(Ok(reply)) = tokio::time::timeout(REQUEST_TIMEOUT, polled).await
                    && reply.status == 200
                {
                    sender.send_replace(reply.json());
                }
                tokio::time::sleep(POLL_PAUSE).await;
            }
        });
        Arc::new(Self { ring, follower: follower.abort_handle() })
    }

    fn owner(&self, key: &str) -> Option<String> {
        let ring = self.ring.borrow();
        let name = EntryName::new(&Bucket::default(), key).unwrap();
        let primary = ring.partitions[name.partition(ring.partition_count) as usize].primary.as_ref()?;
        ring.nodes.iter().find(|node| node.node_id == *primary).map(|node| node.address.clone())
    }
}

impl Drop for Routes {
    fn drop(&mut self) {
        self.follower.abort();
    }
}

impl Entry {
    /// Does what `kind` says once, with the value that belongs to `id`.
    pub(crate) async fn perform(&self, id: u64, key: &str, kind: Kind, query: &str) -> Answer {
        let (client, server) = match self {
            Self::Master(client, url) => (client, url.clone()),
            Self::Owner(client, routes) => match routes.owner(key) {
                Some(url) => (client, url),
                None => return failed(Outcome::Refused, "no primary"),
            },
            Self::Sdk(cache) => return by_sdk(cache, id, key, kind).await,
        };
        let (method, body) = match kind {
            Kind::Get => (Method::GET, Vec::new()),
            Kind::Put(_) => (Method::PUT, value_of(id)),
            Kind::Delete(_) => (Method::DELETE, Vec::new()),
        };
        let url = format!("{}{}", key_url(&server, key), if kind == Kind::Get { "" } else { query });
        let (name, version);
        let headers: &[(&str, &str)] = match condition(kind) {
            Condition::Always => &[],
            Condition::Absent => &[("if-none-match", "*")],
            Condition::Version(expected) => {
                version = format!("\"{expected}\"");
                name = [("if-match", version.as_str())];
                &name
            }
        };
        let sent = client.send(method, &url, headers, body.into());
        match tokio::time::timeout(REQUEST_TIMEOUT, sent).await {
            Ok(Ok(reply)) => read_reply(&reply, kind),
            Ok(Err(error)) if error.is_connect() => failed(Outcome::Refused, "not connected"),
            Ok(Err(_)) => failed(Outcome::Unknown, "connection broken"),
            Err(_) => failed(Outcome::Unknown, "no answer in time"),
        }
    }
}

fn condition(kind: Kind) -> Condition {
    match kind {
        Kind::Get => Condition::Always,
        Kind::Put(condition) | Kind::Delete(condition) => condition,
    }
}

fn failed(outcome: Outcome, why: &str) -> Answer {
    Answer { outcome, failure: Some(why.to_owned()) }
}

fn read_reply(reply: &Reply, kind: Kind) -> Answer {
    match (reply.status, kind) {
        (200, Kind::Get) => Outcome::Read { version: reply.version(), write: write_of(&reply.body) }.into(),
        (201 | 204, Kind::Put(_)) | (204, Kind::Delete(_)) => Outcome::Written(reply.version()).into(),
        (404, Kind::Get | Kind::Delete(_)) => Outcome::Absent(reply.version()).into(),
        (412, Kind::Put(_) | Kind::Delete(_)) => Outcome::ConditionFailed(reply.version()).into(),
        // A server that stood still gives up a request that it has half of, by itself and without a body.
        (408, _) => failed(Outcome::Unknown, "request_timeout"),
        _ => {
            let problem: serde_json::Value = reply.json();
            let code = problem["code"].as_str().unwrap_or_default();
            match code {
                "not_owner" | "no_nodes" | "partition_offline" | "below_min_in_sync" | "overloaded"
                | "storage_full" | "rate_limited" => failed(Outcome::Refused, code),
                "outcome_unknown" | "shutting_down" | "object_store_unavailable" => failed(Outcome::Unknown, code),
                "internal" => failed(Outcome::Unknown, &format!("internal: {}", problem["detail"])),
                _ => panic!("{kind:?}: {reply:?}"),
            }
        }
    }
}

async fn by_sdk(cache: &Cache, id: u64, key: &str, kind: Kind) -> Answer {
    let condition = match condition(kind) {
        Condition::Always => cairn_client::Condition::None,
        Condition::Absent => cairn_client::Condition::Absent,
        Condition::Version(version) => cairn_client::Condition::Matches(cairn_client::Version(version)),
    };
    let done = match kind {
        Kind::Get => cache.get(key).await.map(|found| match found {
            Some(value) => Outcome::Read { version: value.version.0, write: write_of(&value.bytes) },
            None => Outcome::Absent(0),
        }),
        Kind::Put(_) => {
            let put = cache.put(key, value_of(id)).condition(condition).await;
            put.map(|stored| Outcome::Written(stored.version.0))
        }
        Kind::Delete(_) => {
            let deleted = cache.delete(key).condition(condition).await;
            deleted.map(|version| version.map_or(Outcome::Absent(0), |version| Outcome::Written(version.0)))
        }
    };
    done.map_or_else(|error| read_error(&error), Answer::from)
}

fn read_error(error: &Error) -> Answer {
    let outcome = match error {
        Error::PreconditionFailed { version } => return Outcome::ConditionFailed(version.0).into(),
        error if error.is_outcome_unknown() => Outcome::Unknown,
        _ => Outcome::Refused,
    };
    let code = error.code().map(ErrorCode::as_str);
    failed(outcome, code.unwrap_or(&error.to_string()))
}
