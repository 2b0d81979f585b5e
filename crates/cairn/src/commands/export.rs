//! `cairn export`: the inverse of import, in the order of the keys.

use std::{
    io::{self, BufWriter},
    pin::pin,
    process::ExitCode,
    time::{Duration, SystemTime},
};

use cairn_client::{Cache, EntryMetadata, Error};
use futures_util::TryStreamExt as _;

use super::{
    progress::Progress,
    rows::{Entry, Writer},
};
use crate::cli::Export;

/// Keys in a page; the servers give no more.
const PAGE: u32 = 1_000;
/// What a value without a type is read with.
const NO_TYPE: &str = "application/octet-stream";

pub(super) async fn run(cache: &Cache, args: Export) -> anyhow::Result<ExitCode> {
    let mut progress = Progress::new("exported", None);
    let mut writer = Writer::new(BufWriter::new(io::stdout()), args.csv)?;
    let keys = cache.list().prefix(args.prefix.unwrap_or_default()).limit(PAGE).stream();
    let reads = keys.map_ok(|metadata| async move {
        let read = read(cache, &metadata).await;
        Ok((metadata.key, read))
    });
    let mut entries = pin!(reads.try_buffered(usize::from(args.concurrency)));
    while let Some((key, read)) = entries.try_next().await? {
        match read {
            Ok(Some(entry)) => {
                writer.write(entry)?;
                progress.done(0);
            }
            // Removed since it was listed.
            Ok(None) => {}
            Err(error) => progress.failed(format_args!("{key:?}: {error}")),
        }
    }
    writer.flush()?;
    Ok(if progress.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn read(cache: &Cache, metadata: &EntryMetadata) -> Result<Option<Entry>, Error> {
    let Some(value) = cache.get(&metadata.key).await? else { return Ok(None) };
    // The listing knows the milliseconds, when it speaks of the same value.
    let listed = metadata.expires_at.filter(|_| metadata.version == value.version).map(SystemTime::from);
    let expires = listed.or(value.expires);
    let ttl = expires.map(|at| at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO));
    let content_type = if value.content_type == NO_TYPE { String::new() } else { value.content_type };
    Ok(Some(Entry { key: metadata.key.clone(), value: value.bytes, ttl, content_type }))
}
