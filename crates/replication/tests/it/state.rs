//! A state of the model: hosts, messages on their way, the store, and what clients have seen.

use cairn_api_spec::Version;
use cairn_replication::{Entry, Member};

use crate::{
    hashed::Hashed,
    host::Host,
    message::{Envelope, Key, Message, Node, Out, Request},
    store::Registered,
};

/// A client's write, and what came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Operation {
    pub(crate) key: Key,
    /// The version that its condition named.
    pub(crate) expected: Version,
    pub(crate) version: Version,
    pub(crate) acknowledged: bool,
    /// A client may have read it, or was told that it is there.
    pub(crate) seen: bool,
    /// The client was told that nothing has happened.
    pub(crate) undone: bool,
    /// The last copy has said that it goes on without it.
    pub(crate) lost: bool,
}

/// How often the bounded things have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Used {
    pub(crate) restarts: usize,
    pub(crate) wipes: usize,
    pub(crate) disk_failures: usize,
    pub(crate) duplicates: usize,
}

#[derive(Clone, Debug, PartialEq, Hash)]
pub(crate) struct State {
    pub(crate) now: u64,
    /// The store's entry, and before it those that some node may still learn.
    pub(crate) entries: Vec<Hashed<Entry<Node>>>,
    pub(crate) nodes: Vec<Registered>,
    /// For each node the newest session of every node that it has heard of.
    pub(crate) heard: Vec<Vec<u64>>,
    pub(crate) hosts: Vec<Hashed<Host>>,
    /// A set, sorted by hash.
    pub(crate) network: Vec<Hashed<Envelope>>,
    pub(crate) requests: Vec<Hashed<Request>>,
    pub(crate) used: Used,
    pub(crate) history: Vec<Operation>,
    /// A copy has gone on without writes that it had lost, although there was another one.
    pub(crate) lost_in_vain: bool,
}

impl State {
    pub(crate) fn entry(&self) -> &Entry<Node> {
        &self.entries[self.entries.len() - 1]
    }

    /// Lets something happen at a node.
    pub(crate) fn at<R>(&mut self, node: Node, event: impl FnOnce(&mut Host, u64, &mut Out) -> R) -> R {
        let (now, mut out) = (self.now, Out::default());
        let result = self.hosts[usize::from(node)].change(|host| event(host, now, &mut out));
        out.sent.into_iter().for_each(|envelope| self.send(envelope));
        for request in out.asked {
            let request = Hashed::new(request);
            if request.epoch == self.entry().epoch && !self.requests.contains(&request) {
                self.requests.push(request);
                self.requests.sort_by_key(Hashed::hash_value);
            }
        }
        for operation in &mut self.history {
            operation.acknowledged |= out.acknowledged.contains(&operation.version);
            operation.undone |= out.undone.contains(&operation.version);
        }
        if out.lost {
            self.go_on_without_what_is_lost(node);
        }
        result
    }

    fn go_on_without_what_is_lost(&mut self, node: Node) {
        let host = &self.hosts[usize::from(node)];
        self.lost_in_vain |= host.replica.entry().in_sync.len() > 1;
        let rows = host.rows();
        for operation in &mut self.history {
            operation.lost |= rows.get(&operation.key).is_none_or(|row| row.version < operation.version);
        }
    }

    pub(crate) fn send(&mut self, envelope: Envelope) {
        if self.is_dead(&envelope) {
            return;
        }
        let envelope = Hashed::new(envelope);
        if let Err(index) = self.network.binary_search_by_key(&envelope.hash_value(), Hashed::hash_value) {
            self.network.insert(index, envelope);
        }
    }

    /// Whether nobody will ever listen to a message.
    fn is_dead(&self, envelope: &Envelope) -> bool {
        let receiver = &self.nodes[usize::from(envelope.to.node)].process;
        *receiver != envelope.to && !matches!(envelope.message, Message::Collect { .. })
    }

    pub(crate) fn forget_dead_messages(&mut self) {
        let network = std::mem::take(&mut self.network);
        self.network = network.into_iter().filter(|envelope| !self.is_dead(envelope)).collect();
    }

    /// The store takes an entry. What was asked of the former one is refused.
    pub(crate) fn publish(&mut self, entry: Entry<Node>) {
        self.entries.push(Hashed::new(entry));
        self.requests.clear();
    }

    /// Whether a node would make use of an entry.
    pub(crate) fn is_news(&self, node: usize, entry: &Entry<Node>) -> bool {
        let replica = &self.hosts[node].replica;
        entry.epoch > replica.entry().epoch && entry.epoch >= replica.fence()
    }

    /// Leases that are asked for are granted in the same moment or never: later, the promise would only last longer.
    pub(crate) fn forget_renewals(&mut self) {
        self.network.retain(|envelope| !matches!(envelope.message, Message::Renew { .. }));
    }

    pub(crate) fn sessions(&self) -> Vec<u64> {
        self.nodes.iter().map(|node| node.process.session).collect()
    }

    pub(crate) fn hear_of_sessions(&mut self, node: Node) {
        let sessions = self.sessions();
        let heard = std::mem::replace(&mut self.heard[usize::from(node)], sessions.clone());
        for ((other, from), to) in (0..).zip(heard).zip(sessions) {
            for session in from..to {
                let ended = Member { node: other, session };
                self.at(node, |host, now, out| host.session_ended(&ended, now, out));
            }
        }
    }

    pub(crate) fn restart(&mut self, node: Node, wipe: bool) {
        let now = self.now;
        let process = self.hosts[usize::from(node)].change(|host| {
            host.restart(now);
            if wipe {
                host.wiped();
            }
            host.me.clone()
        });
        let known = &mut self.nodes[usize::from(node)];
        if wipe {
            known.data_since = process.session;
        }
        known.process = process;
        self.heard[usize::from(node)] = self.sessions();
        self.forget_dead_messages();
    }

    pub(crate) fn flush_all(&mut self) {
        for node in (0..).take(self.hosts.len()) {
            while !self.hosts[usize::from(node)].queue.is_empty() {
                self.at(node, Host::flush);
            }
        }
    }

    /// Notes what clients may see now, and drops what has no meaning any more.
    pub(crate) fn settle(&mut self) {
        for host in &self.hosts {
            let Some(visible) = host.visible.as_ref().filter(|_| host.may_read(self.now)) else { continue };
            for operation in &mut self.history {
                operation.seen |= visible.get(&operation.key).is_some_and(|row| row.version == operation.version);
            }
        }
        self.history.iter_mut().for_each(|operation| operation.seen |= operation.acknowledged);
        let newest = self.entry().epoch;
        let entries = std::mem::take(&mut self.entries);
        let is_used = |entry: &Hashed<Entry<Node>>| {
            entry.epoch == newest || (0..self.hosts.len()).any(|node| self.is_news(node, entry))
        };
        self.entries = entries.into_iter().filter(is_used).collect();
    }
}
