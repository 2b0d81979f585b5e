//! Who is in the cluster. Registrations stand in the metadata store; who was heard when, and what it said, only in
//! memory: after a restart of the master every registered node counts as heard just then, so that it has time to beat.
//!
//! Every `now` is the time since the master started.
//!
//! No heartbeat touches the store, and no lock is held while the store is asked, except the one that keeps changes of
//! registrations in one line.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use cairn_api_spec::cluster::{Heartbeat, RegisterNode, Transfer};
use jiff::Timestamp;
use tokio::sync::Notify;

mod member;

use self::member::NodeRecord;
pub use self::member::{Member, Patience};
use crate::{
    error::Error,
    metastore::{MetadataStore, Revision, StoreError, decode, encode},
    meter::Meter,
    resolver::Resolver,
    validation::{check_registration, check_target, may_be_own},
};

const PREFIX: &str = "nodes/";
/// Removed nodes that are remembered.
const MAX_REMOVED: usize = 1_024;

/// The registered nodes.
pub struct Registry {
    store: Arc<dyn MetadataStore>,
    patience: Patience,
    own_port: u16,
    resolver: Resolver,
    /// Held over a change in the store and its copy in `members`, so that the two cannot part.
    changes: tokio::sync::Mutex<()>,
    members: Mutex<BTreeMap<String, Member>>,
    joined: Mutex<Duration>,
    /// Nodes that were removed, with their incarnation: they are told to stop, and would register again otherwise.
    removed: Mutex<HashMap<String, u64>>,
    copied: Mutex<Meter>,
    news: Notify,
}

