//! How a run ends: healed and whole, with equal copies, nothing unanswered, and with a history that one register for each
//! key could have.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_api_spec::{Version, operation::Durability, version::Condition};
use cairn_engine::Change;
use cairn_replication::Role;

use super::{
    check,
    history::{Ask, Call},
    machine::Machine,
    network::{Node, node},
    world::{Config, World},
};

/// Until when a healed cluster must be whole.
const WHOLE_WITHIN: u64 = 60_000;
/// As long as anything may be on its way.
const CALM: u64 = 3_000;
/// When every request is answered, whatever it waits for.
const ANSWERED: u64 = 12_000;

/// A live value, or none; and the version.
type Shown = (Version, Option<Bytes>);

/// Plays a seed. With a `story`, tells in it what has happened.
pub(crate) fn run(config: Config, story: Option<Vec<String>>) -> (World, Result<(), String>) {
    let mut world = World::new(config);
    world.master.story = story;
    world.run_until(config.faults_until);
    world.heal();
    let whole = world.become_whole();
    world.clients_stop_at = world.now;
    world.run_until(world.now + ANSWERED);
    for key in 0..config.keys {
        let first = world.history.len();
        let (ask, condition, durability) = (Ask::Get, Condition::None, Durability::Disk);
        let call = Call { key, ask, condition, durability, epoch: 0, eventual: false, first, has_key: false };
        world.call(None, &call);
    }
    let asked = world.history.len() - usize::from(config.keys);
    world.run_until(world.now + CALM);
    world.settle_bucket();
    let result = whole
        .and_then(|()| world.wrong.clone().map_or(Ok(()), Err))
        .and_then(|()| check::check(&world.history, &world))
        .and_then(|()| world.check_end(asked));
    (world, result)
}

impl World {
    fn become_whole(&mut self) -> Result<(), String> {
        let until = self.now + WHOLE_WITHIN;
        while let Some(trouble) = self.trouble() {
            if self.now >= until || self.wrong.is_some() {
                return Err(self.wrong.clone().unwrap_or(trouble));
            }
            self.run_until(self.now + 500);
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.end_faults();
        self.network = super::network::Network::default();
        self.config.lost_per_mille = 0;
        self.bucket.fails_per_mille = 0;
        let nodes: Vec<Node> = self.machines.keys().copied().collect();
        for node in nodes {
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            (machine.disk.delay, machine.disk.fails_until, machine.disk.hangs_until) = (3, 0, self.now);
            (machine.read_delay, machine.paused_until) = (4, machine.paused_until.min(self.now));
            if machine.is_up {
                machine.set_clock(0, self.now);
            }
            let leaves = machine.leaving;
            self.do_all(node);
            if leaves {
                self.crash(node);
            }
            self.start(node, false);
        }
    }

    /// What keeps the cluster from being whole: every partition is served, with all its copies.
    fn trouble(&self) -> Option<String> {
        let copies = self.master.copies();
        (0..self.config.partitions).find_map(|partition| {
            let entry = self.master.entry(partition);
            let engine = self.master.primary(partition).and_then(|node| self.machines.get(&node)?.engine(partition));
            let serves = engine.is_some_and(|engine| {
                let replica = engine.replica();
                replica.role() == Role::Serving
                    && self.now < replica.lease_until()
                    && replica.entry().epoch == entry.epoch
            });
            let is_whole = entry.in_sync.len() == copies && entry.learners.is_empty() && entry.successor.is_none();
            (!serves || !is_whole).then(|| {
                let replica = engine.map(|engine| (engine.replica().role(), engine.replica().lag()));
                let lease = engine.map(|engine| engine.replica().lease_until());
                format!("{} ms: partition {partition} is not whole: {entry:?}, {replica:?} {lease:?}", self.now)
            })
        })
    }

    fn check_end(&self, asked: usize) -> Result<(), String> {
        for (number, operation) in self.history.iter().enumerate().skip(asked) {
            if operation.answer.as_ref().is_none_or(|(_, reply)| reply.version().is_none()) {
                return Err(format!("operation {number} at the end was not answered: {operation:?}"));
            }
        }
        for (node, machine) in &self.machines {
            if let Some((number, (partition, since))) = machine.owed.first_key_value() {
                return Err(format!("node {node} owes an answer to {number} of {since} ms on partition {partition}"));
            }
            if !machine.disk.queue.is_empty() {
                return Err(format!("{} writes wait for the disk of node {node}", machine.disk.queue.len()));
            }
        }
        (0..self.config.partitions).try_for_each(|partition| {
            self.check_copies(partition)?;
            self.check_bucket(partition)
        })
    }

    fn check_copies(&self, partition: u32) -> Result<(), String> {
        let entry = self.master.entry(partition);
        let machines: Vec<&Machine> = entry.in_sync.iter().filter_map(|id| self.machines.get(&node(id))).collect();
        for machine in &machines {
            let lag = machine.replica(partition).map_or(0, |replica| replica.lag().0);
            if lag > 0 && entry.primary.as_deref().map(node) == Some(machine.node) {
                return Err(format!("{lag} writes of partition {partition} are not everywhere, and nothing goes on"));
            }
        }
        let mut copies = machines.iter().map(|machine| (rows(machine, partition), keys(machine, partition)));
        let Some(first) = copies.next() else { return Ok(()) };
        match copies.find(|copy| *copy != first) {
            Some(other) => Err(format!("the copies of partition {partition} differ: {first:?}, {other:?}, {entry:?}")),
            None => Ok(()),
        }
    }
}

/// What a copy shows of each key; a deletion that one copy remembers, another one may have forgotten.
fn rows(machine: &Machine, partition: u32) -> BTreeMap<Bytes, Shown> {
    let of_partition = machine.disk.tables.rows.iter().filter(|(_, row)| row.partition == partition);
    let shown = of_partition.filter_map(|(name, row)| match &row.change {
        Change::Put(entry) => Some((name.clone(), (entry.version(), Some(entry.value_bytes())))),
        Change::Delete { .. } | Change::Note { .. } => None,
    });
    shown.collect()
}

/// The idempotency keys that a copy remembers.
fn keys(machine: &Machine, partition: u32) -> Vec<(Version, String)> {
    let keys = machine.disk.tables.keys.iter().filter(|((of, _), _)| *of == partition);
    keys.map(|((_, version), first)| (*version, first.key.clone())).collect()
}
