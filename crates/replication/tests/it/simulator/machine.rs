//! A node: a process that may be gone or stopped, its partitions, and what it answers to clients.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use cairn_api_spec::Version;
use cairn_replication::Member;

use super::network::{Beat, Body, CLIENTS, Call, MASTER, News, Packet, Reply};
use crate::{
    host::{Host, Rules},
    message::{Message, Node, Out, Process, Row},
};

#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) me: Process,
    rules: Rules,
    partitions: u32,
    pub(crate) is_up: bool,
    pub(crate) paused_until: u64,
    started_at: u64,
    pub(crate) data_since: u64,
    pub(crate) leaving: bool,
    /// The revision of the map that it knows.
    seen: usize,
    sessions: Arc<BTreeMap<Node, u64>>,
    pub(crate) hosts: BTreeMap<u32, Host>,
    /// Which operation a write belongs to.
    calls: BTreeMap<(u32, Version), (usize, Version)>,
    /// Partitions for which the disk works.
    flushing: BTreeSet<u32>,
    /// Those for which it is to begin.
    pub(crate) to_flush: Vec<u32>,
    /// The longest that its disk takes.
    pub(crate) disk_delay: u64,
    /// Until when its disk stores nothing.
    pub(crate) disk_fails_until: u64,
    /// Until when its disk answers nothing.
    pub(crate) disk_hangs_until: u64,
}

impl Machine {
    pub(crate) fn new(node: Node, partitions: u32, rules: Rules, now: u64) -> Self {
        Self {
            me: Member { node, session: 1 },
            rules,
            partitions,
            is_up: true,
            paused_until: 0,
            started_at: now,
            data_since: 1,
            leaving: false,
            seen: 0,
            sessions: Arc::default(),
            hosts: BTreeMap::new(),
            calls: BTreeMap::new(),
            flushing: BTreeSet::new(),
            to_flush: Vec::new(),
            disk_delay: 3,
            disk_fails_until: 0,
            disk_hangs_until: 0,
        }
    }

    /// The process ends.
    pub(crate) fn crash(&mut self) {
        self.is_up = false;
        self.me.session += 1;
        self.calls.clear();
        self.flushing.clear();
        self.to_flush.clear();
        self.sessions = Arc::default();
        (self.seen, self.leaving, self.paused_until) = (0, false, 0);
    }

    /// The data go, too.
    pub(crate) fn wipe(&mut self) {
        self.hosts.clear();
        self.data_since = self.me.session;
    }

    pub(crate) fn start(&mut self, now: u64) {
        (self.is_up, self.leaving) = (true, false);
        self.started_at = now;
        self.hosts.values_mut().for_each(|host| host.restart(now));
    }

    pub(crate) fn heartbeat(&self) -> Packet {
        let Self { data_since, seen, leaving, .. } = *self;
        let beat = Beat { session: self.me.session, data_since, seen, leaving };
        Packet { from: self.me.node, to: MASTER, body: Body::Heartbeat(beat) }
    }

    pub(crate) fn tick(&mut self, now: u64, sent: &mut Vec<Packet>) {
        let partitions: Vec<u32> = self.hosts.keys().copied().collect();
        for partition in partitions {
            self.at(partition, now, sent, Host::tick);
        }
    }

    pub(crate) fn flush(&mut self, partition: u32, now: u64, sent: &mut Vec<Packet>) {
        self.flushing.remove(&partition);
        let fails = now < self.disk_fails_until;
        self.at(partition, now, sent, if fails { Host::fail } else { Host::flush });
    }

    pub(crate) fn receive(&mut self, body: Body, now: u64, sent: &mut Vec<Packet>) {
        match body {
            Body::Peer(partition, envelope) if self.leaving && envelope.message.needs_follower() => {
                self.at(partition, now, sent, |host, _, out| {
                    host.send(envelope.from, Message::Refused { failed: true }, out);
                });
            }
            Body::Peer(partition, envelope) => {
                self.at(partition, now, sent, |host, now, out| host.deliver(&envelope, now, out));
            }
            Body::Map(news) if news.session == self.me.session => self.learn(&news, now, sent),
            Body::Call(number, call) => self.answer(number, call, now, sent),
            Body::Map(_) | Body::Ask(..) | Body::Heartbeat(_) | Body::Reply(..) => {}
        }
    }

