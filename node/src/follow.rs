//! What this node answers to primaries: it stores their writes, gives leases, and tells new ones what it has.

use std::{
    collections::BTreeSet,
    sync::{PoisonError, atomic::Ordering},
};

use cairn_api_spec::{
    Version,
    operation::{Durability, IdempotencyKey},
    peer::{Append, Collect, Collected, Granted, Refused, Renew, Replicate, Replicated, Trace},
};
use cairn_replication::{Header, Member, Refusal, Write as Unstable};
use cairn_server_kit::trace::SpanKind;
use tokio::sync::oneshot;

use crate::{
    disk::{Change, Idempotency, Reservation, Write},
    error::NodeError,
    mailbox::{Reply, Settled},
    partition::Payload,
    peers,
    store::Store,
};

/// Stores a primary's writes, and passes them on along the chain.
///
/// # Errors
/// When nothing of it could be looked at; what is wrong with one partition is told of that partition.
pub async fn replicate(store: &Store, mut message: Replicate) -> Result<Replicated, NodeError> {
    if store.leaving.load(Ordering::Relaxed) {
        return Ok(refuse_all(store, &message));
    }
    let bytes = message.appends.iter().map(|append| append.row.value.as_ref().map_or(0, bytes::Bytes::len)).sum();
    let reservation = store.disk.reserve(bytes, true).await?;
    let passed_on = pass_on(store, &message);
    let (mut refused, partitions, must_be_stored) = {
        let _accepting = store.accepting.read().unwrap_or_else(PoisonError::into_inner);
        let appends = std::mem::take(&mut message.appends);
        let (writes, refused) = accept(store, &message, appends, &reservation)?;
        let partitions: BTreeSet<u32> = writes.iter().map(|write| write.partition).collect();
        (refused, partitions, enqueue_all(store, writes))
    };
    let stored = match must_be_stored {
        Ok(Some(settled)) => settled.await.unwrap_or(Err(NodeError::ShuttingDown)),
        Ok(None) => Ok(()),
        Err(error) => Err(error),
    };
    if let Err(error) = stored {
        tracing::warn!(%error, "a primary's writes cannot be stored");
        refused.extend(partitions.into_iter().map(|partition| refuse(&store.me.node, partition, true)));
    }
    refused.extend(passed_on.await);
    if !message.uploads.is_empty() {
        let uploaded = message.uploads.into_iter();
        let uploaded = uploaded.map(|u| (u.name, Version(u.version), Version(u.object_version))).collect();
        store.disk.mark_uploaded(uploaded).await?;
    }
    Ok(Replicated { refused })
}

/// Asks the state machines: which writes are to be stored, and which are refused.
fn accept(
    store: &Store,
    message: &Replicate,
    appends: Vec<Append>,
    reservation: &Reservation,
) -> Result<(Vec<Write>, Vec<Refused>), NodeError> {
    let primary = Member { node: message.primary.as_str().into(), session: message.primary_session };
    let (mut writes, mut refused) = (Vec::with_capacity(appends.len()), Vec::new());
    for append in appends {
        let (partition, durability) = (append.partition, append.durability);
        if partition >= store.partitions.count() {
            return Err(NodeError::Transfer(format!("there is no partition {partition}")));
        }
        let header = header(&primary, message.session, append.epoch, append.stable);
        let trace = append.trace.and_then(Trace::context);
        let unstable = write(append)?;
        let (change, idempotency) = (unstable.data.change.clone(), unstable.data.idempotency.clone());
        match store.drive(partition, |locked, now, out| locked.replica.append(&header, unstable, now, out)) {
            Ok(true) => {
                let mut span = store.tracer.child("store", SpanKind::Server, trace);
                span.set_number("cairn.partition", partition.into());
                writes.push(Write {
                    partition,
                    change,
                    flush: durability == Durability::Fsync as u32,
                    awaited: durability != Durability::Memory as u32,
                    reply: None,
                    reservation: Some(reservation.clone()),
                    idempotency,
                    span,
                });
            }
            Ok(false) => {}
            Err(refusal) => refused.push(refusal_of(store, partition, refusal)),
        }
    }
    Ok((writes, refused))
}

fn refuse(node_id: &str, partition: u32, failed: bool) -> Refused {
    Refused { node_id: node_id.to_owned(), partition, epoch: 0, failed }
}

