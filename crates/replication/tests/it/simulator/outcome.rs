//! How a run ends: healed and whole, with equal copies, and with a history that one register for each key could have.

use cairn_replication::Role;

use super::{
    history,
    network::Call,
    world::{Config, World},
};
use crate::{host::Host, message::Node};

/// Until when a healed cluster must be whole.
const WHOLE_WITHIN: u64 = 60_000;
/// As long as anything may be on its way.
const CALM: u64 = 3_000;

/// Plays a seed. With a `story`, tells in it what has happened.
pub(crate) fn run(config: Config, story: Option<Vec<String>>) -> (World, Result<(), String>) {
    let mut world = World::new(config);
    world.master.story = story;
    world.run_until(config.faults_until);
    world.heal();
    let whole = world.become_whole();
    world.clients_stop_at = world.now;
    world.run_until(world.now + CALM);
    for key in 0..config.keys {
        world.call(None, Call::Read(key));
    }
    world.run_until(world.now + CALM);
    let result = whole.and_then(|()| history::check(&world.history)).and_then(|()| world.check_copies());
    (world, result)
}

impl World {
    pub(crate) fn become_whole(&mut self) -> Result<(), String> {
        let until = self.now + WHOLE_WITHIN;
        while let Some(trouble) = self.trouble() {
            if self.now >= until {
                return Err(trouble);
            }
            self.run_until(self.now + 500);
        }
        Ok(())
    }

    fn heal(&mut self) {
        self.end_faults();
        self.network.heal();
        let nodes: Vec<Node> = self.machines.keys().copied().collect();
        for node in nodes {
            let Some(machine) = self.machines.get_mut(&node) else { continue };
            (machine.disk_delay, machine.disk_fails_until, machine.disk_hangs_until) = (3, 0, 0);
            if machine.leaving {
                self.crash(node);
            }
            self.start(node, false);
        }
    }

    /// What keeps the cluster from being whole: every partition is served, with all its copies and nothing under way.
    fn trouble(&self) -> Option<String> {
        let copies = self.config.factor.min(self.master.members());
        (0..self.config.partitions).find_map(|partition| {
            let entry = self.master.entry(partition);
            let primary = entry.primary.and_then(|node| self.machines.get(&node)?.hosts.get(&partition));
            let serves = primary.is_some_and(|host| {
                host.replica.role() == Role::Serving && host.may_read(self.now) && host.replica.entry() == entry
            });
            let is_whole = entry.in_sync.len() == copies && entry.learners.is_empty() && entry.successor.is_none();
            (!serves || !is_whole).then(|| format!("{} ms: partition {partition} is not whole: {entry:?}", self.now))
        })
    }

    fn check_copies(&self) -> Result<(), String> {
        for partition in 0..self.config.partitions {
            let entry = self.master.entry(partition);
            let host = |node: Node| self.machines.get(&node)?.hosts.get(&partition);
            let mut copies = entry.in_sync.iter().map(|member| host(member.node).map(Host::rows));
            let first = copies.next().flatten();
            if !copies.all(|copy| copy == first) {
                return Err(format!("the copies of partition {partition} differ: {entry:?}"));
            }
        }
        Ok(())
    }
}
