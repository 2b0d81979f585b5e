//! Everything of a simulated cluster in one place, and its time, in which one event comes after the other.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_api_spec::{operation::Durability, version::Condition};
use cairn_engine::Engine;

use super::{
    bucket::{Bucket, Request},
    clients::Client,
    faults::{self, Fault},
    history::{Ask, Call, Operation},
    machine::{Local, Machine, Out},
    master::{Master, Resumed},
    network::{BUCKET, Body, CLIENTS, Envelope, MASTER, Message, Network, Node, Packet},
    random::{Random, mix},
    uploads::Mark,
};
use crate::planted::Bug;

/// How often a node tells its engines the time.
pub(crate) const TICK: u64 = 100;
const HEARTBEAT: u64 = 1_000;
const SWEEP: u64 = 500;
const CONTROL: u64 = 500;
/// How long the master gathers news.
const GATHER: u64 = 20;
/// No request has more stages than five, each of five seconds, behind three seconds of waiting for the role.
const ANSWERED_WITHIN: u64 = 30_000;
/// No more waits for a disk than what so few clients can ask for, and is sent again to a copy that no write waits for.
const MOST_QUEUED: usize = 5_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Config {
    pub(crate) seed: u64,
    pub(crate) nodes: Node,
    pub(crate) partitions: u32,
    pub(crate) keys: u16,
    pub(crate) factor: usize,
    pub(crate) min_in_sync: usize,
    /// Copies that have a write before it is answered; `None`: all that are in sync.
    pub(crate) write_quorum: Option<usize>,
    pub(crate) clients: usize,
    /// How often a client asks any node, and not the primary.
    pub(crate) lost_per_mille: u64,
    pub(crate) eviction_per_mille: u64,
    /// Of a thousand writes, so many are to be flushed.
    pub(crate) flushed_per_mille: u64,
    /// How long rows gather before they are uploaded.
    pub(crate) upload_linger: u64,
    /// Of a thousand requests to the bucket, so many fail in some way.
    pub(crate) bucket_fails_per_mille: u64,
    /// All copies of a partition may lose their disks.
    pub(crate) loses_disks: bool,
    /// When faults end.
    pub(crate) faults_until: u64,
    pub(crate) bug: Option<Bug>,
}

/// Writes that were answered before a moment may be lost from then on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Excuse {
    pub(crate) at: u64,
    /// Those that were to be no more durable than this.
    pub(crate) up_to: Durability,
}

pub(crate) enum Event {
    Arrive(Packet),
    Local(Node, u64, Local),
    Sweep(Node, u64),
    Control,
    Publish,
    /// A client begins an operation, unless it waits for another one than this.
    Client(usize, Option<usize>),
    Fault(Fault),
    /// A request is carried out, and answered if anybody waits for it.
    Bucket(Request, bool),
}