/// The answer of a node that is about to stop, as if its disk failed: primaries go on without it. Those behind it in a
/// chain get the writes when they are sent again.
fn refuse_all(store: &Store, message: &Replicate) -> Replicated {
    let partitions: BTreeSet<u32> = message.appends.iter().map(|append| append.partition).collect();
    let refused = partitions.into_iter().flat_map(|partition| {
        let behind = message.route.iter().map(move |hop| refuse(&hop.node_id, partition, false));
        std::iter::once(refuse(&store.me.node, partition, true)).chain(behind)
    });
    Replicated { refused: refused.collect() }
}

/// Returns what becomes of the writes, if any of them must be on the disk.
fn enqueue_all(store: &Store, mut writes: Vec<Write>) -> Result<Option<oneshot::Receiver<Settled>>, NodeError> {
    let must_be_stored = writes.iter().any(|write| write.awaited);
    let Some(last) = writes.last_mut() else { return Ok(None) };
    let (reply, settled) = Reply::new(None);
    last.reply = must_be_stored.then_some(reply);
    store.disk.enqueue_all(writes)?;
    Ok(must_be_stored.then_some(settled))
}

/// Sends the message to the next in the chain, if there is one, while this node stores the writes. When the chain is
/// broken, nobody behind it has them.
fn pass_on(store: &Store, message: &Replicate) -> impl Future<Output = Vec<Refused>> + Send + use<> {
    let next = message.route.split_first().map(|(next, rest)| {
        let forwarded = Replicate { session: next.session, route: rest.to_vec(), ..message.clone() };
        let (store, node) = (store.clone(), next.node_id.as_str().into());
        let answer = tokio::spawn(async move { store.peers.replicate(&node, forwarded).await });
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

/// Gives leases.
pub fn renew(store: &Store, message: &Renew) -> Granted {
    if store.leaving.load(Ordering::Relaxed) {
        return Granted { leaving: true, ..Granted::default() };
    }
    let primary = Member { node: message.primary.as_str().into(), session: message.primary_session };
    let known = message.leases.iter().filter(|lease| lease.partition < store.partitions.count());
    let given = known.filter(|lease| {
        let header = header(&primary, message.session, lease.epoch, lease.stable);
        store.drive(lease.partition, |locked, now, out| locked.replica.renew(&header, now, out)).is_ok()
    });
    Granted { partitions: given.map(|lease| lease.partition).collect(), leaving: false }
}

/// Tells a new primary which writes may not be everywhere.
pub fn collect(store: &Store, message: &Collect) -> Collected {
    if message.partition >= store.partitions.count() {
        return Collected { stale: true, ..Collected::default() };
    }
    let primary = Member { node: message.primary.as_str().into(), session: message.primary_session };
    let header = header(&primary, message.session, message.epoch, message.stable);
    match store.drive(message.partition, |locked, now, out| locked.replica.collect(&header, now, out)) {
        Ok(collected) => Collected {
            appends: collected.writes.iter().map(|write| peers::append(message.partition, &header, write)).collect(),
            stable: collected.stable.0,
            last_version: collected.last.0,
            ..Collected::default()
        },
        Err(Refusal::NotHolder) => Collected { no_holder: true, ..Collected::default() },
        Err(Refusal::Stale(_)) => Collected { stale: true, ..Collected::default() },
    }
}

/// The write that a message stands for.
///
/// # Errors
/// When it cannot be read.
pub fn write(append: Append) -> Result<Unstable<Payload>, NodeError> {
    let durability = match append.durability {
        0 => Durability::Memory,
        2 => Durability::Fsync,
        3 => Durability::Object,
        _ => Durability::Disk,
    };
    let idempotency = match append.idempotency_key.as_str() {
        "" => None,
        text => {
            let key = IdempotencyKey::parse(text).map_err(|error| NodeError::Transfer(error.detail))?;
            Some(Idempotency { key, created: append.created })
        }
    };
    let change = Change::from_peer(append.row)?;
    let version = change.version();
    Ok(Unstable { version, data: Payload { change, durability, reservation: None, idempotency, trace: None } })
}

fn header(
    primary: &Member<crate::partition::NodeId>,
    session: u64,
    epoch: u64,
    stable: u64,
) -> Header<crate::partition::NodeId> {
    Header { primary: primary.clone(), session, epoch, stable: Version(stable) }
}

fn refusal_of(store: &Store, partition: u32, refusal: Refusal) -> Refused {
    let epoch = match refusal {
        Refusal::Stale(epoch) => epoch,
        Refusal::NotHolder => 0,
    };
    Refused { node_id: store.me.node.to_string(), partition, epoch, failed: false }
}