impl Registry {
    /// Reads the registrations. At `own_port` of this machine the master listens, and no node can be.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(
        store: Arc<dyn MetadataStore>,
        patience: Patience,
        own_port: u16,
        now: Duration,
    ) -> Result<Self, StoreError> {
        let registry = Self {
            store,
            patience,
            own_port,
            resolver: Resolver::default(),
            changes: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            joined: Mutex::new(now),
            removed: Mutex::default(),
            copied: Mutex::new(Meter::new(now)),
            news: Notify::new(),
        };
        registry.reload(now).await?;
        Ok(registry)
    }

    /// When silence means something here.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    /// Every member, by id.
    pub fn members(&self) -> BTreeMap<String, Member> {
        self.lock().clone()
    }

    /// The ids of those that were heard within the suspicion time.
    pub fn alive(&self, now: Duration) -> HashSet<String> {
        let members = self.lock();
        members.iter().filter(|(_, member)| member.is_alive(self.patience, now)).map(|(id, _)| id.clone()).collect()
    }

    /// Whether the clock of any node that is there, and has told its offset, agrees with the master's. Otherwise it is the
    /// master's that is wrong, and no node is to be judged by it.
    pub fn any_clock_agrees(&self, now: Duration) -> bool {
        let agrees = |member: &Member| member.clock_offset_ms.is_some() && !member.is_clock_off();
        self.lock().values().any(|member| member.is_alive(self.patience, now) && agrees(member))
    }

    /// Wakes when a node was heard again or is about to stop. Changes of registrations are changes of the store.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Bytes a second that nodes copied from each other, lately.
    pub fn copy_rate(&self, now: Duration) -> f64 {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner).rate(now)
    }

    /// How long ago a node joined that was not there before (at least since this registry was loaded).
    pub fn since_last_join(&self, now: Duration) -> Duration {
        now.saturating_sub(*self.joined.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Registers a node, or takes it back: started anew on its data at the same address, or, once the former process is
    /// silent or has said that it stops, also from another address and with other data. A node that is draining goes
    /// on draining. Returns whether it is new.
    ///
    /// # Errors
    /// [`Error::InvalidNode`]; [`Error::NodeConflict`] when a node with this id beats from another address;
    /// [`Error::OtherData`] when it beats with other data; [`Error::OldSession`] when its data have been used by a
    /// later process.
    pub async fn register(&self, node: RegisterNode, now: Duration) -> Result<bool, Error> {
        self.check_addresses(&node).await?;
        let _in_line = self.changes.lock().await;
        let known = self.lock().get(&node.node_id).cloned();
        if let Some(member) = &known {
            self.check_successor(member, &node, now)?;
            if *member.registration() == node {
                self.heard(&node.node_id, now);
                return Ok(false);
            }
        }
        self.removed().remove(&node.node_id);
        let draining = known.as_ref().is_some_and(Member::is_draining);
        tracing::info!(node = node.node_id, address = node.address, new = known.is_none(), "a node registers");
        let record = NodeRecord { node, draining };
        self.replace(known.as_ref(), record, now).await?;
        if known.is_none() {
            *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = now;
        }
        Ok(known.is_none())
    }

    /// Takes note of a heartbeat that came at `wall` by the wall clock. Returns whether the node was removed, and should stop.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`] when the node, with this incarnation, must register again.
    pub fn beat(&self, node_id: &str, heartbeat: Heartbeat, now: Duration, wall: Timestamp) -> Result<bool, Error> {
        if self.removed().get(node_id) == Some(&heartbeat.incarnation) {
            return Ok(true);
        }
        let mut members = self.lock();
        let member = members.get_mut(node_id);
        let other_incarnation = member.is_some();
        let member = member
            .filter(|member| member.registration().incarnation == heartbeat.incarnation)
            .ok_or_else(|| Error::NodeNotFound { node_id: node_id.to_owned(), other_incarnation })?;
        if heartbeat.session < member.registration().session {
            return Ok(true);
        }
        let copied = copied_since(&member.transfers, &heartbeat.transfers);
        let was_off = member.is_clock_off();
        if member.beat(heartbeat, self.patience, now, wall) {
            self.news.notify_one();
        }
        if member.is_clock_off() != was_off {
            log_clock(member);
        }
        self.copied.lock().unwrap_or_else(PoisonError::into_inner).add(copied, now);
        Ok(false)
    }

    fn removed(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a node as on its way out.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`].
    pub async fn drain(&self, node_id: &str, now: Duration) -> Result<(), Error> {
        let _in_line = self.changes.lock().await;
        let member = self.member(node_id)?;
        if member.is_draining() {
            return Ok(());
        }
        let record = NodeRecord { draining: true, ..member.record.clone() };
        self.replace(Some(&member), record, now).await
    }

    /// Drops a node at once, whatever it holds.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`].
    pub async fn remove(&self, node_id: &str, now: Duration) -> Result<(), Error> {
        let _in_line = self.changes.lock().await;
        let member = self.member(node_id)?;
        let removed = self.store.cas(&key(node_id), Some(member.revision), None).await;
        self.reload_on_conflict(removed, now).await?;
        self.lock().remove(node_id);
        {
            let mut removed = self.removed();
            // A node asks within a second; nobody asks for those of long ago.
            if removed.len() >= MAX_REMOVED {
                removed.clear();
            }
            removed.insert(node_id.to_owned(), member.registration().incarnation);
        }
        tracing::info!(node = node_id, "a node is no longer registered");
        Ok(())
    }

    /// Reads the registrations again, after a change that this registry did not make or did not see the end of.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn reload(&self, now: Duration) -> Result<(), StoreError> {
        let _in_line = self.changes.lock().await;
        self.reload_in_line(now).await
    }

    async fn reload_in_line(&self, now: Duration) -> Result<(), StoreError> {
        let entries = self.store.list(PREFIX).await?;
        let mut read = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let record: NodeRecord = decode(&key, &entry.value)?;
            read.push(Member::new(record, entry.revision, now));
        }
        let mut members = self.lock();
        let mut known = std::mem::take(&mut *members);
        for fresh in read {
            let id = fresh.registration().node_id.clone();
            let member = match known.remove(&id) {
                Some(mut known) => {
                    (known.record, known.revision) = (fresh.record, fresh.revision);
                    known
                }
                None => fresh,
            };
            members.insert(id, member);
        }
        Ok(())
    }

    /// A conflict means that the copy in memory is old: the next call then sees the truth.
    async fn reload_on_conflict(
        &self,
        changed: Result<Revision, StoreError>,
        now: Duration,
    ) -> Result<Revision, Error> {
        if let Err(StoreError::Conflict { .. }) = &changed {
            self.reload_in_line(now).await?;
        }
        Ok(changed?)
    }

    async fn replace(&self, known: Option<&Member>, record: NodeRecord, now: Duration) -> Result<(), Error> {
        let id = record.node.node_id.clone();
        let value = encode(&key(&id), &record)?;
        let changed = self.store.cas(&key(&id), known.map(|member| member.revision), Some(value)).await;
        let revision = self.reload_on_conflict(changed, now).await?;
        let mut members = self.lock();
        match members.get_mut(&id) {
            // Draining says nothing about whether the node is there; a registration does.
            Some(member) if member.record.draining != record.draining => {
                (member.record, member.revision) = (record, revision);
            }
            Some(member) => member.register(record, revision, self.patience, now),
            None => {
                members.insert(id, Member::new(record, revision, now));
            }
        }
        Ok(())
    }

    async fn check_addresses(&self, node: &RegisterNode) -> Result<(), Error> {
        for target in check_registration(node)? {
            if may_be_own(&target, self.own_port) {
                let addresses = self.resolver.resolve(&target.host).await;
                check_target(&target, &addresses, self.own_port)?;
            }
        }
        Ok(())
    }

    fn check_successor(&self, member: &Member, node: &RegisterNode, now: Duration) -> Result<(), Error> {
        let known = member.registration();
        let same_data = known.incarnation == node.incarnation;
        if same_data && node.session < known.session {
            return Err(Error::OldSession {
                node_id: node.node_id.clone(),
                session: node.session,
                known: known.session,
            });
        }
        // An operator who stops a node does not wait: it has said that it would stop.
        let goes_on = member.is_alive(self.patience, now) && !member.is_leaving();
        if goes_on && !same_data {
            return Err(Error::OtherData {
                node_id: node.node_id.clone(),
                address: known.address.clone(),
                suspect_after: self.patience.suspect_after,
            });
        }
        // Elsewhere, a later session may be a copy of the data.
        if goes_on && (known.address != node.address || known.peer_address != node.peer_address) {
            return Err(Error::NodeConflict { node_id: node.node_id.clone(), address: known.address.clone() });
        }
        Ok(())
    }

    fn heard(&self, node_id: &str, now: Duration) {
        if let Some(member) = self.lock().get_mut(node_id) {
            member.hear(self.patience, now);
        }
    }

    fn member(&self, node_id: &str) -> Result<Member, Error> {
        self.lock()
            .get(node_id)
            .cloned()
            .ok_or_else(|| Error::NodeNotFound { node_id: node_id.to_owned(), other_incarnation: false })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Member>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log_clock(member: &Member) {
    let (node, offset_ms) = (&member.registration().node_id, member.clock_offset_ms);
    if member.is_clock_off() {
        tracing::warn!(node, offset_ms, "a node's clock is too far from the master's: it is to lead no partition");
    } else {
        tracing::info!(node, offset_ms, "a node's clock is near enough to the master's again");
    }
}

/// Bytes that have arrived between two heartbeats, as far as they tell.
fn copied_since(before: &[Transfer], now: &[Transfer]) -> u64 {
    let before: HashMap<u32, u64> = before.iter().map(|transfer| (transfer.partition, transfer.bytes)).collect();
    let known = |transfer: &Transfer| before.get(&transfer.partition).copied().unwrap_or(0);
    now.iter().fold(0, |sum: u64, transfer| sum.saturating_add(transfer.bytes.saturating_sub(known(transfer))))
}

fn key(node_id: &str) -> String {
    format!("{PREFIX}{node_id}")
}