pub(crate) struct World {
    pub(crate) config: Config,
    pub(crate) now: u64,
    pub(crate) random: Random,
    pub(crate) network: Network,
    pub(crate) machines: BTreeMap<Node, Machine>,
    pub(crate) next_node: Node,
    pub(crate) master: Master,
    pub(crate) bucket: Bucket,
    /// By key, the newest version that was uploaded and counted, and where its value is.
    pub(crate) counted: BTreeMap<Bytes, Mark>,
    pub(crate) history: Vec<Operation>,
    pub(crate) clients: Vec<Client>,
    pub(crate) clients_stop_at: u64,
    pub(crate) faults: usize,
    /// For each partition, when writes may have been lost.
    pub(crate) excuses: BTreeMap<u32, Vec<Excuse>>,
    /// What must never be, as soon as it is.
    pub(crate) wrong: Option<String>,
    pub(crate) events: BTreeMap<(u64, u64), Event>,
    will_publish: bool,
    sequence: u64,
    /// Changes with everything that happens.
    pub(crate) trace: u64,
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
            master: Master::new(config.partitions, config.factor, config.write_quorum),
            bucket: Bucket { fails_per_mille: config.bucket_fails_per_mille, ..Bucket::default() },
            counted: BTreeMap::new(),
            history: Vec::new(),
            clients: vec![Client::default(); config.clients],
            clients_stop_at: u64::MAX,
            faults: 0,
            excuses: BTreeMap::new(),
            wrong: None,
            events: BTreeMap::new(),
            will_publish: false,
            sequence: 0,
            trace: config.seed,
        };
        (0..config.nodes).for_each(|_| world.join());
        world.at(500, Event::Control);
        for client in 0..config.clients {
            let begin = world.random.between(1_500, 2_500);
            world.at(begin, Event::Client(client, None));
        }
        for (at, fault) in faults::plan(&config, 3_000, &mut world.random) {
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
            && self.wrong.is_none()
        {
            let ((now, _), event) = entry.remove_entry();
            self.now = now;
            self.happen(event);
        }
        self.now = end;
    }

    fn happen(&mut self, event: Event) {
        let now = self.now;
        match event {
            Event::Arrive(packet) => self.arrive(packet),
            Event::Control => {
                if self.master.reconcile(now) {
                    self.publish();
                }
                for partition in std::mem::take(&mut self.master.begun_anew) {
                    self.excuse(partition, Durability::Fsync);
                }
                std::mem::take(&mut self.master.resumed).iter().for_each(|resumed| self.excuse_resumed(resumed));
                self.at(now + CONTROL, Event::Control);
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
                if let Some(story) = &mut self.master.story {
                    story.push(format!("{now} ms: {fault:?}"));
                }
                self.suffer(fault);
            }
            Event::Local(node, session, what) => {
                let Some(until) = self.running(node, session) else { return };
                if until > now {
                    return self.at(until, Event::Local(node, session, what));
                }
                let again = match what {
                    Local::Tick => Some((TICK, Local::Tick)),
                    Local::Heartbeat => Some((HEARTBEAT, Local::Heartbeat)),
                    _ => None,
                };
                again.into_iter().for_each(|(after, what)| self.at(now + after, Event::Local(node, session, what)));
                if let Some(machine) = self.machines.get_mut(&node) {
                    machine.happen(what, now);
                }
                self.do_all(node);
            }
            Event::Sweep(node, session) => self.sweep(node, session),
            Event::Bucket(request, is_told) => self.execute(&request, is_told),
        }
    }

    /// Until when a process does nothing, if it has not ended.
    fn running(&self, node: Node, session: u64) -> Option<u64> {
        let machine = self.machines.get(&node).filter(|machine| machine.is_up && machine.me.session == session)?;
        Some(machine.paused_until)
    }

    fn sweep(&mut self, node: Node, session: u64) {
        let Some(until) = self.running(node, session) else { return };
        let now = self.now;
        self.at(until.max(now + SWEEP), Event::Sweep(node, session));
        let expired = self.machines.get_mut(&node).filter(|_| until <= now).map(|machine| machine.sweep(now));
        self.do_all(node);
        for (name, version) in expired.into_iter().flatten() {
            let Some(key) = (0..self.config.keys).find(|key| *super::history::name(*key).as_bytes() == name) else {
                continue;
            };
            let first = self.history.len();
            let call = Call {
                key,
                ask: Ask::Remove(version),
                condition: Condition::None,
                durability: Durability::Memory,
                epoch: 0,
                eventual: false,
                first,
                has_key: false,
            };
            self.history.push(Operation { client: None, call: call.clone(), called_at: now, answer: None });
            self.send(Packet { from: CLIENTS, to: node, body: Body::Call(first, call) });
        }
    }

    /// Sends what a node has to say, and notes what it has to do later.
    pub(crate) fn do_all(&mut self, node: Node) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&node) else { return };
        let session = machine.me.session;
        let (out, admitted) = (std::mem::take(&mut machine.out), std::mem::take(&mut machine.admitted));
        let (counted, restored) = (std::mem::take(&mut machine.counted), std::mem::take(&mut machine.restored));
        let wrong = machine.wrong.take();
        for out in out {
            match out {
                Out::Send(packet) => self.send(packet),
                Out::Later(delay, what) => self.at(now + delay, Event::Local(node, session, what)),
            }
        }
        admitted.into_iter().for_each(|partition| self.excuse(partition, Durability::Memory));
        self.count(counted);
        self.wrong = self.wrong.take().or(wrong);
        restored.into_iter().for_each(|partition| self.check_restored(node, partition));
        self.look_for_wrong(node);
    }

    /// Writes of a partition that were to be no more durable than this may have been lost by now.
    fn excuse(&mut self, partition: u32, up_to: Durability) {
        if up_to < Durability::Fsync {
            // The bucket may have what the disks have lost; it is dead then.
            self.counted.retain(|_, mark| mark.partition != partition);
        }
        self.excuses.entry(partition).or_default().push(Excuse { at: self.now, up_to });
    }

    /// What goes on after a restart has what its disks have: what was to be in memory only may be lost, and what was not
    /// flushed, if the power of one of them was cut while it was in sync.
    fn excuse_resumed(&mut self, Resumed { partition, in_sync }: &Resumed) {
        let has_lost = |(node, session): &(Node, u64)| {
            self.machines.get(node).is_some_and(|machine| machine.cuts.contains(&(*partition, *session)))
        };
        let up_to = if in_sync.iter().any(has_lost) { Durability::Disk } else { Durability::Memory };
        self.excuse(*partition, up_to);
    }

    fn look_for_wrong(&mut self, node: Node) {
        let Some(machine) = self.machines.get(&node).filter(|machine| machine.is_up) else { return };
        let waiting: usize =
            (0..self.config.partitions).filter_map(|id| machine.engine(id)).map(Engine::waiting_requests).sum();
        let oldest = machine.owed.values().map(|(_, since)| *since).min().unwrap_or(self.now);
        let (owed, queued, now) = (machine.owed.len(), machine.disk.queue.len(), self.now);
        if waiting != owed {
            self.wrong = Some(format!("{now} ms: {waiting} requests wait in node {node}, which owes {owed} answers"));
        } else if oldest + ANSWERED_WITHIN < now && machine.paused_until + ANSWERED_WITHIN < now {
            self.wrong = Some(format!("{now} ms: node {node} has not answered a request of {oldest} ms"));
        } else if queued > MOST_QUEUED {
            self.wrong = Some(format!("{now} ms: {queued} writes wait for the disk of node {node}"));
        }
    }

    pub(crate) fn send(&mut self, packet: Packet) {
        if let Some(delay) = self.network.delay(packet.from, packet.to, &mut self.random) {
            self.at(self.now + delay, Event::Arrive(packet));
        }
    }

    fn arrive(&mut self, Packet { from, to, body }: Packet) {
        let now = self.now;
        self.trace = mix(self.trace ^ mix(now ^ u64::from(from) << 48 ^ u64::from(to) << 32));
        match (to, body) {
            (MASTER, Body::Heartbeat(_)) if self.master.has_removed(from) => drop(self.machines.remove(&from)),
            (MASTER, Body::Heartbeat(beat)) => {
                self.master.hear(from, beat, now);
                let body = Body::Map(self.master.news(beat.session, beat.seen));
                self.send(Packet { from: MASTER, to: from, body });
            }
            (MASTER, Body::Ask(partition, request)) => {
                if self.master.ask(partition, &request, now) {
                    let body = Body::Map(self.master.news_of(request.session, partition));
                    self.send(Packet { from: MASTER, to: from, body });
                    self.publish();
                }
            }
            (BUCKET, Body::Bucket(session, number, ask)) => self.ask_bucket(Request { from, session, number, ask }),
            (CLIENTS, Body::Reply(number, reply)) => self.answered(from, number, reply),
            (_, body) => self.arrive_at_node(from, to, body),
        }
    }

    fn arrive_at_node(&mut self, from: Node, to: Node, body: Body) {
        let now = self.now;
        let Some(machine) = self.machines.get_mut(&to) else { return };
        if !machine.is_up {
            if let Body::Peer(partition, Envelope { from: asker, to: asked, message: Message::Collect { .. } }) = body {
                let envelope = Envelope { from: asked, to: asker, message: Message::Down };
                self.send(Packet { from: to, to: from, body: Body::Peer(partition, envelope) });
            }
            return;
        }
        if machine.paused_until > now {
            let until = machine.paused_until;
            return self.at(until, Event::Arrive(Packet { from, to, body }));
        }
        match body {
            Body::Peer(partition, envelope) => machine.deliver(partition, envelope, now),
            Body::Map(news) => machine.learn(&news, now),
            Body::Call(number, call) => machine.call(number, &call, now),
            Body::Found(session, number, found) if session == machine.me.session => machine.found(number, found, now),
            _ => {}
        }
        self.do_all(to);
    }

    fn publish(&mut self) {
        if !self.will_publish {
            self.will_publish = true;
            self.at(self.now + GATHER, Event::Publish);
        }
    }

    pub(crate) fn end_faults(&mut self) {
        self.events.retain(|_, event| !matches!(event, Event::Fault(_)));
    }
}
