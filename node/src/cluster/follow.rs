//! What this node answers to primaries: it stores their writes, gives leases, and tells new ones what it has.

use std::{
    collections::BTreeSet,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use cairn_api_spec::{
    ApiError, Version,
    name::partition_of,
    operation::{Durability, IdempotencyKey},
    peer::{
        self, Append, Collect, Collected, Granted, Refused, Release, Released, Renew, Replicate, Replicated, Trace,
        Uploaded,
    },
};
use cairn_engine::{Change, Idempotency, NodeId, Payload, Refused as RefusedWrite, Room, TierError};
use cairn_object_tier::{
    SegmentName,
    rules::upload::{self, Teller},
};
use cairn_replication::{Header, Member, Refusal, Write as Unstable};
use cairn_server_kit::trace::SpanKind;
use tokio::sync::oneshot;

use super::peers::{self, Peers};
use crate::{
    driver::Driver,
    error::NodeError,
    tiers::disk::{self, Mark, Stored, Write},
};

/// Stores a primary's writes, and passes them on along the chain.
///
/// # Errors
/// When nothing of it could be looked at; what is wrong with one partition is told of that partition.
pub async fn replicate(driver: &Driver, peers: &Arc<Peers>, mut message: Replicate) -> Result<Replicated, NodeError> {
    if driver.leaving.load(Ordering::Relaxed) {
        return Ok(refuse_all(driver, &message));
    }
    let bytes =
        message.appends.iter().filter_map(|append| append.row.as_ref()?.value.as_ref()).map(bytes::Bytes::len).sum();
    let room = driver.disk.reserve(bytes, true).await?;
    let passed_on = pass_on(peers, &message);
    let (mut refused, partitions, must_be_stored) = {
        let _accepting = driver.accepting.read().unwrap_or_else(PoisonError::into_inner);
        let appends = std::mem::take(&mut message.appends);
        let (writes, refused) = accept(driver, &message, appends, &room)?;
        let partitions: BTreeSet<u32> = writes.iter().map(|write| write.partition).collect();
        (refused, partitions, enqueue_all(driver, writes))
    };
    let stored = match must_be_stored {
        Ok(Some(stored)) => stored.await.unwrap_or(Err(TierError::ShuttingDown)).map_err(NodeError::from),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = stored {
        tracing::warn!(%error, "a primary's writes cannot be stored");
        refused.extend(partitions.into_iter().map(|partition| refuse(&driver.me.node, partition, true)));
    }
    refused.extend(passed_on.await);
    let marks = believed(driver, &message);
    if !marks.is_empty() {
        driver.disk.mark_uploaded(marks).await?;
    }
    Ok(Replicated { refused })
}

/// Of what a primary says to be in the object store, what this node believes.
fn believed(driver: &Driver, message: &Replicate) -> Vec<Mark> {
    let is_believed = |uploaded: &&Uploaded| {
        let engine = driver.partitions.lock(partition_of(&uploaded.name, driver.partitions.count()));
        let entry = engine.replica().entry();
        let Some(primary) = entry.primary_process() else { return false };
        let session = (uploaded.primary_session, uploaded.session);
        let told = Teller { node: message.primary.as_str(), session, epoch: uploaded.epoch };
        let known = Teller { node: &*primary.node, session: (primary.session, driver.me.session), epoch: entry.epoch };
        upload::believes(&told, &known)
    };
    // Of one whose place cannot be read nothing is believed: the value could never be fetched from there.
    let mark = |uploaded: &Uploaded| {
        let place = match &uploaded.place {
            Some(place) => Some(disk::from_peer(place)?),
            None => None,
        };
        Some(Mark { name: uploaded.name.clone(), version: Version(uploaded.version), place })
    };
    message.uploads.iter().filter(is_believed).filter_map(mark).collect()
}

/// Asks the state machines: which writes are to be stored, and which are refused.
fn accept(
    driver: &Driver,
    message: &Replicate,
    appends: Vec<Append>,
    room: &Room,
) -> Result<(Vec<Write>, Vec<Refused>), NodeError> {
    let primary = Member { node: message.primary.as_str().into(), session: message.primary_session };
    // All of them are read before one is taken: what the state machine has taken must be stored.
    let read = |append: Append| {
        if append.partition >= driver.partitions.count() {
            return Err(NodeError::Transfer(format!("there is no partition {}", append.partition)));
        }
        let header = header(&primary, message.session, append.epoch, append.stable);
        Ok((append.partition, header, append.trace.and_then(Trace::context), write(append)?))
    };
    let appends = appends.into_iter().map(read).collect::<Result<Vec<_>, _>>()?;
    let (mut writes, mut refused) = (Vec::with_capacity(appends.len()), Vec::new());
    for (partition, header, trace, unstable) in appends {
        let durability = unstable.data.durability;
        let (change, idempotency) = (unstable.data.change.clone(), unstable.data.idempotency.clone());
        match driver.protocol(partition, |replica, now, out| replica.append(&header, unstable, now, out)) {
            Ok(true) => {
                let mut span = driver.tracer.child("store", SpanKind::Server, trace);
                span.set_number("cairn.partition", partition.into());
                writes.push(Write {
                    partition,
                    change,
                    flush: durability >= Durability::Fsync,
                    awaited: durability != Durability::Memory,
                    stored: None,
                    room: Some(room.clone()),
                    idempotency,
                    span,
                });
            }
            Ok(false) => {}
            Err(refusal) => refused.push(refusal_of(driver, partition, refusal)),
        }
    }
    Ok((writes, refused))
}

fn refuse(node_id: &str, partition: u32, failed: bool) -> Refused {
    Refused { node_id: node_id.to_owned(), partition, epoch: 0, failed }
}

/// The answer of a node that is about to stop, as if its disk failed: primaries go on without it. Those behind it in a
/// chain get the writes when they are sent again.
fn refuse_all(driver: &Driver, message: &Replicate) -> Replicated {
    let partitions: BTreeSet<u32> = message.appends.iter().map(|append| append.partition).collect();
    let refused = partitions.into_iter().flat_map(|partition| {
        let behind = message.route.iter().map(move |hop| refuse(&hop.node_id, partition, false));
        std::iter::once(refuse(&driver.me.node, partition, true)).chain(behind)
    });
    Replicated { refused: refused.collect() }
}

/// Returns what becomes of the writes, if any of them must be on the disk.
fn enqueue_all(driver: &Driver, mut writes: Vec<Write>) -> Result<Option<oneshot::Receiver<Stored>>, NodeError> {
    let must_be_stored = writes.iter().any(|write| write.awaited);
    let Some(last) = writes.last_mut() else { return Ok(None) };
    let (stored, settled) = oneshot::channel();
    last.stored = must_be_stored.then_some(stored);
    driver.disk.enqueue_all(writes)?;
    Ok(must_be_stored.then_some(settled))
}

/// Sends the message to the next in the chain, if there is one, while this node stores the writes. When the chain is
/// broken, nobody behind it has them.
fn pass_on(peers: &Arc<Peers>, message: &Replicate) -> impl Future<Output = Vec<Refused>> + Send + use<> {
    let next = message.route.split_first().map(|(next, rest)| {
        let forwarded = Replicate { session: next.session, route: rest.to_vec(), ..message.clone() };
        let (peers, node) = (peers.clone(), next.node_id.as_str().into());
        let answer = tokio::spawn(async move { peers.replicate(&node, forwarded).await });
        let partitions: BTreeSet<u32> = message.appends.iter().map(|append| append.partition).collect();
        (answer, partitions, message.route.clone())
    });
    async move {
        let Some((answer, partitions, route)) = next else { return Vec::new() };
        match answer.await {
            Ok(Ok(replicated)) => replicated.refused,
            Ok(Err(_)) | Err(_) => route
                .iter()
                .flat_map(|hop| {
                    partitions.iter().map(|partition| refuse(&hop.node_id, *partition, false)).collect::<Vec<_>>()
                })
                .collect(),
        }
    }
}

/// Tells whether a segment is of no more use to a partition that this node leads.
pub fn release(driver: &Driver, message: &Release) -> Released {
    let Release { segment, partition, epoch, newest } = message;
    let is_released = *partition < driver.partitions.count()
        && segment
            .parse()
            .is_ok_and(|segment: SegmentName| driver.releases_segment(*partition, &segment, *epoch, Version(*newest)));
    Released { is_released }
}

/// Gives leases.
pub fn renew(driver: &Driver, message: &Renew) -> Granted {
    if driver.leaving.load(Ordering::Relaxed) {
        return Granted { leaving: true, ..Granted::default() };
    }
    let primary = Member { node: message.primary.as_str().into(), session: message.primary_session };
    // Whoever cannot store anything is in sync with nothing for long.
    if driver.disk_hangs() {
        let failed = message.leases.iter().map(|lease| lease.partition).collect();
        return Granted { failed, ..Granted::default() };
    }
    let mut granted = Granted::default();
    for lease in message.leases.iter().filter(|lease| lease.partition < driver.partitions.count()) {
        let header = header(&primary, message.session, lease.epoch, lease.stable);
        match driver.protocol(lease.partition, |replica, now, out| replica.renew(&header, now, out)) {
            Ok(()) => granted.partitions.push(lease.partition),
            Err(Refusal::Failed) => granted.failed.push(lease.partition),
            Err(Refusal::NotHolder | Refusal::Stale(_)) => {}
        }
    }
    granted
}

/// Tells a new primary which writes may not be everywhere.
pub fn collect(driver: &Driver, message: &Collect) -> Collected {
    if message.partition >= driver.partitions.count() {
        return Collected { stale: true, ..Collected::default() };
    }
    let primary = Member { node: message.primary.as_str().into(), session: message.primary_session };
    let header = header(&primary, message.session, message.epoch, message.stable);
    match driver.protocol(message.partition, |replica, now, out| replica.collect(&header, now, out)) {
        Ok(collected) => Collected {
            appends: collected.writes.iter().map(|write| peers::append(message.partition, &header, write)).collect(),
            stable: collected.stable.0,
            last_version: collected.last.0,
            ..Collected::default()
        },
        Err(Refusal::NotHolder | Refusal::Failed) => Collected { no_holder: true, ..Collected::default() },
        Err(Refusal::Stale(_)) => Collected { stale: true, ..Collected::default() },
    }
}

/// The write that a message stands for.
///
/// # Errors
/// When it cannot be read.
pub fn write(append: Append) -> Result<Unstable<Payload>, NodeError> {
    let durability = peer::Durability::try_from(append.durability)
        .map_err(|_| NodeError::Transfer("a write without a readable durability".to_owned()))?
        .into();
    let row = append.row.ok_or_else(|| NodeError::Transfer("a write without a row".to_owned()))?;
    let idempotency = match append.idempotency_key.as_str() {
        "" => None,
        text => {
            let key = IdempotencyKey::parse(text).map_err(|error| NodeError::Transfer(error.detail))?;
            Some(Idempotency { key, created: append.created, counted: append.counted })
        }
    };
    let unreadable = |error: ApiError| NodeError::Transfer(error.detail);
    let refused = RefusedWrite::from_peer(append.refused, append.refused_version).map_err(unreadable)?;
    let deletes = row.tombstone;
    let change = Change::from_peer(row, refused, deletes).map_err(unreadable)?;
    let version = change.version();
    Ok(Unstable { version, data: Payload { change, durability, room: None, idempotency, trace: None } })
}

fn header(primary: &Member<NodeId>, session: u64, epoch: u64, stable: u64) -> Header<NodeId> {
    Header { primary: primary.clone(), session, epoch, stable: Version(stable) }
}

fn refusal_of(driver: &Driver, partition: u32, refusal: Refusal) -> Refused {
    let epoch = match refusal {
        Refusal::Stale(epoch) => epoch,
        Refusal::NotHolder | Refusal::Failed => 0,
    };
    Refused { node_id: driver.me.node.to_string(), partition, epoch, failed: refusal == Refusal::Failed }
}
