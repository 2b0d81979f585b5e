//! What a node says to the masters, over their HTTP API.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use cairn_api_spec::{
    ErrorCode,
    cluster::{ChangePartition, Heartbeat, HeartbeatReply, Node, Partition, RegisterNode, Ring},
    error::Problem,
};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, header};
use serde::de::DeserializeOwned;

/// How long connecting, and a call that holds nothing back, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// How long the master may hold back an unchanged map.
const RING_WAIT: Duration = Duration::from_secs(20);

/// Why a master did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MasterError {
    /// It did not answer.
    #[error("no answer from {url}, which master_urls names: {source}")]
    Unreachable {
        /// The master.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// It refused.
    #[error("{url} refused: {} ({})", .problem.detail, .problem.code.as_str())]
    Refused {
        /// The master.
        url: String,
        /// Why.
        problem: Box<Problem>,
    },
    /// It answered something else than a master would.
    #[error("{url} answered {status}, which is no answer of a master")]
    Strange {
        /// Who answered.
        url: String,
        /// The status.
        status: StatusCode,
    },
}

impl MasterError {
    /// The code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { problem, .. } => Some(problem.code),
            Self::Unreachable { .. } | Self::Strange { .. } => None,
        }
    }
}

/// The masters, one of which is asked until it does not answer.
#[derive(Debug)]
pub struct Masters {
    urls: Vec<String>,
    current: AtomicUsize,
    client: Client,
}

impl Masters {
    /// The masters at these URLs.
    ///
    /// # Errors
    /// When the HTTP client cannot be set up.
    pub fn new(urls: Vec<String>) -> reqwest::Result<Self> {
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            // Servers close a connection that asks nothing for five seconds after it was opened.
            .pool_idle_timeout(CALL_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()?;
        Ok(Self { urls, current: AtomicUsize::new(0), client })
    }

    /// Registers the node, or says again what it is.
    ///
    /// # Errors
    /// See [`MasterError`].
    pub async fn register(&self, node: &RegisterNode) -> Result<Node, MasterError> {
        let request = |url: &str| self.client.post(format!("{url}/nodes")).json(node);
        self.call(request).await
    }

    /// Tells that the node lives.
    ///
    /// # Errors
    /// See [`MasterError`]; the code `node_not_found` asks the node to register.
    pub async fn heartbeat(&self, node_id: &str, heartbeat: &Heartbeat) -> Result<HeartbeatReply, MasterError> {
        let request =
            |url: &str| self.client.request(Method::PUT, format!("{url}/nodes/{node_id}/heartbeat")).json(heartbeat);
        self.call(request).await
    }

    /// The partition map as soon as its epoch is another than `known`; `None` when it stayed the same for a while.
    ///
    /// # Errors
    /// See [`MasterError`].
    pub async fn ring(&self, known: Option<u64>) -> Result<Option<Ring>, MasterError> {
        let request = |url: &str| match known {
            None => self.client.get(format!("{url}/ring")),
            Some(epoch) => self
                .client
                .get(format!("{url}/ring?wait={}", RING_WAIT.as_secs()))
                .header(header::IF_NONE_MATCH, format!("\"{epoch}\""))
                .timeout(RING_WAIT + CALL_TIMEOUT),
        };
        let (url, response) = self.send(request).await?;
        if response.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        read(url, response).await.map(Some)
    }

    /// Asks for a change of a partition's entry; answers with the new one.
    ///
    /// # Errors
    /// See [`MasterError`]; the code `precondition_failed` means that the entry is another one by now.
    pub async fn change_partition(&self, partition: u32, change: &ChangePartition) -> Result<Partition, MasterError> {
        let request = |url: &str| self.client.post(format!("{url}/partitions/{partition}/changes")).json(change);
        self.call(request).await
    }

    async fn call<T: DeserializeOwned>(&self, request: impl Fn(&str) -> RequestBuilder) -> Result<T, MasterError> {
        let (url, response) = self.send(request).await?;
        read(url, response).await
    }

    async fn send(&self, request: impl Fn(&str) -> RequestBuilder) -> Result<(String, Response), MasterError> {
        let current = self.current.load(Ordering::Relaxed);
        let url = self.urls.get(current % self.urls.len().max(1)).cloned().unwrap_or_default();
        match request(&url).send().await {
            Ok(response) => Ok((url, response)),
            Err(source) => {
                // The next call asks the next master; racing calls may move on by one only.
                let _ = self.current.compare_exchange(current, current + 1, Ordering::Relaxed, Ordering::Relaxed);
                Err(MasterError::Unreachable { url, source })
            }
        }
    }
}

async fn read<T: DeserializeOwned>(url: String, response: Response) -> Result<T, MasterError> {
    let status = response.status();
    if status.is_success() {
        return response.json().await.map_err(|source| MasterError::Unreachable { url, source });
    }
    match response.json().await {
        Ok(problem) => Err(MasterError::Refused { url, problem: Box::new(problem) }),
        Err(_) => Err(MasterError::Strange { url, status }),
    }
}
