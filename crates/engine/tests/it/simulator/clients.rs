//! Clients: each does one thing after the other, and waits for an answer, but not for ever. What has an idempotency key
//! is sent again.

use std::collections::BTreeMap;

use cairn_api_spec::{Version, operation::Durability, version::Condition};

use super::{
    history::{Ask, Call, Operation, Reply},
    network::{Body, CLIENTS, Node, Packet},
    world::{Event, World},
};

/// How long a client waits for an answer.
const GIVE_UP: u64 = 2_000;
/// The client that only reads, and asks whoever answered it last, as one does that does not hear of the map.
const READER: usize = 0;
const READER_GIVES_UP: u64 = 60;
/// How often a write is sent, at most.
const MOST_SENT: u32 = 5;

#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// What it saw last of each key.
    known: BTreeMap<u16, Version>,
    waits_for: Option<usize>,
    /// Which node has answered last, for each key: it may not be the primary any more.
    asked: BTreeMap<u16, Node>,
    /// What is to be sent again, and how often it was sent.
    again: Option<(Call, u32)>,
}

impl World {
    pub(crate) fn client_goes_on(&mut self, client: usize, given_up: Option<usize>) {
        if self.now >= self.clients_stop_at || self.clients[client].waits_for != given_up {
            return;
        }
        let (call, sent) = match self.clients[client].again.take() {
            Some((call, sent)) if sent < MOST_SENT && self.random.chance(900) => (call, sent),
            _ => (self.next_call(client), 0),
        };
        if call.has_key {
            self.clients[client].again = Some((call.clone(), sent + 1));
            // Impatient: twice at a time.
            if self.random.chance(60) {
                self.call(None, &call);
            }
        }
        let number = self.call(Some(client), &call);
        self.clients[client].waits_for = Some(number);
        let patience = match client {
            READER => READER_GIVES_UP,
            _ if self.random.chance(150) => self.random.between(5, 200),
            _ => GIVE_UP,
        };
        self.at(self.now + patience, Event::Client(client, Some(number)));
    }

    fn next_call(&mut self, client: usize) -> Call {
        let key = u16::try_from(self.random.below(u64::from(self.config.keys))).unwrap_or(0);
        let known = self.clients[client].known.get(&key).copied().unwrap_or_default();
        let ask = match self.random.below(100) {
            _ if client == READER => Ask::Get,
            0..40 => Ask::Get,
            40..48 => Ask::Head,
            48..85 => Ask::Put { ttl: self.random.chance(150).then(|| self.random.between(200, 4_000)) },
            _ => Ask::Delete,
        };
        let is_write = !matches!(ask, Ask::Get | Ask::Head);
        let condition = match (self.random.below(100), is_write) {
            (0..60, true) | (0..85, false) => Condition::None,
            _ if client == READER => Condition::None,
            (60..80, true) | (85..90, false) => Condition::Matches(known),
            (80..95, true) => Condition::Absent,
            _ => Condition::Differs(known),
        };
        let durability = match (self.random.chance(self.config.flushed_per_mille), self.random.below(100)) {
            (true, 0..60) => Durability::Fsync,
            (true, _) => Durability::Object,
            (false, 0..33) => Durability::Memory,
            (false, _) => Durability::Disk,
        };
        let first = self.history.len();
        let has_key = is_write && self.random.chance(400);
        let eventual = !is_write && self.random.chance(80);
        Call { key, ask, condition, durability, epoch: 0, eventual, first, has_key }
    }

    /// Sends an operation to the primary that the map names, or now and then to any node.
    pub(crate) fn call(&mut self, client: Option<usize>, call: &Call) -> usize {
        let number = self.history.len();
        let partition = call.name().partition(self.config.partitions);
        let is_lost = self.random.chance(self.config.lost_per_mille) || call.eventual;
        let primary = self.master.primary(partition).filter(|_| !is_lost);
        let any: Vec<Node> = self.machines.keys().copied().collect();
        let former = client.and_then(|client| self.clients[client].asked.get(&call.key).copied());
        let loyalty = if client == Some(READER) { 950 } else { 200 };
        let former = former.filter(|_| !call.eventual && self.random.chance(loyalty));
        let to = former.or(primary).or_else(|| self.random.pick(&any));
        let epoch = if self.random.chance(500) { self.master.entry(partition).epoch } else { 0 };
        let first = if call.has_key { call.first } else { number };
        let call = Call { epoch, first, ..call.clone() };
        self.history.push(Operation { client, call: call.clone(), called_at: self.now, answer: None });
        if let Some(to) = to {
            self.send(Packet { from: CLIENTS, to, body: Body::Call(number, call) });
        }
        number
    }

    pub(crate) fn answered(&mut self, from: Node, number: usize, reply: Reply) {
        let operation = &mut self.history[number];
        let key = operation.call.key;
        let (version, is_refused) = (reply.version(), matches!(reply, Reply::Refused(_) | Reply::Unknown));
        operation.answer = Some((self.now, reply));
        let Some(index) = operation.client else { return };
        let client = &mut self.clients[index];
        client.known.extend(version.map(|version| (key, version)));
        if version.is_some() {
            client.asked.insert(key, from);
        } else {
            client.asked.remove(&key);
        }
        if client.waits_for == Some(number) {
            client.waits_for = None;
            // Now and then what was answered is sent again, too.
            if !is_refused && self.random.chance(850) {
                client.again = None;
            }
            let pause = self.random.between(2, 60);
            self.at(self.now + pause, Event::Client(index, None));
        }
    }
}
