//! Reads of the lower tiers: the disk, then the object store.

use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use cairn_api_spec::{EntryName, TraceContext, operation::Tier};
use cairn_engine::{Entry, Head, Loaded, TierError, checksum};
use cairn_object_tier::Place;
use cairn_server_kit::trace::SpanKind;

use super::Driver;
use crate::{
    clock,
    error::NodeError,
    tiers::{disk::Row, object::ObjectStore},
};

/// How long a disk is waited for: less than a request waits, so that whoever asked hears of the disk.
const DISK_TIMEOUT: Duration = Duration::from_millis(4_500);

/// Bounds a read of the disk: one that hangs must not hold its reader.
pub(super) async fn in_time<T>(read: impl Future<Output = Result<T, NodeError>>) -> Result<T, TierError> {
    match tokio::time::timeout(DISK_TIMEOUT, read).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(TierError::DiskHangs),
    }
}

impl Driver {
    pub(super) async fn look_up(
        &self,
        name: &Bytes,
        with_value: bool,
        trace: Option<TraceContext>,
    ) -> Result<Loaded, TierError> {
        let found = {
            let mut span = self.tracer.child("disk", SpanKind::Internal, trace);
            span.set("cairn.operation", "read");
            in_time(self.disk.load(name.clone(), with_value)).await?
        };
        let Some(mut row) = found else { return Ok(Loaded::Nothing) };
        if !with_value || !row.is_live(clock::wall()) {
            return Ok(Loaded::Head(head(row)));
        }
        let (value, tier) = match row.value.take() {
            Some(value) if checksum(name, row.metadata.version, &value) == row.checksum => (value, Tier::Disk),
            Some(_) => {
                self.metrics.corrupt_rows.inc();
                let trace_id = trace.map(|trace| tracing::field::display(trace.trace_id));
                tracing::error!(key = ?name, trace_id, "a row does not match its checksum");
                match self.heal(&row).await {
                    Some(value) => (value, Tier::Disk),
                    None => (self.fetch_object(&row, trace).await?, Tier::Object),
                }
            }
            None => (self.fetch_object(&row, trace).await?, Tier::Object),
        };
        let name = EntryName::from_bytes(name.clone()).map_err(|_| TierError::Corrupt)?;
        let entry = Entry::new(&name, &row.metadata, &value);
        if tier == Tier::Object
            && !self.over_budget.load(Ordering::Relaxed)
            && let Err(error) = in_time(self.disk.refill(name.as_bytes().clone(), row.metadata.version, value)).await
        {
            tracing::warn!(%error, "a value from the object store is not put back on the disk");
        }
        Ok(Loaded::Value(entry, tier))
    }

    /// The value of a row that is not what was written, from another in-sync copy, and puts it in its place.
    pub async fn heal(&self, row: &Row) -> Option<Bytes> {
        let name = EntryName::from_bytes(row.name.clone()).ok()?;
        let version = row.metadata.version;
        let copies = self.partitions.lock(row.partition).replica().entry().in_sync.clone();
        for member in copies.iter().filter(|member| **member != self.me) {
            let Some((metadata, value)) = self.network.read_copy(&member.node, &name).await else { continue };
            if metadata.version == version && checksum(&row.name, version, &value) == row.checksum {
                if let Err(error) = in_time(self.disk.mend(row.name.clone(), version, value.clone())).await {
                    tracing::warn!(%error, "a row that does not match its checksum is not mended");
                }
                self.metrics.healed_rows.inc();
                return Some(value);
            }
        }
        None
    }

    async fn fetch_object(&self, row: &Row, trace: Option<TraceContext>) -> Result<Bytes, TierError> {
        let Some(place) = in_time(self.disk.place(row)).await? else { return Err(TierError::Corrupt) };
        let Some(objects) = &self.objects else { return Err(TierError::ObjectStore("none is configured".to_owned())) };
        let mut span = self.tracer.child("object_store", SpanKind::Client, trace);
        span.set("cairn.operation", "read");
        match self.fetch_placed(objects, row, &place).await {
            Ok(Some(value)) => Ok(value),
            Ok(None) => Err(TierError::ObjectLost(row.metadata.version.0)),
            Err(error) => {
                span.fail("the object store did not answer as it should");
                self.metrics.object_errors.inc();
                Err(error.into())
            }
        }
    }

    async fn fetch_placed(&self, objects: &ObjectStore, row: &Row, place: &Place) -> Result<Option<Bytes>, NodeError> {
        let found = objects.fetch(row, place).await?;
        if found.is_some() {
            return Ok(found);
        }
        // The value was moved, and this node has not heard of it, or just has.
        self.reconcile(objects, row.partition).await?;
        match self.disk.place(row).await? {
            Some(now) if now != *place => objects.fetch(row, &now).await,
            _ => Ok(None),
        }
    }
}

fn head(row: Row) -> Head {
    Head {
        uploaded: !row.dirty,
        on_disk: row.object_version != row.metadata.version,
        metadata: row.metadata,
        tombstone: row.tombstone,
    }
}
