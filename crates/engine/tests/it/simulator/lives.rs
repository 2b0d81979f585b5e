//! How nodes begin, end, and lose what they have stored.

use cairn_api_spec::cluster::Partition;
use cairn_replication::Settings;

use super::{
    faults::Fault,
    machine::{Local, Machine, Rules},
    network::{Body, Node, Packet, node},
    world::{Config, Event, TICK, World},
};

impl World {
    pub(crate) fn join(&mut self) {
        let node = self.next_node;
        if node >= self.config.nodes + 2 {
            return;
        }
        self.next_node += 1;
        let Config { partitions, min_in_sync, write_quorum, eviction_per_mille, upload_linger, bug, .. } = self.config;
        let settings = Settings { min_in_sync, write_quorum, ..Settings::default() };
        let rules = Rules { partitions, settings, eviction_per_mille, upload_linger, bug };
        let seed = self.random.next();
        self.machines.insert(node, Machine::new(node, rules, seed));
        self.start(node, false);
    }

    /// Takes the power from a node, whether it runs or not.
    pub(crate) fn cut_power(&mut self, node: Node) {
        self.crash(node);
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.lose_power();
        }
    }

    pub(crate) fn crash(&mut self, node: Node) {
        if let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.is_up) {
            machine.crash();
        }
    }

    /// A node's process starts, with another disk if its data are elsewhere, too.
    pub(crate) fn start(&mut self, node: Node, wiped: bool) {
        let now = self.now;
        let may_wipe = wiped && self.may_wipe(node);
        if self.machines.get(&node).is_none_or(|machine| machine.is_up) {
            return;
        }
        if may_wipe {
            self.wipe(node);
        }
        let offset = self.random.below(TICK);
        let Some(machine) = self.machines.get_mut(&node) else { return };
        machine.start(now);
        let session = machine.me.session;
        self.do_all(node);
        self.at(now + offset, Event::Local(node, session, Local::Tick));
        self.at(now, Event::Local(node, session, Local::Heartbeat));
        self.at(now + offset, Event::Sweep(node, session));
    }

    fn wipe(&mut self, node: Node) {
        // What it had asked for may make its copy the only one.
        self.events.retain(
            |_, event| !matches!(event, Event::Arrive(Packet { from, body: Body::Ask(..), .. }) if *from == node),
        );
        if let Some(machine) = self.machines.get_mut(&node) {
            machine.wipe();
        }
    }

    /// All who hold a partition lose their disks at the same moment, or all nodes: of a quorum, fewer than all would go on
    /// without what only the others had.
    pub(crate) fn lose_disks(&mut self, partition: Option<u32>) {
        let partition = partition.filter(|_| self.config.write_quorum.is_none());
        let nodes: Vec<Node> = match partition.map(|partition| self.master.entry(partition % self.config.partitions)) {
            Some(entry) => entry.sessions.keys().map(|id| node(id)).collect(),
            None => self.machines.keys().copied().collect(),
        };
        for node in nodes {
            self.crash(node);
            self.wipe(node);
            let start = self.now + self.random.between(50, 3_000);
            self.at(start, Event::Fault(Fault::Start { node, wiped: false }));
        }
    }

    /// Whether every write of the partitions of which a node has an in-sync copy is on another one, too. Of a quorum fewer
    /// disks may be lost than have a write.
    fn may_wipe(&self, node_id: Node) -> bool {
        (0..self.config.partitions).all(|partition| {
            let Partition { in_sync, sessions, .. } = self.master.entry(partition);
            let has_data = |id: &&String| {
                let machine = self.machines.get(&node(id)).filter(|machine| machine.node != node_id);
                machine.is_some_and(|machine| sessions.get(*id).is_some_and(|session| machine.data_since <= *session))
            };
            let (copies, kept) = (in_sync.len(), in_sync.iter().filter(has_data).count());
            let quorum = self.config.write_quorum.map_or(copies, |quorum| quorum.min(copies));
            !in_sync.iter().any(|id| node(id) == node_id) || copies - kept < quorum
        })
    }
}
