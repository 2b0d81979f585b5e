//! `cairn import`: many values, several at a time; a line that fails is reported and the others go on.

use std::{
    fs::File,
    io::{self, BufRead, BufReader},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use cairn_client::{Cache, Error};
use futures_util::{StreamExt as _, stream};
use tokio::sync::mpsc;

use super::{
    progress::Progress,
    rows::{Entry, Row, csv_rows, json_rows},
};
use crate::cli::Import;

pub(super) async fn run(cache: &Cache, args: Import) -> anyhow::Result<ExitCode> {
    let (input, bytes) = open(&args.file)?;
    let mut progress = Progress::new("imported", bytes);
    let (concurrency, ttl) = (usize::from(args.concurrency), args.ttl);
    let (sender, receiver) = mpsc::channel(concurrency);
    // Reading files and stdin blocks, so it has a thread; it ends with the input or with the receiver.
    let reading = tokio::task::spawn_blocking(move || read(input, &args, &sender));
    let rows = stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
    let mut stored = std::pin::pin!(
        rows.map(|Row { line, end, entry }| async move {
            let result = match entry {
                Ok(entry) => store(cache, entry, ttl).await.map_err(|error| error.to_string()),
                Err(error) => Err(error),
            };
            (line, end, result)
        })
        .buffer_unordered(concurrency)
    );
    while let Some((line, end, result)) = stored.next().await {
        match result {
            Ok(()) => progress.done(end),
            Err(error) => progress.failed(format_args!("line {line}: {error}")),
        }
    }
    reading.await??;
    Ok(if progress.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The input, and its length when it is a file.
fn open(path: &Path) -> anyhow::Result<(Box<dyn BufRead + Send>, Option<u64>)> {
    if path == Path::new("-") {
        return Ok((Box::new(BufReader::new(io::stdin())), None));
    }
    let file = File::open(path).with_context(|| path.display().to_string())?;
    let metadata = file.metadata().with_context(|| path.display().to_string())?;
    Ok((Box::new(BufReader::new(file)), metadata.is_file().then_some(metadata.len())))
}

fn read(input: Box<dyn BufRead + Send>, args: &Import, sender: &mpsc::Sender<Row>) -> anyhow::Result<()> {
    let rows: Box<dyn Iterator<Item = Row>> = match args.csv {
        true => Box::new(csv_rows(input, &args.key_column, &args.value_column)?),
        false => Box::new(json_rows(input)),
    };
    for row in rows {
        if sender.blocking_send(row).is_err() {
            break;
        }
    }
    Ok(())
}

async fn store(cache: &Cache, entry: Entry, default_ttl: Option<std::time::Duration>) -> Result<(), Error> {
    let mut put = cache.put(&entry.key, entry.value).content_type(entry.content_type);
    if let Some(ttl) = entry.ttl.or(default_ttl) {
        put = put.ttl(ttl);
    }
    put.await.map(|_| ())
}
