//! What goes wrong, by seed.

use super::{
    network::{MASTER, Node},
    random::Random,
    world::{Config, World},
};

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    Crash(Node),
    /// A crash that takes with it what was not flushed, of all these nodes at the same moment.
    PowerCut(Vec<Node>),
    Start {
        node: Node,
        wiped: bool,
    },
    Pause {
        node: Node,
        until: u64,
    },
    Cut(Vec<(Node, Node)>),
    Lose {
        per_mille: u64,
    },
    Delay {
        per_mille: u64,
    },
    SlowDisk {
        node: Node,
        delay: u64,
    },
    SlowReads {
        node: Node,
        delay: u64,
    },
    FailDisk {
        node: Node,
        until: u64,
    },
    HangDisk {
        node: Node,
        until: u64,
    },
    /// The wall clock goes this much ahead, and the node hears of it; or is right again.
    Clock {
        node: Node,
        ahead: i64,
    },
    Join,
    /// All who hold a partition lose their disks, or all nodes.
    LoseDisks(Option<u32>),
    /// Requests to the bucket fail so often, of a thousand.
    Bucket {
        per_mille: u64,
    },
    Drain(Node),
    Leave(Node),
}

/// A plan of faults.
pub(crate) fn plan(config: &Config, from: u64, random: &mut Random) -> Vec<(u64, Fault)> {
    let Config { nodes, faults_until: until, .. } = *config;
    let mut plan = Vec::new();
    let mut at = from;
    loop {
        at += random.between(50, 2_000);
        if at >= until {
            return plan;
        }
        let node = u16::try_from(random.below(u64::from(nodes))).unwrap_or(0);
        let length = random.between(100, 7_000);
        match random.below(30) {
            27 => bucket_fails(&mut plan, config, at, length, random),
            28 | 29 if config.loses_disks => {
                let partition = random.chance(600).then(|| u32::try_from(random.below(8)).unwrap_or(0));
                plan.push((at, Fault::LoseDisks(partition)));
            }
            0..=3 | 28 | 29 => {
                plan.push((at, Fault::Crash(node)));
                plan.push((at + length, Fault::Start { node, wiped: random.chance(250) }));
            }
            4 => {
                // All at once.
                (0..nodes).for_each(|node| plan.push((at + random.below(30), Fault::Crash(node))));
                start_all(&mut plan, nodes, at, length, random);
            }
            5 | 6 => plan.push((at, Fault::Pause { node, until: at + length })),
            7..=9 => {
                // For long enough that another node takes over.
                plan.push((at, Fault::Cut(cut(nodes, random))));
                plan.push((at + 2 * length, Fault::Cut(Vec::new())));
            }
            10 => {
                plan.push((at, Fault::Lose { per_mille: random.between(10, 300) }));
                plan.push((at + length, Fault::Lose { per_mille: 0 }));
            }
            11 => {
                plan.push((at, Fault::Delay { per_mille: random.between(10, 500) }));
                plan.push((at + length, Fault::Delay { per_mille: 0 }));
            }
            12 | 13 => plan.push((at, Fault::SlowDisk { node, delay: random.between(1, 1_500) })),
            14 => plan.push((at, Fault::SlowReads { node, delay: random.between(1, 5_000) })),
            15 | 16 => plan.push((at, Fault::FailDisk { node, until: at + length / 4 })),
            17 => plan.push((at, Fault::HangDisk { node, until: at + length })),
            18 | 19 => set_clock(&mut plan, node, at, length, random),
            20 => plan.push((at, Fault::Clock { node, ahead: i64::try_from(random.below(801)).unwrap_or(0) - 400 })),
            21 => plan.push((at, Fault::Join)),
            22 => plan.push((at, Fault::Drain(node))),
            23 => {
                plan.push((at, Fault::PowerCut(vec![node])));
                plan.push((at + length, Fault::Start { node, wiped: false }));
            }
            24 => {
                // The rack.
                plan.push((at, Fault::PowerCut((0..nodes).collect())));
                start_all(&mut plan, nodes, at, length, random);
            }
            _ => {
                plan.push((at, Fault::Leave(node)));
                plan.push((at + length, Fault::Crash(node)));
                plan.push((at + length + random.between(50, 2_000), Fault::Start { node, wiped: false }));
            }
        }
    }
}