    fn learn(&mut self, news: &News, now: u64, sent: &mut Vec<Packet>) {
        for (partition, entry) in &news.entries {
            let mut members = entry.in_sync.iter().chain(&entry.learners);
            if !self.hosts.contains_key(partition) && !members.any(|member| member.node == self.me.node) {
                continue;
            }
            let known = if news.revision > 0 { news.sessions.clone() } else { self.sessions.clone() };
            let ended = |member: &&Process| known.get(&member.node).is_some_and(|session| member.session < *session);
            self.at(*partition, now, sent, |host, now, out| {
                host.configure(entry, now, out);
                entry.in_sync.iter().filter(ended).for_each(|member| host.session_ended(member, now, out));
            });
        }
        self.seen = self.seen.max(news.revision);
        if news.revision > 0 && !Arc::ptr_eq(&self.sessions, &news.sessions) {
            let before = std::mem::replace(&mut self.sessions, news.sessions.clone());
            for (&node, &session) in news.sessions.iter().filter(|(node, session)| before.get(node) != Some(session)) {
                self.end_session(&Member { node, session: session - 1 }, now, sent);
            }
        }
    }

    fn end_session(&mut self, ended: &Process, now: u64, sent: &mut Vec<Packet>) {
        let partitions: Vec<u32> = self.hosts.keys().copied().filter(|_| ended.session > 0).collect();
        for partition in partitions {
            self.at(partition, now, sent, |host, now, out| host.session_ended(ended, now, out));
        }
    }

    fn answer(&mut self, number: usize, call: Call, now: u64, sent: &mut Vec<Packet>) {
        let key = call.key();
        let partition = u32::from(key) % self.partitions;
        let me = self.me.node;
        let reply = |reply: Reply| Packet { from: me, to: CLIENTS, body: Body::Reply(number, reply) };
        let Some(host) = self.hosts.get(&partition) else { return sent.push(reply(Reply::Refused)) };
        let committed = host.visible.as_ref().and_then(|rows| rows.get(&key));
        let visible = committed.map_or(Version::NONE, |write| write.version);
        let reads = host.may_read(now);
        match call {
            Call::Read(_) if reads => {
                let operation = committed.map(|write| write.data.operation);
                return sent.push(reply(Reply::Read(visible, operation)));
            }
            Call::CompareAndSet(_, expected) if host.newest(key) != expected => {
                // What is refused because of a write that is not committed says nothing.
                let is_settled = reads && host.newest(key) == visible;
                return sent.push(reply(if is_settled { Reply::Mismatch(visible) } else { Reply::Refused }));
            }
            Call::Read(_) => return sent.push(reply(Reply::Refused)),
            Call::Write(_) | Call::CompareAndSet(..) => {}
        }
        let row = Row { key, operation: u32::try_from(number).unwrap_or(u32::MAX), ahead: false };
        let mut early = Vec::new();
        let written = self.at(partition, now, &mut early, |host, now, out| host.write(row, now, out));
        match written {
            Some((instead_of, version)) => {
                self.calls.insert((partition, version), (number, instead_of));
            }
            None => sent.push(reply(Reply::Refused)),
        }
        sent.append(&mut early);
    }

    /// Lets something happen at a partition, and sends what comes of it.
    fn at<R>(
        &mut self,
        partition: u32,
        now: u64,
        sent: &mut Vec<Packet>,
        event: impl FnOnce(&mut Host, u64, &mut Out) -> R,
    ) -> R {
        let me = self.me.node;
        let host = self.hosts.entry(partition).or_insert_with(|| {
            let mut host = Host::new(self.me.clone(), self.rules);
            if self.me.session > 1 {
                host.replica.restarted(self.started_at);
            }
            host
        });
        let mut out = Out::default();
        host.is_refusing = now < self.disk_fails_until;
        let result = event(host, now, &mut out);
        if !host.queue.is_empty() && self.flushing.insert(partition) {
            self.to_flush.push(partition);
        }
        let peers = out.sent.into_iter();
        sent.extend(peers.map(|envelope| Packet {
            from: me,
            to: envelope.to.node,
            body: Body::Peer(partition, envelope),
        }));
        let asked = out.asked.into_iter();
        sent.extend(asked.map(|request| Packet { from: me, to: MASTER, body: Body::Ask(partition, request) }));
        for version in out.acknowledged {
            if let Some((number, instead_of)) = self.calls.remove(&(partition, version)) {
                let body = Body::Reply(number, Reply::Written { version, instead_of });
                sent.push(Packet { from: me, to: CLIENTS, body });
            }
        }
        for version in out.undone {
            if let Some((number, _)) = self.calls.remove(&(partition, version)) {
                sent.push(Packet { from: me, to: CLIENTS, body: Body::Reply(number, Reply::Refused) });
            }
        }
        result
    }
}
