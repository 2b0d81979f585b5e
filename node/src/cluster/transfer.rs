//! A partition on its way from its primary to a learner.
//!
//! With the first page the learner becomes active: from then on it gets every write, and the primary waits for its word.
//! What was written before is on the primary's disk when the first page is read, or stands in that page by name, because
//! the disk has refused it. So pages and writes together are everything, whatever their order: the newest version wins.

use std::{collections::HashMap, sync::PoisonError, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{
    Version,
    cluster::Transfer,
    peer::{self, Fetch, Fetched, FirstOutcome, Request, RequestKind, Response, ResponseKind},
};
use cairn_engine::{NodeId, checksum};
use cairn_link::Client;
use cairn_replication::{Member, Role};
use futures_util::{StreamExt, TryStreamExt, stream};

use super::{
    peers::Peers,
    transfers::{Reported, Transfers},
};
use crate::{driver::Driver, error::NodeError, tiers::disk::Row};

/// What one page holds, at most and if more than one row.
const PAGE_ROWS: usize = 512;
const PAGE_BYTES: u64 = 1 << 20;
/// The same of a page without values.
const PAGE_HEADS: usize = 4_096;
const PAGE_KEYS: usize = 4_096;
/// Rows that are read at the same time for one page: few, since their values may be large.
const LOADS: usize = 8;
const FETCH_DEADLINE: Duration = Duration::from_secs(30);
/// How often a learner that has everything says so.
const STAY_INTERVAL: Duration = Duration::from_millis(500);

/// The primary's side: a page of the partition.
///
/// # Errors
/// [`cairn_engine::Error::NotOwner`] when this node is not the primary, or the learner is none, or must begin again.
pub async fn serve_fetch(driver: &Driver, fetch: Fetch) -> Result<Fetched, NodeError> {
    let partition = fetch.partition;
    // Who asks may know the map before this node does.
    let learner = Member { node: fetch.learner.as_str().into(), session: fetch.session };
    if fetch.merge {
        return serve_merge(driver, &learner, &fetch).await;
    }
    driver.ready(partition, fetch.epoch).await?;
    let page = driver.protocol(partition, |replica, now, effects| {
        if fetch.done && replica.must_begin_again(&learner, fetch.copy) {
            return Some(Fetched { begin_again: true, ..Fetched::default() });
        }
        if fetch.copy == 0 {
            replica.activate(&learner, fetch.epoch).ok()?;
        }
        let copy = replica.activation(&learner).filter(|copy| fetch.copy == 0 || fetch.copy == *copy)?;
        if fetch.done {
            replica.caught_up(&learner, now, effects).ok()?;
        }
        Some(Fetched { copy, ..Fetched::default() })
    });
    let mut page = page.ok_or_else(|| driver.not_owner(partition))?;
    if fetch.done {
        return Ok(page);
    }
    if fetch.copy == 0 {
        // What was given a version before now is on the disk after this.
        driver.disk.barrier().await?;
        page.total_bytes = driver.disk.partition_bytes(partition).await?;
        page.rows = if fetch.heads { driver.partitions.lock(partition).heads_ahead() } else { Vec::new() };
    }
    page.last_version = driver.partitions.lock(partition).replica().last().0;
    if let Some(after) = fetch.keys_after {
        page.keys = driver.disk.idempotency_keys(partition, Version(after), PAGE_KEYS).await?;
        return Ok(page);
    }
    let rows = if !fetch.names.is_empty() {
        let (rows, answered) = named_rows(driver, fetch.names).await?;
        page.answered = answered;
        rows
    } else {
        let (rows, next) = match fetch.heads {
            true => driver.disk.scan_heads(partition, fetch.cursor, PAGE_HEADS).await?,
            false => driver.disk.scan_partition(partition, fetch.cursor, PAGE_ROWS, PAGE_BYTES).await?,
        };
        page.next_cursor = next;
        rows
    };
    page.rows.extend(healed(driver, rows).await.into_iter().map(Into::into));
    Ok(page)
}

/// A replica's side: a page for a new primary, when all processes were restarted at once.
async fn serve_merge(driver: &Driver, primary: &Member<NodeId>, fetch: &Fetch) -> Result<Fetched, NodeError> {
    let partition = fetch.partition;
    driver.wait_for(partition, fetch.epoch, |role| role == Role::Replica).await?;
    if driver.partitions.lock(partition).replica().entry().primary_process() != Some(primary) {
        return Err(driver.not_owner(partition));
    }
    if let Some(after) = fetch.keys_after {
        let keys = driver.disk.idempotency_keys(partition, Version(after), PAGE_KEYS).await?;
        return Ok(Fetched { keys, ..Fetched::default() });
    }
    let (rows, next_cursor) = driver.disk.scan_partition(partition, fetch.cursor, PAGE_ROWS, PAGE_BYTES).await?;
    let rows = healed(driver, rows).await.into_iter().map(Into::into).collect();
    Ok(Fetched { rows, next_cursor, ..Fetched::default() })
}

/// The rows, those that do not match their checksum mended from another copy. One that cannot be mended goes with its
/// checksum, so it is an error there, too, and never a value.
async fn healed(driver: &Driver, mut rows: Vec<Row>) -> Vec<Row> {
    for row in &mut rows {
        let is_rotten = |value: &Bytes| checksum(&row.name, row.metadata.version, value) != row.checksum;
        if row.value.as_ref().is_some_and(is_rotten) {
            driver.metrics.corrupt_rows.inc();
            tracing::error!(partition = row.partition, "a row to be copied does not match its checksum");
            row.value = driver.heal(row).await.or_else(|| row.value.take());
        }
    }
    rows
}

/// Adds to this node's copy what another one has in a newer version.
///
/// # Errors
/// When the other node does not answer, or the disk fails.
pub async fn merge(
    driver: &Driver,
    peers: &Peers,
    transfers: &Transfers,
    partition: u32,
    other: &NodeId,
) -> Result<Version, NodeError> {
    let mut copy = Copy::new(driver, peers, transfers, &driver.me, partition, other)?;
    copy.fetch.merge = true;
    let (mut cursor, mut last) = (0, Version::NONE);
    loop {
        let page = copy.ask(Fetch { cursor, ..copy.fetch.clone() }).await?;
        last = page.rows.iter().map(|row| Version(row.version)).fold(last, Version::max);
        cursor = page.next_cursor;
        copy.store_rows(page.rows).await?;
        if cursor == 0 {
            break;
        }
    }
    // Of a write that was refused there is nothing but its key.
    Ok(last.max(copy.fetch_keys(Version(u64::MAX)).await?))
}

/// The rows of the first names, and of how many.
async fn named_rows(driver: &Driver, names: Vec<Bytes>) -> Result<(Vec<Row>, u32), NodeError> {
    let (mut rows, mut bytes, mut answered) = (Vec::new(), 0, 0);
    let mut loads =
        stream::iter(names.into_iter().take(PAGE_ROWS)).map(|name| driver.disk.load(name, true)).buffered(LOADS);
    while bytes < PAGE_BYTES
        && let Some(row) = loads.try_next().await?
    {
        answered += 1;
        if let Some(mut row) = row {
            row.place = driver.disk.place(&row).await?;
            bytes += row.value.as_ref().map_or(0, |value| value.len() as u64);
            rows.push(row);
        }
    }
    Ok((rows, answered))
}

/// One copy of a partition, at the learner.
pub struct Copy<'a> {
    driver: &'a Driver,
    transfers: &'a Transfers,
    client: Client,
    partition: u32,
    /// What every request for this copy says.
    fetch: Fetch,
    progress: Transfer,
    last_version: Version,
}

