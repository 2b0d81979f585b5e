//! `cairn get`, `put`, `delete`, `incr` and `list`.

use std::{
    io::{self, BufWriter, Read as _, Write as _},
    pin::pin,
    time::Duration,
};

use anyhow::Context as _;
use cairn_api_spec::ApiError;
use cairn_client::{Cache, EntryMetadata, Version};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::tables;
use crate::cli::{Conditions, Put};

/// Keys in a page; the servers give no more.
const PAGE: u32 = 1_000;

pub(super) async fn get(cache: &Cache, key: &str) -> anyhow::Result<()> {
    let value = cache.get(key).await?.ok_or_else(|| ApiError::key_not_found(Version::NONE))?;
    let mut out = io::stdout().lock();
    out.write_all(&value.bytes)?;
    Ok(out.flush()?)
}

pub(super) async fn put(cache: &Cache, args: Put) -> anyhow::Result<()> {
    let value = match (&args.file, args.value) {
        (Some(file), _) => std::fs::read(file).with_context(|| file.display().to_string())?,
        (None, Some(value)) if value != "-" => value.into_bytes(),
        (None, _) => {
            let mut value = Vec::new();
            io::stdin().lock().read_to_end(&mut value).context("stdin")?;
            value
        }
    };
    let condition = args.conditions.condition()?;
    let mut put = cache.put(&args.key, value).content_type(args.content_type.unwrap_or_default()).condition(condition);
    if let Some(ttl) = args.ttl {
        put = put.ttl(ttl);
    }
    put.await?;
    Ok(())
}

pub(super) async fn delete(cache: &Cache, key: &str, conditions: &Conditions) -> anyhow::Result<()> {
    let deleted = cache.delete(key).condition(conditions.condition()?).await?;
    deleted.map(|_| ()).ok_or_else(|| ApiError::key_not_found(Version::NONE).into())
}

pub(super) async fn increment(
    cache: &Cache,
    key: &str,
    delta: i64,
    ttl: Option<Duration>,
    conditions: &Conditions,
) -> anyhow::Result<()> {
    let mut increment = cache.increment(key, delta).condition(conditions.condition()?);
    if let Some(ttl) = ttl {
        increment = increment.ttl(ttl);
    }
    let counted = increment.await?;
    Ok(writeln!(io::stdout(), "{}", counted.value)?)
}

pub(super) async fn list(
    cache: &Cache,
    prefix: Option<String>,
    limit: Option<usize>,
    long: bool,
) -> anyhow::Result<()> {
    let limit = limit.unwrap_or(usize::MAX);
    let page = u32::try_from(limit).unwrap_or(PAGE).clamp(1, PAGE);
    let mut keys = pin!(cache.list().prefix(prefix.unwrap_or_default()).limit(page).stream().take(limit));
    let mut out = BufWriter::new(io::stdout().lock());
    if long {
        let keys: Vec<EntryMetadata> = keys.try_collect().await?;
        writeln!(out, "{}", tables::keys(&keys))?;
    } else {
        while let Some(entry) = keys.try_next().await? {
            writeln!(out, "{}", entry.key)?;
        }
    }
    Ok(out.flush()?)
}
