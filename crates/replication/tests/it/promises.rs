//! What must hold in every state.

use cairn_api_spec::Version;
use cairn_replication::Role;

use crate::{
    message::{Key, Process},
    state::{Operation, State},
};

impl State {
    /// The newest version of a key that a client knows of.
    fn floor(&self, key: Key) -> Version {
        let seen = self.history.iter().filter(|operation| operation.seen && !operation.lost && operation.key == key);
        seen.map(|operation| operation.version).max().unwrap_or_default()
    }

    fn keys(&self) -> impl Iterator<Item = Key> {
        let mut keys: Vec<Key> = self.history.iter().map(|operation| operation.key).collect();
        keys.dedup();
        keys.into_iter()
    }

    /// Every key reads as the newest write that a client has seen, wherever it may be read.
    pub(crate) fn reads_never_go_back(&self) -> bool {
        self.hosts.iter().all(|host| {
            let Some(visible) = host.visible.as_ref().filter(|_| host.may_read(self.now)) else { return true };
            self.keys().all(|key| visible.get(&key).map_or(Version::NONE, |row| row.version) >= self.floor(key))
        })
    }

    /// Between the version that a write's condition named and its own, nobody has seen another.
    pub(crate) fn conditions_held(&self) -> bool {
        self.history.iter().filter(|write| write.seen).all(|write| {
            let between = |other: &&Operation| {
                let is_between = other.version > write.expected && other.version < write.version;
                other.key == write.key && is_between && !other.lost
            };
            !self.history.iter().filter(|other| other.seen).any(|other| between(&other))
        })
    }

    pub(crate) fn what_was_undone_is_gone(&self) -> bool {
        !self.history.iter().any(|operation| operation.undone && operation.seen)
    }

    /// Whether the rows that a member of an entry had are still on its disk.
    fn has_data(&self, member: &Process) -> bool {
        self.nodes[usize::from(member.node)].data_since <= member.session
    }

    /// What a client has seen is on the disk of every in-sync replica; with `ahead`, or on its way there, or to be
    /// stored again. One that has lost a write says so.
    pub(crate) fn in_sync_copies_are_complete(&self, ahead: bool) -> bool {
        self.entry().in_sync.iter().filter(|member| self.has_data(member)).all(|member| {
            let host = &self.hosts[usize::from(member.node)];
            let rows = if ahead { host.rows_and_refused() } else { host.disk.clone() };
            let says_so = host.replica.lost_write().is_some();
            says_so || self.keys().all(|key| rows.get(&key).map_or(Version::NONE, |row| row.version) >= self.floor(key))
        })
    }

    /// Once nothing is on its way, all in-sync replicas have the same rows, but for those that say that they lack some.
    pub(crate) fn replicas_are_equal(&self) -> bool {
        let entry = self.entry();
        let primary = self.hosts.iter().find(|host| {
            let replica = &host.replica;
            entry.primary == Some(host.me.node)
                && replica.role() == Role::Serving
                && replica.entry().epoch == entry.epoch
                && replica.lag().0 == 0
        });
        let Some(rows) = primary.map(|host| host.rows()) else { return true };
        let current = entry.in_sync.iter().map(|member| &self.hosts[usize::from(member.node)]);
        let mut complete = current.filter(|host| host.replica.lost_write().is_none());
        complete.all(|host| !entry.in_sync.contains(&host.me) || host.rows() == rows)
    }
}
