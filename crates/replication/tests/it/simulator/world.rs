//! Everything of a simulated cluster in one place, and its time, in which one event comes after the other.

use std::collections::BTreeMap;

use cairn_replication::Settings;

use super::{
    clients::Client,
    faults::{self, Fault},
    history::Operation,
    machine::Machine,
    master::Master,
    network::{Body, CLIENTS, MASTER, Network, Packet},
    random::{Random, mix},
};
use crate::{
    host::Rules,
    message::{Key, Node},
    planted::Bug,
};

/// How often a node tells its partitions the time.
const TICK: u64 = 100;
const HEARTBEAT: u64 = 1_000;
const CONTROL: u64 = 500;
/// How long the master gathers news.
const GATHER: u64 = 20;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) nodes: Node,
    pub(crate) partitions: u32,
    pub(crate) keys: Key,
    pub(crate) factor: usize,
    pub(crate) settings: Settings,
    pub(crate) clients: usize,
    /// How often a client asks any node, and not the primary.
    pub(crate) lost_per_mille: u64,
    /// When faults end.
    pub(crate) faults_until: u64,
    pub(crate) bug: Option<Bug>,
}

pub(crate) enum Event {
    Arrive(Packet),
    Tick(Node, u64),
    Heartbeat(Node, u64),
    Flush(Node, u64, u32),
    Control,
    Look,
    Publish,
    /// A client begins an operation, unless it waits for another one than this.
    Client(usize, Option<usize>),
    Fault(Fault),
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) machines: BTreeMap<Node, Machine>,
    next_node: Node,
    pub(crate) master: Master,
    pub(crate) history: Vec<Operation>,
    pub(crate) clients: Vec<Client>,
    pub(crate) clients_stop_at: u64,
    events: BTreeMap<(u64, u64), Event>,
    will_look: bool,
    will_publish: bool,
    sequence: u64,
    /// Changes with everything that happens.
    pub(crate) trace: u64,
    /// Messages that were sent for clients.
    pub(crate) steps: usize,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        let mut world = Self {
            config,
            now: 0,
            random: Random::new(config.seed),
            network: Network::default(),
            machines: BTreeMap::new(),
            next_node: 0,
            master: Master::new(config.partitions, config.factor),
            history: Vec::new(),
            clients: vec![Client::default(); config.clients],
            clients_stop_at: u64::MAX,
            events: BTreeMap::new(),
            will_look: false,
            will_publish: false,
            sequence: 0,
            trace: config.seed,
            steps: 0,
        };
        (0..config.nodes).for_each(|_| world.join());
        world.at(500, Event::Control);
        for client in 0..config.clients {
            let begin = world.random.between(1_500, 2_500);
            world.at(begin, Event::Client(client, None));
        }
        for (at, fault) in faults::plan(config.nodes, 3_000, config.faults_until, &mut world.random) {
            world.at(at, Event::Fault(fault));
        }
        world
    }

    pub(crate) fn at(&mut self, time: u64, event: Event) {
        self.sequence += 1;
        self.events.insert((time, self.sequence), event);
    }

    pub(crate) fn run_until(&mut self, end: u64) {
        while let Some(entry) = self.events.first_entry()
            && entry.key().0 <= end
        {
            let ((now, _), event) = entry.remove_entry();
            self.now = now;
            self.happen(event);
        }
        self.now = end;
    }

    fn note(&mut self, what: u64) {
        self.trace = mix(self.trace ^ mix(self.now ^ what.rotate_left(32)));
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        let mut sent = Vec::new();
        match event {
            Event::Arrive(packet) => self.arrive(packet),
            Event::Control => {
                self.look();
                self.at(now + CONTROL, Event::Control);
            }
            Event::Look => {
                self.will_look = false;
                self.look();
            }
            Event::Publish => {
                self.will_publish = false;
                for (node, beat) in self.master.watchers() {
                    let body = Body::Map(self.master.news(beat.session, beat.seen));
                    self.send(Packet { from: MASTER, to: node, body });
                }
            }
            Event::Client(client, given_up) => self.client_goes_on(client, given_up),
            Event::Fault(fault) => {
                self.note(1);
                if let Some(story) = &mut self.master.story {
                    story.push(format!("{now} ms: {fault:?}"));
                }
                self.suffer(fault);
            }
            Event::Tick(node, session) => {
                let Some(machine) = self.running(node, session) else { return };
                if machine.paused_until > now {
                    let until = machine.paused_until;
                    return self.at(until, Event::Tick(node, session));
                }
                machine.tick(now, &mut sent);
                self.send_all(node, sent);
                self.at(now + TICK, Event::Tick(node, session));
            }
            Event::Heartbeat(node, session) => {
                let Some(machine) = self.running(node, session) else { return };
                if machine.paused_until > now {
                    let until = machine.paused_until;
                    return self.at(until, Event::Heartbeat(node, session));
                }
                sent.push(machine.heartbeat());
                self.send_all(node, sent);
                self.at(now + HEARTBEAT, Event::Heartbeat(node, session));
            }
            Event::Flush(node, session, partition) => {
                let Some(machine) = self.running(node, session) else { return };
                if machine.disk_hangs_until > now {
                    return self.at(now + TICK, Event::Flush(node, session, partition));
                }
                machine.flush(partition, now, &mut sent);
                self.send_all(node, sent);
            }
        }
    }

    fn running(&mut self, node: Node, session: u64) -> Option<&mut Machine> {
        self.machines.get_mut(&node).filter(|machine| machine.is_up && machine.me.session == session)
    }

    /// Sends what a node has to say, and lets its disk work.
    fn send_all(&mut self, node: Node, packets: Vec<Packet>) {
        for packet in packets {
            self.send(packet);
        }
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let (session, delay) = (machine.me.session, machine.disk_delay);
        for partition in std::mem::take(&mut machine.to_flush) {
            let takes = self.random.between(0, delay);
            self.at(self.now + takes, Event::Flush(node, session, partition));
        }
    }

    pub(crate) fn send(&mut self, packet: Packet) {
        self.steps += usize::from(packet.body.is_for_client());
        if let Some(delay) = self.network.delay(packet.from, packet.to, &mut self.random) {
            self.at(self.now + delay, Event::Arrive(packet));
        }
    }

    fn arrive(&mut self, packet: Packet) {
        let now = self.now;
        self.note(u64::from(packet.from) << 16 | u64::from(packet.to));
        match (packet.to, packet.body) {
            (MASTER, Body::Heartbeat(_)) if self.master.has_removed(packet.from) => {
                self.machines.remove(&packet.from);
            }
            (MASTER, Body::Heartbeat(beat)) => {
                if self.master.hear(packet.from, beat, now) && !self.will_look {
                    self.will_look = true;
                    self.at(now + GATHER, Event::Look);
                }
                let body = Body::Map(self.master.news(beat.session, beat.seen));
                self.send(Packet { from: MASTER, to: packet.from, body });
            }
            (MASTER, Body::Ask(partition, request)) => {
                let (to, session) = (request.from.node, request.from.session);
                if self.master.ask(partition, &request, now) {
                    let body = Body::Map(self.master.news_of(session, partition));
                    self.send(Packet { from: MASTER, to, body });
                    self.publish();
                }
            }
            (CLIENTS, Body::Reply(number, reply)) => self.answered(number, reply),
            (node, body) => {
                let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.is_up) else { return };
                if machine.paused_until > now {
                    let until = machine.paused_until;
                    return self.at(until, Event::Arrive(Packet { from: packet.from, to: node, body }));
                }
                let mut sent = Vec::new();
                machine.receive(body, now, &mut sent);
                self.send_all(node, sent);
            }
        }
    }

    fn look(&mut self) {
        if self.master.reconcile(self.now) {
            self.publish();
        }
    }

    fn publish(&mut self) {
        if !self.will_publish {
            self.will_publish = true;
            self.at(self.now + GATHER, Event::Publish);
        }
    }

    pub(crate) fn join(&mut self) {
        let node = self.next_node;
        if node >= self.config.nodes + 2 {
            return;
        }
        self.next_node += 1;
        let rules = Rules { settings: self.config.settings, page: 2, patience: 300, bug: self.config.bug };
        self.machines.insert(node, Machine::new(node, self.config.partitions, rules, self.now));
        self.begin_life(node);
    }

    pub(crate) fn begin_life(&mut self, node: Node) {
        let Some(session) = self.machines.get(&node).map(|machine| machine.me.session) else { return };
        let offset = self.random.below(TICK);
        self.at(self.now + offset, Event::Tick(node, session));
        self.at(self.now, Event::Heartbeat(node, session));
    }

    pub(crate) fn crash(&mut self, node: Node) {
        if let Some(machine) = self.machines.get_mut(&node).filter(|machine| machine.is_up) {
            machine.crash();
        }
    }

    pub(crate) fn end_faults(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Fault(_)));
    }

    /// A node's process starts, with another disk if its data are elsewhere, too.
    pub(crate) fn start(&mut self, node: Node, wiped: bool) {
        let now = self.now;
        let may_wipe = wiped && self.may_wipe(node);
        let Some(machine) = self.machines.get_mut(&node).filter(|machine| !machine.is_up) else { return };
        if may_wipe {
            machine.wipe();
            // What it had asked for may make its copy the only one.
            self.events.retain(
                |_, event| !matches!(event, Event::Arrive(Packet { from, body: Body::Ask(..), .. }) if *from == node),
            );
        }
        machine.start(now);
        self.begin_life(node);
    }

    /// Whether every partition of which a node has an in-sync copy has another one.
    fn may_wipe(&self, node: Node) -> bool {
        (0..self.config.partitions).all(|partition| {
            let in_sync = &self.master.entry(partition).in_sync;
            let has_data = |node: Node, session: u64| {
                self.machines.get(&node).is_some_and(|machine| machine.data_since <= session)
            };
            !in_sync.iter().any(|member| member.node == node)
                || in_sync.iter().any(|member| member.node != node && has_data(member.node, member.session))
        })
    }
}
