//! Who is in the cluster. Registrations stand in the metadata store; who was heard when, and what it said, only in
//! memory: after a restart of the master every registered node counts as heard just then, so that it has time to beat.
//!
//! No heartbeat touches the store, and no lock is held while the store is asked, except the one that keeps changes of
//! registrations in one line.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use cairn_api_spec::cluster::{Heartbeat, RegisterNode, Transfer};
use tokio::sync::Notify;

mod member;

use self::member::NodeRecord;
pub use self::member::{Member, Patience};
use crate::{
    error::Error,
    metastore::{MetadataStore, Revision, StoreError, decode, encode},
    meter::Meter,
    validation::check_registration,
};

const PREFIX: &str = "nodes/";
/// Removed nodes that are remembered.
const MAX_REMOVED: usize = 1_024;

/// The registered nodes.
pub struct Registry {
    store: Arc<dyn MetadataStore>,
    patience: Patience,
    own: SocketAddr,
    /// Held over a change in the store and its copy in `members`, so that the two cannot part.
    changes: tokio::sync::Mutex<()>,
    members: Mutex<BTreeMap<String, Member>>,
    joined: Mutex<Instant>,
    /// Nodes that were removed, with their incarnation: they are told to stop, and would register again otherwise.
    removed: Mutex<HashMap<String, u64>>,
    copied: Mutex<Meter>,
    news: Notify,
}

impl Registry {
    /// Reads the registrations. `own` is where this master listens, and no node may be.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn load(store: Arc<dyn MetadataStore>, patience: Patience, own: SocketAddr) -> Result<Self, StoreError> {
        let registry = Self {
            store,
            patience,
            own,
            changes: tokio::sync::Mutex::default(),
            members: Mutex::default(),
            joined: Mutex::new(Instant::now()),
            removed: Mutex::default(),
            copied: Mutex::default(),
            news: Notify::new(),
        };
        registry.reload().await?;
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
    pub fn alive(&self) -> HashSet<String> {
        let members = self.lock();
        members.iter().filter(|(_, member)| member.is_alive(self.patience)).map(|(id, _)| id.clone()).collect()
    }

    /// Wakes when a node was heard again or is about to stop. Changes of registrations are changes of the store.
    pub async fn news(&self) {
        self.news.notified().await;
    }

    /// Bytes a second that nodes copied from each other, lately.
    pub fn copy_rate(&self) -> f64 {
        self.copied.lock().unwrap_or_else(PoisonError::into_inner).rate()
    }

    /// How long ago a node joined that was not there before (at least since this registry was loaded).
    pub fn since_last_join(&self) -> Duration {
        self.joined.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }

