//! `cairn watch`.

use std::io::{self, Write as _};

use cairn_client::{Cache, Event};
use futures_util::TryStreamExt as _;

pub(super) async fn watch(cache: &Cache, prefix: Option<String>, long: bool) -> anyhow::Result<()> {
    let mut events = cache.events().prefix(prefix.unwrap_or_default()).open().await?;
    let mut out = io::stdout();
    while let Some(event) = events.try_next().await? {
        match event {
            Event::Gap => eprintln!("cairn: events are missing here"),
            Event::Changed { kind, key, version, size, .. } => {
                let what = kind.as_str();
                match size.filter(|_| long) {
                    Some(size) => writeln!(out, "{what}\t{key}\t{version}\t{size}")?,
                    None if long => writeln!(out, "{what}\t{key}\t{version}\t-")?,
                    None => writeln!(out, "{what}\t{key}")?,
                }
                out.flush()?;
            }
        }
    }
    Ok(())
}