impl<'a> Copy<'a> {
    /// A copy that is not begun.
    ///
    /// # Errors
    /// When the primary is not registered.
    pub fn new(
        driver: &'a Driver,
        peers: &Peers,
        transfers: &'a Transfers,
        learner: &Member<NodeId>,
        partition: u32,
        primary: &NodeId,
    ) -> Result<Self, NodeError> {
        let client = peers.client(primary).map_err(|error| NodeError::Transfer(error.to_string()))?;
        let epoch = driver.partitions.lock(partition).replica().entry().epoch;
        let (learner, session) = (learner.node.to_string(), learner.session);
        let fetch = Fetch { partition, epoch, learner, session, ..Fetch::default() };
        let progress = Transfer { partition, ..Transfer::default() };
        Ok(Self { driver, transfers, client, partition, fetch, progress, last_version: Version::NONE })
    }

    /// Copies everything. Rows that are here already are kept where the primary has the same version; what it lacks, or
    /// has in an earlier version, goes: its content is what counts. Returns the highest version.
    ///
    /// # Errors
    /// When the primary does not answer or is none any more, or the disk fails.
    pub async fn run(&mut self) -> Result<Version, NodeError> {
        let _reported = Reported(self.transfers, self.partition);
        let disk = &self.driver.disk;
        // What was accepted of earlier primaries is in the disk's queue after this, and on the disk with the next task.
        drop(self.driver.accepting.write().unwrap_or_else(PoisonError::into_inner));
        // Before the copy begins: from then on keys come with the writes, too.
        disk.drop_keys(self.partition).await?;
        let mut mine = disk.versions(self.partition).await?;
        let heads = !mine.is_empty();
        let mut cursor = 0;
        loop {
            let page = self.ask(Fetch { cursor, heads, ..self.fetch.clone() }).await?;
            cursor = page.next_cursor;
            if heads {
                let (outdated, wanted) = compare(&mut mine, page.rows);
                disk.remove_names(outdated).await?;
                self.fetch_names(wanted).await?;
            } else {
                self.store_rows(page.rows).await?;
            }
            if cursor == 0 {
                break;
            }
        }
        disk.remove_names(mine.into_iter().collect()).await?;
        // Those of later writes come with them.
        self.fetch_keys(self.last_version).await?;
        Ok(self.last_version)
    }

