//! A partition on its way from its primary to a learner.
//!
//! The learner copies all rows while the primary goes on serving, then asks it to hold the partition and copies what
//! changed since, by version; then the master makes it the primary. From the hold on, the primary answers nothing
//! about the partition until the map says who owns it, so no write is lost between the two.

use std::time::Duration;

use cairn_api_spec::{
    ErrorCode, Version,
    cluster::{CaughtUp, Partition},
    peer::{Fetch, Fetched, Request, RequestKind, Response, ResponseKind},
};
use cairn_link::{Client, Limits};

use crate::{disk::Row, error::NodeError, masters::Masters, ownership::Identity, partition::Role, store::Store};

/// What one page holds, at most and if more than one row.
const PAGE_ROWS: usize = 512;
const PAGE_BYTES: u64 = 1 << 20;
const FETCH_DEADLINE: Duration = Duration::from_secs(30);
/// How long a primary waits for its own map, or for the last writes, before the learner must ask again.
const HOLD_TIMEOUT: Duration = Duration::from_secs(3);

/// The primary's side: a page of the partition.
///
/// # Errors
/// [`NodeError::NotOwner`] when this node is not the primary at the learner's epoch.
pub async fn serve_fetch(store: &Store, fetch: Fetch) -> Result<Fetched, NodeError> {
    let partition = fetch.partition;
    let not_owner = NodeError::NotOwner { partition, epoch: store.metrics.ring_epoch.get().cast_unsigned() };
    if partition >= store.partitions.count() {
        return Err(not_owner);
    }
    let mut changes = store.partitions.changes();
    let prepared = async {
        loop {
            changes.borrow_and_update();
            {
                let mut state = store.partitions.lock(partition);
                let primary = matches!(state.role, Role::Serving | Role::Held);
                if state.epoch > fetch.epoch || (state.epoch == fetch.epoch && !primary) {
                    return Err(not_owner.clone());
                }
                if state.epoch == fetch.epoch {
                    if fetch.hold_writes && state.role == Role::Serving {
                        tracing::debug!(partition, learner = fetch.learner, "the partition is held");
                        store.partitions.set_role(partition, &mut state, Role::Held);
                    }
                    if !fetch.hold_writes || !state.has_pending() {
                        return Ok(state.last_version);
                    }
                }
            }
            if changes.changed().await.is_err() {
                return Err(NodeError::ShuttingDown);
            }
        }
    };
    let late = NodeError::PartitionOffline { partition, why: "its last writes are not on the disk" };
    let last_version = tokio::time::timeout(HOLD_TIMEOUT, prepared).await.unwrap_or(Err(late))?;
    // What was given a version before now is on the disk after this.
    store.disk.barrier().await?;
    let after = Version(fetch.after_version);
    let (rows, next_cursor) = store.disk.scan_partition(partition, after, fetch.cursor, PAGE_ROWS, PAGE_BYTES).await?;
    Ok(Fetched { rows: rows.into_iter().map(Into::into).collect(), next_cursor, last_version: last_version.0 })
}

/// The learner's side: copies a partition whose epoch is `epoch` from its primary. Returns its highest version.
///
/// # Errors
/// When the primary does not answer or is none any more, or the disk fails.
pub async fn fetch_all(
    store: &Store,
    identity: &Identity,
    partition: u32,
    epoch: u64,
    primary: &str,
) -> Result<Version, NodeError> {
    let client = Client::new(primary, Limits::default());
    let fetch = Fetch { partition, epoch, learner: identity.node_id.clone(), ..Fetch::default() };
    let copied = copy(store, &client, fetch.clone()).await?;
    copy(store, &client, Fetch { after_version: copied.0, hold_writes: true, ..fetch }).await
}

/// Copies page by page. Returns the highest version that the primary had given before the first page.
async fn copy(store: &Store, client: &Client, mut fetch: Fetch) -> Result<Version, NodeError> {
    let mut before_first = None;
    loop {
        let request = Request { kind: Some(RequestKind::Fetch(fetch.clone())) };
        let failed = |error: &dyn std::fmt::Display| NodeError::Transfer(error.to_string());
        let response: Response = client.call(&request, FETCH_DEADLINE).await.map_err(|error| failed(&error))?;
        let page = match response.kind {
            Some(ResponseKind::Fetched(page)) => page,
            Some(ResponseKind::Failed(error)) => return Err(failed(&cairn_api_spec::ApiError::from(error))),
            _ => return Err(failed(&"the primary answered something else")),
        };
        let before_first = *before_first.get_or_insert(Version(page.last_version));
        let uploads = store.objects.is_some();
        let rows = page.rows.into_iter().map(|row| Row::from_peer(row, fetch.partition, uploads)).collect();
        store.disk.ingest(rows).await?;
        if page.next_cursor == 0 {
            return Ok(before_first);
        }
        fetch.cursor = page.next_cursor;
    }
}

/// Asks to become the primary until the master says yes, with the new entry, or no.
pub async fn take_over(masters: &Masters, identity: &Identity, partition: u32, epoch: u64) -> Option<Partition> {
    let message = CaughtUp { node_id: identity.node_id.clone(), incarnation: identity.incarnation, epoch };
    loop {
        match masters.caught_up(partition, &message).await {
            Ok(entry) => return Some(entry),
            Err(error) if error.code() == Some(ErrorCode::PreconditionFailed) => {
                tracing::info!(partition, %error, "the partition went elsewhere");
                return None;
            }
            Err(error) => tracing::warn!(partition, %error, "the master has not made this node the primary"),
        }
        tokio::time::sleep(HOLD_TIMEOUT / 10).await;
    }
}
