//! The JSON documents of the data API.

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;

use crate::version::Version;

/// A time to live in JSON: whole seconds, or text such as `"250ms"`, `"10m"`, `"1h"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TtlField {
    /// Whole seconds.
    Seconds(u64),
    /// A number with a unit.
    Text(String),
}

/// The body of `POST /keys`: one of `value` and `value_base64` is needed.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"key": "value3", "value": "value3"}))]
pub struct PostKey {
    /// The key, as it is (no percent-encoding here).
    pub key: String,
    /// The value as text; any other JSON value is stored as its JSON text, with `application/json`.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    pub value: Option<serde_json::Value>,
    /// The value as base64, for bytes that are not text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
    /// How long it lives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlField>,
    /// Given back as `Content-Type`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content_type: Option<String>,
}

/// Keeps `"value": null` (a JSON value to store) apart from no `value` at all.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<serde_json::Value>, D::Error> {
    serde_json::Value::deserialize(deserializer).map(Some)
}

/// What is known of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryMetadata {
    /// The key.
    #[schema(example = "user:42")]
    pub key: String,
    /// The value's length in bytes.
    #[schema(example = 6)]
    pub size: u64,
    /// Its version, which `If-Match` compares.
    pub version: Version,
    /// When it expires; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    pub expires_at: Option<Timestamp>,
}

/// A page of a bucket's keys, in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeyList {
    /// The keys of this page.
    pub keys: Vec<EntryMetadata>,
    /// Send it as `cursor` for the next page; absent on the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}
