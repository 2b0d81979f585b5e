//! `cairn import`: many values in batches, several at a time; a line that fails is reported and the others go on. All
//! lines of one key are in the same lane and are stored one after the other, so that the last one counts.

use std::{
    fs::File,
    hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher},
    io::{self, BufRead, BufReader},
    path::Path,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use cairn_api_spec::MAX_FRAMED_VALUE_BYTES;
use cairn_client::{BatchOperation, Cache};
use futures_util::{StreamExt as _, stream};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
};

use super::{
    progress::Progress,
    rows::{Entry, Row, csv_rows, json_rows},
};
use crate::cli::Import;

/// The most rows of one batch. One has fewer when the input is slower than the cluster.
const BATCH_ROWS: usize = 500;
/// The most KiB of values between the input and the cluster.
const MAX_HELD_KIB: u32 = 32 << 10;

/// A row, and its part of what may be held.
type Held = (Row, OwnedSemaphorePermit);

/// A line, the bytes of input that were read with it, and what became of it.
type Done = (u64, u64, Result<(), String>);

pub(super) async fn run(cache: &Cache, args: Import) -> anyhow::Result<ExitCode> {
    let (input, bytes) = open(&args.file)?;
    let mut progress = Progress::new("imported", bytes);
    let ttl = args.ttl;
    let (senders, receivers): (Vec<_>, Vec<_>) = (0..args.concurrency).map(|_| mpsc::channel(BATCH_ROWS)).unzip();
    let runtime = Handle::current();
    // Reading files and stdin blocks, so it has a thread; it ends with the input or with the receiver.
    let reading = tokio::task::spawn_blocking(move || read(input, &args, &senders, &runtime));
    let lane = |receiver| {
        let rows = stream::unfold(receiver, |mut receiver: mpsc::Receiver<Held>| async {
            Some((receiver.recv().await?, receiver))
        });
        rows.ready_chunks(BATCH_ROWS).then(|rows| store(cache, rows, ttl)).boxed_local()
    };
    let mut batches = stream::select_all(receivers.into_iter().map(lane));
    while let Some(done) = batches.next().await {
        for (line, end, result) in done {
            match result {
                Ok(()) => progress.done(end),
                Err(error) => progress.failed(format_args!("line {line}: {error}")),
            }
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

fn read(
    input: Box<dyn BufRead + Send>,
    args: &Import,
    lanes: &[mpsc::Sender<Held>],
    runtime: &Handle,
) -> anyhow::Result<()> {
    let room = Arc::new(Semaphore::new(MAX_HELD_KIB as usize));
    let rows: Box<dyn Iterator<Item = Row>> = match args.csv {
        true => Box::new(csv_rows(input, &args.key_column, &args.value_column)?),
        false => Box::new(json_rows(input)),
    };
    for row in rows {
        let key = row.entry.as_ref().map_or("", |entry| &entry.key);
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let lane = usize::try_from(hash % lanes.len() as u64)?;
        let bytes = row.entry.as_ref().map_or(0, |entry| entry.key.len() + entry.value.len());
        let kib = u32::try_from(bytes >> 10).unwrap_or(u32::MAX).clamp(1, MAX_HELD_KIB);
        let held = runtime.block_on(room.clone().acquire_many_owned(kib))?;
        if lanes[lane].blocking_send((row, held)).is_err() {
            break;
        }
    }
    Ok(())
}

/// Rows that go in one batch.
#[derive(Default)]
struct Gathered {
    lines: Vec<(u64, u64)>,
    operations: Vec<BatchOperation>,
    held: Vec<OwnedSemaphorePermit>,
}

impl Gathered {
    async fn store(self, cache: &Cache) -> impl Iterator<Item = Done> {
        let Self { lines, operations, held } = self;
        let results = cache.batch(operations).await;
        drop(held);
        let done = |((line, end), result): ((u64, u64), Result<_, cairn_client::Error>)| {
            (line, end, result.map(drop).map_err(|error| error.to_string()))
        };
        lines.into_iter().zip(results).map(done)
    }
}

/// Stores rows in their order: values that are too long for a batch each by itself, the others together.
async fn store(cache: &Cache, rows: Vec<Held>, default_ttl: Option<Duration>) -> Vec<Done> {
    let mut done = Vec::with_capacity(rows.len());
    let mut gathered = Gathered::default();
    for (Row { line, end, entry }, permit) in rows {
        match entry {
            Err(error) => done.push((line, end, Err(error))),
            Ok(entry) if entry.value.len() > MAX_FRAMED_VALUE_BYTES => {
                done.extend(std::mem::take(&mut gathered).store(cache).await);
                done.push((line, end, put(cache, entry, default_ttl).await));
            }
            Ok(Entry { key, value, ttl, content_type }) => {
                let put = BatchOperation::put(key, value).content_type(content_type);
                gathered.operations.push(match ttl.or(default_ttl) {
                    Some(ttl) => put.ttl(ttl),
                    None => put,
                });
                gathered.lines.push((line, end));
                gathered.held.push(permit);
            }
        }
    }
    done.extend(gathered.store(cache).await);
    done
}

async fn put(cache: &Cache, entry: Entry, default_ttl: Option<Duration>) -> Result<(), String> {
    let mut put = cache.put(&entry.key, entry.value).content_type(entry.content_type);
    if let Some(ttl) = entry.ttl.or(default_ttl) {
        put = put.ttl(ttl);
    }
    put.await.map(drop).map_err(|error| error.to_string())
}