    /// Registers a node, or takes it back: at the same address, or at another one when it was silent, or when it is
    /// the same one started anew. A node that is draining goes on draining. Returns whether it is new.
    ///
    /// # Errors
    /// [`Error::InvalidNode`]; [`Error::NodeConflict`] when a node with this id is beating from another address;
    /// [`Error::OldSession`] when its data have been used by a later process.
    pub async fn register(&self, node: RegisterNode) -> Result<bool, Error> {
        check_registration(&node, self.own)?;
        let _in_line = self.changes.lock().await;
        let known = self.lock().get(&node.node_id).cloned();
        if let Some(member) = &known {
            self.check_successor(member, &node)?;
            if *member.registration() == node {
                self.heard(&node.node_id);
                return Ok(false);
            }
        }
        self.removed().remove(&node.node_id);
        let draining = known.as_ref().is_some_and(Member::is_draining);
        tracing::info!(node = node.node_id, address = node.address, new = known.is_none(), "a node registers");
        let record = NodeRecord { node, draining };
        self.replace(known.as_ref(), record).await?;
        if known.is_none() {
            *self.joined.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        Ok(known.is_none())
    }

    /// Takes note of a heartbeat. Returns whether the node was removed, and should stop.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`] when the node, with this incarnation, must register again.
    pub fn beat(&self, node_id: &str, heartbeat: Heartbeat) -> Result<bool, Error> {
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
        if member.beat(heartbeat, self.patience) {
            self.news.notify_one();
        }
        self.copied.lock().unwrap_or_else(PoisonError::into_inner).add(copied);
        Ok(false)
    }

    fn removed(&self) -> MutexGuard<'_, HashMap<String, u64>> {
        self.removed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Marks a node as on its way out.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`].
    pub async fn drain(&self, node_id: &str) -> Result<(), Error> {
        let _in_line = self.changes.lock().await;
        let member = self.member(node_id)?;
        if member.is_draining() {
            return Ok(());
        }
        let record = NodeRecord { draining: true, ..member.record.clone() };
        self.replace(Some(&member), record).await
    }

    /// Drops a node at once, whatever it holds.
    ///
    /// # Errors
    /// [`Error::NodeNotFound`].
    pub async fn remove(&self, node_id: &str) -> Result<(), Error> {
        let _in_line = self.changes.lock().await;
        let member = self.member(node_id)?;
        let removed = self.store.cas(&key(node_id), Some(member.revision), None).await;
        self.reload_on_conflict(removed).await?;
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
    pub async fn reload(&self) -> Result<(), StoreError> {
        let _in_line = self.changes.lock().await;
        self.reload_in_line().await
    }

    async fn reload_in_line(&self) -> Result<(), StoreError> {
        let entries = self.store.list(PREFIX).await?;
        let mut read = Vec::with_capacity(entries.len());
        for (key, entry) in entries {
            let record: NodeRecord = decode(&key, &entry.value)?;
            read.push(Member::new(record, entry.revision));
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
    async fn reload_on_conflict(&self, changed: Result<Revision, StoreError>) -> Result<Revision, Error> {
        if let Err(StoreError::Conflict { .. }) = &changed {
            self.reload_in_line().await?;
        }
        Ok(changed?)
    }

    async fn replace(&self, known: Option<&Member>, record: NodeRecord) -> Result<(), Error> {
        let id = record.node.node_id.clone();
        let value = encode(&key(&id), &record)?;
        let changed = self.store.cas(&key(&id), known.map(|member| member.revision), Some(value)).await;
        let revision = self.reload_on_conflict(changed).await?;
        let mut members = self.lock();
        match members.get_mut(&id) {
            // Draining says nothing about whether the node is there; a registration does.
            Some(member) if member.record.draining != record.draining => {
                (member.record, member.revision) = (record, revision);
            }
            Some(member) => member.register(record, revision, self.patience),
            None => {
                members.insert(id, Member::new(record, revision));
            }
        }
        Ok(())
    }

    fn check_successor(&self, member: &Member, node: &RegisterNode) -> Result<(), Error> {
        let known = member.registration();
        let same_data = known.incarnation == node.incarnation;
        if same_data && node.session < known.session {
            return Err(Error::OldSession {
                node_id: node.node_id.clone(),
                session: node.session,
                known: known.session,
            });
        }
        let moved = known.address != node.address || known.peer_address != node.peer_address;
        // Elsewhere, a later session may be a copy of the data, unless the node has said that it would stop.
        let goes_on = member.is_alive(self.patience) && !(same_data && member.is_leaving());
        if moved && goes_on {
            return Err(Error::NodeConflict { node_id: node.node_id.clone(), address: known.address.clone() });
        }
        Ok(())
    }

    fn heard(&self, node_id: &str) {
        if let Some(member) = self.lock().get_mut(node_id) {
            member.hear(self.patience);
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

/// Bytes that have arrived between two heartbeats, as far as they tell.
fn copied_since(before: &[Transfer], now: &[Transfer]) -> u64 {
    let before: HashMap<u32, u64> = before.iter().map(|transfer| (transfer.partition, transfer.bytes)).collect();
    let known = |transfer: &Transfer| before.get(&transfer.partition).copied().unwrap_or(0);
    now.iter().fold(0, |sum: u64, transfer| sum.saturating_add(transfer.bytes.saturating_sub(known(transfer))))
}

fn key(node_id: &str) -> String {
    format!("{PREFIX}{node_id}")
}
