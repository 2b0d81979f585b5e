//! `GET /keys`: a bucket's keys in the order of their bytes, page by page.
//!
//! A cursor is the last key of a page, so a listing needs no memory on any server, survives every failover, and misses
//! no key that was there from its beginning to its end.

use actix_web::{HttpRequest, HttpResponse, get, web::Data};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use cairn_api_spec::{
    ApiError, Bucket, EntryName,
    data::{EntryMetadata, KeyList, timestamp},
    name::prefix_end,
    operation::{ListQuery, ListedName},
};
use cairn_server_kit::http::{annotate, trace_of};

use crate::{
    Shared,
    docs::{BucketQuery, ListErrors, PageQuery},
    reply,
    request::{Query, invalid, quoted},
};

const DEFAULT_LIMIT: usize = 100;
const MAX_LIMIT: usize = 1_000;

/// List keys
///
/// A bucket's keys in the order of their bytes. Pages follow one another by `next_cursor`, also while nodes join and
/// leave: a key that exists during the whole listing is in it, exactly once.
#[utoipa::path(
    operation_id = "list_keys",
    tag = "keys",
    params(BucketQuery, PageQuery),
    responses(
        (status = 200, description = "A page of keys.", body = KeyList, example = json!({
            "keys": [{"key": "user:42", "size": 6, "version": "1099511627777"}], "next_cursor": "dXNlcjo0Mg",
        })),
        ListErrors,
    ),
)]
#[get("/keys")]
pub(crate) async fn list_keys(request: HttpRequest, shared: Data<Shared>) -> HttpResponse {
    reply::or_error(list(&request, &shared).await)
}

async fn list(request: &HttpRequest, shared: &Shared) -> Result<HttpResponse, ApiError> {
    let query = Query::parse(request, &["bucket", "prefix", "limit", "cursor"])?;
    let limit = query.get("limit").map_or(Ok(DEFAULT_LIMIT), parse_limit)?;
    let bucket = query.bucket()?;
    annotate(request, "cairn.bucket", bucket.as_str());
    let range = range(&bucket, query.get("prefix").unwrap_or_default(), query.get("cursor"))?;
    // One more than the page has tells whether there is another page.
    let mut listed = shared.api.list(ListQuery { limit: limit + 1, ..range }, trace_of(request)).await?;
    let is_last = listed.len() <= limit;
    listed.truncate(limit);
    let next_cursor = listed.last().filter(|_| !is_last).map(|last| URL_SAFE_NO_PAD.encode(last.name.key()));
    let keys = listed.iter().map(entry).collect();
    Ok(HttpResponse::Ok().json(KeyList { keys, next_cursor }))
}

fn parse_limit(text: &str) -> Result<usize, ApiError> {
    text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
        let text = quoted(text);
        invalid(format!("limit {text} is not a whole number from 1 to {MAX_LIMIT}"))
    })
}

/// The names with the prefix, after the cursor's.
fn range(bucket: &Bucket, prefix: &str, cursor: Option<&str>) -> Result<ListQuery, ApiError> {
    let whole_bucket = || Bytes::from([bucket.as_str().as_bytes(), &[0]].concat());
    let first = match prefix {
        "" => whole_bucket(),
        prefix => EntryName::new(bucket, prefix)
            .map_err(|error| invalid(format!("the prefix cannot begin a key: {}", error.detail)))?
            .as_bytes()
            .clone(),
    };
    let end = prefix_end(&first).unwrap_or_default().into();
    let start = match cursor {
        None => first,
        Some(cursor) => {
            let last = last_name(bucket, cursor)
                .filter(|last| last.as_bytes().starts_with(&first))
                .ok_or_else(|| invalid("the cursor is not a next_cursor of this bucket and prefix"))?;
            // No name has a zero byte in its key: this is the smallest that sorts after `last`.
            [last.as_bytes(), &[0][..]].concat().into()
        }
    };
    Ok(ListQuery { start, end, limit: 0 })
}

fn last_name(bucket: &Bucket, cursor: &str) -> Option<EntryName> {
    let key = String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    EntryName::new(bucket, &key).ok()
}

fn entry(listed: &ListedName) -> EntryMetadata {
    EntryMetadata {
        key: listed.name.key().to_owned(),
        size: listed.metadata.size,
        version: listed.metadata.version,
        expires_at: listed.metadata.expires_at.map(timestamp),
    }
}
