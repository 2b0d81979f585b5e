//! The clients that progenitor generates from the two OpenAPI documents, with the contract's own types.
//!
//! They say one request each and know nothing of routing; [`crate::Cache`] does. The data API of master and node is the
//! same, so [`node::Client`] also speaks to a master.

use progenitor_client::{ClientHooks, ClientInfo as _, Error, OperationInfo};
use reqwest::{
    Request, Response,
    header::{CONTENT_TYPE, HeaderValue},
};

/// What a generated method cannot say of a request on a key. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The key as it stands in the path, in place of the [`PLACEHOLDER`] that was given as key: the generated encoder
    /// leaves `\` as it is, which the URL parser then takes for a slash.
    pub key_path: Option<String>,
    /// The value's type in place of `application/octet-stream`.
    pub content_type: Option<HeaderValue>,
    /// The trace that the request belongs to.
    pub traceparent: Option<HeaderValue>,
}

/// The key to give when [`Call::key_path`] has the real one.
pub const PLACEHOLDER: &str = "_";

impl ClientHooks<Call> for node::Client {
    async fn pre<E>(&self, request: &mut Request, _: &OperationInfo) -> Result<(), Error<E>> {
        let call = self.inner();
        if let Some(key_path) = &call.key_path
            && let Some(prefix) = request.url().path().strip_suffix(PLACEHOLDER)
        {
            let path = format!("{prefix}{key_path}");
            request.url_mut().set_path(&path);
        }
        if let Some(content_type) = &call.content_type {
            request.headers_mut().insert(CONTENT_TYPE, content_type.clone());
        }
        if let Some(traceparent) = &call.traceparent {
            request.headers_mut().insert("traceparent", traceparent.clone());
        }
        Ok(())
    }

    async fn exec(&self, request: Request, _: &OperationInfo) -> reqwest::Result<Response> {
        of_a_server(self.client().execute(request).await?)
    }
}

impl ClientHooks for master::Client {
    async fn exec(&self, request: Request, _: &OperationInfo) -> reqwest::Result<Response> {
        of_a_server(self.client().execute(request).await?)
    }
}

/// A 502, 503 or 504 without a problem document comes from something before the server, and is an error of the
/// connection.
pub(crate) fn of_a_server(response: Response) -> reqwest::Result<Response> {
    let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
    let is_problem = content_type.is_some_and(|text| text.starts_with(b"application/problem+json"));
    if matches!(response.status().as_u16(), 502..=504) && !is_problem {
        response.error_for_status()
    } else {
        Ok(response)
    }
}

/// The master's API.
pub mod master {
    progenitor::generate_api!(
        spec = "../api-spec/openapi/master-3.0.json",
        hooks = Expected,
        replace = {
            Asked = cairn_api_spec::data::Asked,
            Batch = cairn_api_spec::batch::Batch,
            BatchAction = cairn_api_spec::batch::BatchAction,
            BatchOperation = cairn_api_spec::batch::BatchOperation,
            BatchProblem = cairn_api_spec::batch::BatchProblem,
            BatchResult = cairn_api_spec::batch::BatchResult,
            BatchResults = cairn_api_spec::batch::BatchResults,
            ByTier = cairn_api_spec::cluster::ByTier,
            ChangePartition = cairn_api_spec::cluster::ChangePartition,
            ChangeRebalance = cairn_api_spec::cluster::ChangeRebalance,
            Consistency = cairn_api_spec::operation::Consistency,
            Counter = cairn_api_spec::data::Counter,
            Durability = cairn_api_spec::operation::Durability,
            EntryMetadata = cairn_api_spec::data::EntryMetadata,
            ErrorCode = cairn_api_spec::error::ErrorCode,
            Event = cairn_api_spec::events::Event,
            Explanation = cairn_api_spec::data::Explanation,
            Health = cairn_api_spec::cluster::Health,
            Heartbeat = cairn_api_spec::cluster::Heartbeat,
            HeartbeatReply = cairn_api_spec::cluster::HeartbeatReply,
            Increment = cairn_api_spec::data::Increment,
            KeyList = cairn_api_spec::data::KeyList,
            KeyState = cairn_api_spec::data::KeyState,
            Move = cairn_api_spec::cluster::Move,
            Node = cairn_api_spec::cluster::Node,
            NodeList = cairn_api_spec::cluster::NodeList,
            NodeState = cairn_api_spec::cluster::NodeState,
            NodeStats = cairn_api_spec::cluster::NodeStats,
            Partition = cairn_api_spec::cluster::Partition,
            PartitionChange = cairn_api_spec::cluster::PartitionChange,
            PostKey = cairn_api_spec::data::PostKey,
            Problem = cairn_api_spec::error::Problem,
            Rebalance = cairn_api_spec::cluster::Rebalance,
            RegisterNode = cairn_api_spec::cluster::RegisterNode,
            Replication = cairn_api_spec::cluster::Replication,
            Ring = cairn_api_spec::cluster::Ring,
            RingNode = cairn_api_spec::cluster::RingNode,
            Stats = cairn_api_spec::cluster::Stats,
            Strategy = cairn_api_spec::cluster::Strategy,
            Transfer = cairn_api_spec::cluster::Transfer,
            Tier = cairn_api_spec::operation::Tier,
            TtlField = cairn_api_spec::data::TtlField,
            Version = cairn_api_spec::version::Version,
        },
    );
}

/// A node's API.
pub mod node {
    progenitor::generate_api!(
        spec = "../api-spec/openapi/node-3.0.json",
        inner_type = crate::generated::Call,
        hooks = Expected,
        replace = {
            Asked = cairn_api_spec::data::Asked,
            Batch = cairn_api_spec::batch::Batch,
            BatchAction = cairn_api_spec::batch::BatchAction,
            BatchOperation = cairn_api_spec::batch::BatchOperation,
            BatchProblem = cairn_api_spec::batch::BatchProblem,
            BatchResult = cairn_api_spec::batch::BatchResult,
            BatchResults = cairn_api_spec::batch::BatchResults,
            ByTier = cairn_api_spec::cluster::ByTier,
            Consistency = cairn_api_spec::operation::Consistency,
            Counter = cairn_api_spec::data::Counter,
            Durability = cairn_api_spec::operation::Durability,
            EntryMetadata = cairn_api_spec::data::EntryMetadata,
            ErrorCode = cairn_api_spec::error::ErrorCode,
            Event = cairn_api_spec::events::Event,
            Explanation = cairn_api_spec::data::Explanation,
            Health = cairn_api_spec::cluster::Health,
            Increment = cairn_api_spec::data::Increment,
            KeyList = cairn_api_spec::data::KeyList,
            KeyState = cairn_api_spec::data::KeyState,
            NodeStats = cairn_api_spec::cluster::NodeStats,
            PostKey = cairn_api_spec::data::PostKey,
            Problem = cairn_api_spec::error::Problem,
            Tier = cairn_api_spec::operation::Tier,
            TtlField = cairn_api_spec::data::TtlField,
            Version = cairn_api_spec::version::Version,
        },
    );
}
