//! What goes wrong, by seed.

use super::{
    network::{MASTER, Site},
    random::Random,
    world::World,
};
use crate::message::Node;

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Crash(Node),
    Start { node: Node, wiped: bool },
    Pause { node: Node, until: u64 },
    Cut(Vec<(Site, Site)>),
    Lose { per_mille: u64 },
    Delay { per_mille: u64 },
    SlowDisk { node: Node, delay: u64 },
    FailDisk { node: Node, until: u64 },
    HangDisk { node: Node, until: u64 },
    Join,
    Drain(Node),
    Leave(Node),
}

/// A plan of faults that ends at `until`.
pub(crate) fn plan(nodes: Node, from: u64, until: u64, random: &mut Random) -> Vec<(u64, Fault)> {
    let mut plan = Vec::new();
    let mut at = from;
    loop {
        at += random.between(50, 2_500);
        if at >= until {
            return plan;
        }
        let node = u16::try_from(random.below(u64::from(nodes))).unwrap_or(0);
        let length = random.between(100, 7_000);
        match random.below(18) {
            0..=3 => {
                plan.push((at, Fault::Crash(node)));
                plan.push((at + length, Fault::Start { node, wiped: random.chance(250) }));
            }
            4 => {
                // All at once.
                for node in 0..nodes {
                    plan.push((at + random.below(30), Fault::Crash(node)));
                    plan.push((at + random.between(50, length), Fault::Start { node, wiped: false }));
                }
            }
            5 | 6 => plan.push((at, Fault::Pause { node, until: at + length })),
            7..=9 => {
                plan.push((at, Fault::Cut(cut(nodes, random))));
                plan.push((at + length, Fault::Cut(Vec::new())));
            }
            10 => {
                plan.push((at, Fault::Lose { per_mille: random.between(10, 300) }));
                plan.push((at + length, Fault::Lose { per_mille: 0 }));
            }
            11 => {
                plan.push((at, Fault::Delay { per_mille: random.between(10, 500) }));
                plan.push((at + length, Fault::Delay { per_mille: 0 }));
            }
            12 => plan.push((at, Fault::SlowDisk { node, delay: random.between(1, 2_500) })),
            13 => plan.push((at, Fault::Join)),
            14 => plan.push((at, Fault::Drain(node))),
            15 => plan.push((at, Fault::FailDisk { node, until: at + length / 4 })),
            16 => plan.push((at, Fault::HangDisk { node, until: at + length * 2 })),
            _ => {
                plan.push((at, Fault::Leave(node)));
                plan.push((at + length, Fault::Crash(node)));
                plan.push((at + length + random.between(50, 2_000), Fault::Start { node, wiped: false }));
            }
        }
    }
}

/// Some ways, one way or both, between nodes or to the master.
fn cut(nodes: Node, random: &mut Random) -> Vec<(Site, Site)> {
    let mut ways = Vec::new();
    let alone = random.chance(500).then(|| u16::try_from(random.below(u64::from(nodes))).unwrap_or(0));
    let both = random.chance(600);
    for a in (0..nodes).chain([MASTER]) {
        for b in (0..nodes).chain([MASTER]).filter(|b| *b != a) {
            let hit = match alone {
                Some(node) => a == node || (both && b == node),
                None => random.chance(if both { 250 } else { 150 }),
            };
            if hit {
                ways.push((a, b));
                if both {
                    ways.push((b, a));
                }
            }
        }
    }
    ways
}

impl World {
    pub(crate) fn suffer(&mut self, fault: Fault) {
        match fault {
            Fault::Crash(node) => self.crash(node),
            Fault::Start { node, wiped } => self.start(node, wiped),
            Fault::Pause { node, until } => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.paused_until = until;
                }
            }
            Fault::Cut(ways) => self.network.cut(ways),
            Fault::Lose { per_mille } => self.network.loss_per_mille = per_mille,
            Fault::Delay { per_mille } => self.network.slow_per_mille = per_mille,
            Fault::SlowDisk { node, delay } => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.disk_delay = delay;
                }
            }
            Fault::FailDisk { node, until } => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.disk_fails_until = until;
                }
            }
            Fault::HangDisk { node, until } => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.disk_hangs_until = until;
                }
            }
            Fault::Join => self.join(),
            Fault::Drain(node) => {
                if self.master.members() > self.config.factor {
                    self.master.drain(node);
                }
            }
            Fault::Leave(node) => {
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.leaving = true;
                }
            }
        }
    }
}