fn set_clock(plan: &mut Vec<(u64, Fault)>, node: Node, at: u64, length: u64, random: &mut Random) {
    let ahead = i64::try_from(random.between(1_000, 3_600_000)).unwrap_or(0);
    plan.push((at, Fault::Clock { node, ahead: if random.chance(300) { -ahead / 100 } else { ahead } }));
    plan.push((at + length / 3, Fault::Clock { node, ahead: 0 }));
}

fn bucket_fails(plan: &mut Vec<(u64, Fault)>, config: &Config, at: u64, length: u64, random: &mut Random) {
    plan.push((at, Fault::Bucket { per_mille: random.between(300, 1_000) }));
    plan.push((at + length, Fault::Bucket { per_mille: config.bucket_fails_per_mille }));
}

fn start_all(plan: &mut Vec<(u64, Fault)>, nodes: Node, at: u64, length: u64, random: &mut Random) {
    let start = |node| (at + random.between(50, length), Fault::Start { node, wiped: false });
    plan.extend((0..nodes).map(start));
}

/// Some ways, one way or both, between nodes or to the master.
fn cut(nodes: Node, random: &mut Random) -> Vec<(Node, Node)> {
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
        self.faults += 1;
        let now = self.now;
        let (Fault::Crash(node)
        | Fault::Start { node, .. }
        | Fault::Pause { node, .. }
        | Fault::SlowDisk { node, .. }
        | Fault::SlowReads { node, .. }
        | Fault::FailDisk { node, .. }
        | Fault::HangDisk { node, .. }
        | Fault::Clock { node, .. }
        | Fault::Drain(node)
        | Fault::Leave(node)) = fault
        else {
            return self.suffer_everywhere(fault);
        };
        let Some(machine) = self.machines.get_mut(&node) else { return };
        match fault {
            Fault::Crash(_) => self.crash(node),
            Fault::Start { wiped, .. } => self.start(node, wiped),
            Fault::Pause { until, .. } => machine.paused_until = until,
            Fault::SlowDisk { delay, .. } => machine.disk.delay = delay,
            Fault::SlowReads { delay, .. } => machine.read_delay = delay,
            Fault::FailDisk { until, .. } => machine.disk.fails_until = until,
            Fault::HangDisk { until, .. } => machine.disk.hangs_until = until,
            Fault::Clock { ahead, .. } => {
                if machine.is_up && machine.paused_until <= now {
                    machine.set_clock(ahead, now);
                    self.do_all(node);
                }
            }
            Fault::Drain(_) => self.master.drain(node),
            Fault::Leave(_) => machine.leaving = machine.is_up,
            Fault::PowerCut(_) | Fault::Cut(_) | Fault::Lose { .. } | Fault::Delay { .. } | Fault::Join => {}
            Fault::LoseDisks(_) | Fault::Bucket { .. } => {}
        }
    }

    fn suffer_everywhere(&mut self, fault: Fault) {
        match fault {
            Fault::Cut(ways) => self.network.cuts = ways,
            Fault::Lose { per_mille } => self.network.loss_per_mille = per_mille,
            Fault::Delay { per_mille } => self.network.slow_per_mille = per_mille,
            Fault::Join => self.join(),
            Fault::LoseDisks(partition) => self.lose_disks(partition),
            Fault::Bucket { per_mille } => self.bucket.fails_per_mille = per_mille,
            Fault::PowerCut(nodes) => nodes.into_iter().for_each(|node| self.cut_power(node)),
            _ => {}
        }
    }
}