    /// Copies the idempotency keys of the writes up to a version. Returns that of the last one.
    async fn fetch_keys(&mut self, end: Version) -> Result<Version, NodeError> {
        let mut after = Version::NONE;
        while after < end {
            let page = self.ask(Fetch { keys_after: Some(after.0), ..self.fetch.clone() }).await?;
            let Some(last) = page.keys.last() else { break };
            after = Version(last.version);
            let bytes = page.keys.iter().map(|first| (first.key.len() + first.name.len()) as u64).sum();
            page.keys.iter().try_for_each(FirstOutcome::check).map_err(|error| NodeError::Transfer(error.detail))?;
            self.driver.disk.ingest_keys(self.partition, page.keys).await?;
            self.transfers.pace(bytes).await;
        }
        Ok(after)
    }

    async fn fetch_names(&mut self, mut names: Vec<Bytes>) -> Result<(), NodeError> {
        while !names.is_empty() {
            let first = names.iter().take(PAGE_ROWS).cloned().collect();
            let page = self.ask(Fetch { names: first, ..self.fetch.clone() }).await?;
            let answered = (page.answered as usize).clamp(1, names.len());
            names.drain(..answered);
            self.store_rows(page.rows).await?;
        }
        Ok(())
    }

    async fn store_rows(&mut self, rows: Vec<peer::Row>) -> Result<(), NodeError> {
        let uploads = self.driver.objects.is_some();
        let rows = rows.into_iter().map(|row| Row::from_peer(row, self.partition, uploads));
        let rows = rows.collect::<Result<Vec<_>, _>>()?;
        let bytes = rows.iter().map(|row| row.value.as_ref().map_or(0, |value| value.len() as u64)).sum();
        self.driver.disk.ingest(rows).await?;
        self.progress.bytes += bytes;
        self.transfers.report(self.partition, Some(self.progress));
        self.driver.metrics.replication.transferred.inc_by(bytes);
        self.transfers.pace(bytes).await;
        Ok(())
    }

    /// Says that everything is here, until the entry says so, too.
    ///
    /// # Errors
    /// Only when the primary wants the copy to begin again. Whatever else goes wrong, this node may be in-sync by now
    /// without knowing it, and must keep what it has.
    pub async fn stay(&mut self) -> Result<(), NodeError> {
        let _reported = Reported(self.transfers, self.partition);
        self.progress.complete = true;
        loop {
            self.transfers.report(self.partition, Some(self.progress));
            let (role, epoch) = {
                let engine = self.driver.partitions.lock(self.partition);
                (engine.replica().role(), engine.replica().entry().epoch)
            };
            if role != Role::Learner {
                return Ok(());
            }
            match self.ask(Fetch { epoch, done: true, ..self.fetch.clone() }).await {
                Ok(page) if page.begin_again => {
                    return Err(NodeError::Transfer("the primary wants it to begin again".to_owned()));
                }
                Ok(_) => {}
                Err(error) => {
                    tracing::debug!(partition = self.partition, %error, "the primary has not heard that all is here");
                }
            }
            tokio::time::sleep(STAY_INTERVAL).await;
        }
    }

    async fn ask(&mut self, fetch: Fetch) -> Result<Fetched, NodeError> {
        let failed = |error: &dyn std::fmt::Display| NodeError::Transfer(error.to_string());
        let request = Request { kind: Some(RequestKind::Fetch(fetch)) };
        let response: Response = self.client.call(&request, FETCH_DEADLINE).await.map_err(|error| failed(&error))?;
        let page = match response.kind {
            Some(ResponseKind::Fetched(page)) => page,
            Some(ResponseKind::Failed(error)) => return Err(failed(&cairn_api_spec::ApiError::from(error))),
            _ => return Err(failed(&"the primary answered something else")),
        };
        if self.fetch.copy == 0 {
            self.fetch.copy = page.copy;
            self.progress.total_bytes = page.total_bytes;
        }
        self.last_version = self.last_version.max(Version(page.last_version));
        Ok(page)
    }
}

/// Of a page of the primary's rows: which of those here are not its own, and which are to be fetched. What is the same is
/// taken out of `mine`.
fn compare(mine: &mut HashMap<Bytes, Version>, page: Vec<peer::Row>) -> (Vec<(Bytes, Version)>, Vec<Bytes>) {
    let (mut outdated, mut wanted) = (Vec::new(), Vec::new());
    for head in page {
        match mine.remove(&head.name) {
            Some(version) if version.0 == head.version => continue,
            // An older one, too: by the time that the row is asked for, its deletion may have been forgotten.
            Some(version) => outdated.push((head.name.clone(), version)),
            None => {}
        }
        wanted.push(head.name);
    }
    (outdated, wanted)
}
