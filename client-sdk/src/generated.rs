//! The clients that progenitor generates from the two OpenAPI documents, with the contract's own types.
//!
//! They say one request each and know nothing of routing; [`crate::Cache`] does. The data API of master and node is the
//! same, so [`node::Client`] also speaks to a master.

use progenitor_client::{ClientHooks, ClientInfo as _, Error, OperationInfo};
use reqwest::header::{CONTENT_TYPE, HeaderValue};

/// What a generated method cannot say of a request on a key. The default changes nothing.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// The key as it stands in the path, in place of the [`PLACEHOLDER`] that was given as key: the generated encoder
    /// leaves `\` as it is, which the URL parser then takes for a slash.
    pub key_path: Option<String>,
    /// The value's type in place of `application/octet-stream`.
    pub content_type: Option<HeaderValue>,
}

/// The key to give when [`Call::key_path`] has the real one.
pub const PLACEHOLDER: &str = "_";

impl ClientHooks<Call> for node::Client {
    async fn pre<E>(&self, request: &mut reqwest::Request, _: &OperationInfo) -> Result<(), Error<E>> {
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
        Ok(())
    }
}

/// The master's API.
pub mod master {
    progenitor::generate_api!(
        spec = "../api-spec/openapi/master-3.0.json",
        replace = {
            ByTier = cairn_api_spec::cluster::ByTier,
            CaughtUp = cairn_api_spec::cluster::CaughtUp,
            Durability = cairn_api_spec::operation::Durability,
            EntryMetadata = cairn_api_spec::data::EntryMetadata,
            ErrorCode = cairn_api_spec::error::ErrorCode,
            Health = cairn_api_spec::cluster::Health,
            Heartbeat = cairn_api_spec::cluster::Heartbeat,
            HeartbeatReply = cairn_api_spec::cluster::HeartbeatReply,
            KeyList = cairn_api_spec::data::KeyList,
            Node = cairn_api_spec::cluster::Node,
            NodeList = cairn_api_spec::cluster::NodeList,
            NodeState = cairn_api_spec::cluster::NodeState,
            NodeStats = cairn_api_spec::cluster::NodeStats,
            Partition = cairn_api_spec::cluster::Partition,
            PostKey = cairn_api_spec::data::PostKey,
            Problem = cairn_api_spec::error::Problem,
            RegisterNode = cairn_api_spec::cluster::RegisterNode,
            Ring = cairn_api_spec::cluster::Ring,
            RingNode = cairn_api_spec::cluster::RingNode,
            Stats = cairn_api_spec::cluster::Stats,
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
            ByTier = cairn_api_spec::cluster::ByTier,
            Durability = cairn_api_spec::operation::Durability,
            EntryMetadata = cairn_api_spec::data::EntryMetadata,
            ErrorCode = cairn_api_spec::error::ErrorCode,
            Health = cairn_api_spec::cluster::Health,
            KeyList = cairn_api_spec::data::KeyList,
            NodeStats = cairn_api_spec::cluster::NodeStats,
            PostKey = cairn_api_spec::data::PostKey,
            Problem = cairn_api_spec::error::Problem,
            TtlField = cairn_api_spec::data::TtlField,
            Version = cairn_api_spec::version::Version,
        },
    );
}
