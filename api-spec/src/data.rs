//! The JSON documents of the data API.

use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    error::{ApiError, ErrorCode},
    modes::Tier,
    ttl,
    version::Version,
};

/// A time to live in JSON: whole seconds, or text such as `"250ms"`, `"10m"`, `"1h"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(untagged)]
pub enum TtlField {
    /// Whole seconds.
    Seconds(u64),
    /// A number with a unit.
    Text(String),
}

impl TtlField {
    /// The time that it says.
    ///
    /// # Errors
    /// As [`ttl::parse`].
    pub fn parse(&self) -> Result<Duration, ApiError> {
        match self {
            Self::Seconds(seconds) => ttl::parse(&seconds.to_string()),
            Self::Text(text) => ttl::parse(text),
        }
    }
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
    #[schema(value_type = Option<serde_json::Value>)]
    pub value: Option<Box<RawValue>>,
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
pub(crate) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::<RawValue>::deserialize(deserializer).map(Some)
}

/// The bytes that the fields `value` and `value_base64` ask to store, and the content type that they have by themselves,
/// empty for none. JSON that is no string is stored as it was written: a parsed one would have lost the order of its
/// fields and the digits of big numbers.
///
/// # Errors
/// `invalid_body` for both fields or none, and for what cannot be decoded.
pub fn value_of(value: Option<&RawValue>, value_base64: Option<&str>) -> Result<(Bytes, &'static str), ApiError> {
    let invalid = |detail: String| ApiError::new(ErrorCode::InvalidBody, detail);
    match (value.map(RawValue::get), value_base64) {
        (Some(text), None) if text.starts_with('"') => {
            let text: String = serde_json::from_str(text).map_err(|error| invalid(format!("value: {error}")))?;
            Ok((text.into(), "text/plain; charset=utf-8"))
        }
        (Some(json), None) => Ok((Bytes::copy_from_slice(json.as_bytes()), "application/json")),
        (None, Some(text)) => STANDARD
            .decode(text)
            .map(|bytes| (bytes.into(), ""))
            .map_err(|error| invalid(format!("value_base64 is not standard, padded base64: {error}"))),
        (None, None) => Err(invalid("one of value and value_base64 is needed".to_owned())),
        (Some(_), Some(_)) => Err(invalid("send value or value_base64, not both".to_owned())),
    }
}

/// A time that is given in milliseconds since the Unix epoch, or the last one that can be told.
pub fn timestamp(millis: u64) -> Timestamp {
    i64::try_from(millis).ok().and_then(|millis| Timestamp::from_millisecond(millis).ok()).unwrap_or(Timestamp::MAX)
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

/// The body of `POST /counters/{key}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"delta": 1}))]
pub struct Increment {
    /// What to add to the counter; negative to subtract.
    #[serde(default = "one")]
    #[schema(default = 1)]
    pub delta: i64,
    /// How long a counter lives that is created by this; one that is there keeps its expiry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<TtlField>,
}

impl Increment {
    /// An addition, and how long a counter lives that it creates.
    pub fn new(delta: i64, lifetime: Option<Duration>) -> Self {
        Self { delta, ttl: lifetime.map(ttl::format).map(TtlField::Text) }
    }
}

fn one() -> i64 {
    1
}

/// A counter after an increment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counter {
    /// The key.
    #[schema(example = "visits")]
    pub key: String,
    /// The sum. A reader whose numbers have 53 bits, as those of JavaScript, takes it as text from `GET /keys/{key}`.
    #[schema(example = 7)]
    pub value: i64,
    /// The key's new version, which `If-Match` compares.
    pub version: Version,
}

/// Whether a key is there, and if not, why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is there.
    Live,
    /// It was there until its time to live was over.
    Expired,
    /// It was removed, and the removal is remembered.
    Deleted,
    /// It was never written, or its removal is forgotten.
    NeverWritten,
}

/// Where a key is and why: everything that is known of it but its value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Explanation {
    /// The key's bucket.
    #[schema(example = "default")]
    pub bucket: String,
    /// The key.
    #[schema(example = "user:42")]
    pub key: String,
    /// The partition that bucket and key belong to.
    #[schema(example = 17)]
    pub partition: u32,
    /// The epoch of the partition's entry in the map of the node that answers.
    #[schema(example = 3)]
    pub epoch: u64,
    /// The node that orders the partition's writes.
    #[schema(example = "node-1")]
    pub primary: String,
    /// The nodes that hold every acknowledged write, the primary among them.
    pub in_sync: Vec<String>,
    /// The nodes that are being brought up to date.
    pub learners: Vec<String>,
    /// The node that answers.
    #[schema(example = "node-1")]
    pub node: String,
    /// Whether the key is there.
    pub state: KeyState,
    /// The same as a sentence.
    #[schema(example = "the key is there")]
    pub detail: String,
    /// The version of the value, or of the removal; 0 when neither is known.
    pub version: Version,
    /// The value's length in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 6)]
    pub size: Option<u64>,
    /// The value's content type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "text/plain")]
    pub content_type: Option<String>,
    /// When the value was stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-01-01T00:00:00Z")]
    pub modified_at: Option<Timestamp>,
    /// When the value expires, or has; absent when it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "2026-01-01T00:10:00Z")]
    pub expires_at: Option<Timestamp>,
    /// The seconds that are left of a live value's time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 593)]
    pub ttl: Option<u64>,
    /// The highest tier that holds a live value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Whether the object store has this version; absent where there is no object store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uploaded: Option<bool>,
    /// The version that the object store has, as far as the node knows; it may be an older one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_version: Option<Version>,
    /// Whether a newer write was under way when the question came.
    pub write_pending: bool,
    /// The way of the question, when it came through a master.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
}

/// How a master came to ask a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Asked {
    /// The node that it asked.
    #[schema(example = "node-1")]
    pub node: String,
    /// The epoch of the map that it found the node in.
    #[schema(example = 12)]
    pub map_epoch: u64,
}
