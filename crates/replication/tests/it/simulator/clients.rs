//! Clients: each does one thing after the other, and waits for an answer, but not for ever.

use std::collections::BTreeMap;

use cairn_api_spec::Version;

use super::{
    history::Operation,
    network::{Body, CLIENTS, Call, Packet, Reply},
    world::{Event, World},
};
use crate::message::{Key, Node};

/// How long a client waits for an answer.
const GIVE_UP: u64 = 2_000;

#[derive(Clone, Debug, Default)]
pub(crate) struct Client {
    /// What it saw last of each key.
    known: BTreeMap<Key, Version>,
    waits_for: Option<usize>,
}

impl World {
    pub(crate) fn client_goes_on(&mut self, client: usize, given_up: Option<usize>) {
        if self.now >= self.clients_stop_at || self.clients[client].waits_for != given_up {
            return;
        }
        let key = u16::try_from(self.random.below(u64::from(self.config.keys))).unwrap_or(0);
        let call = match self.random.below(4) {
            0 | 1 => Call::Read(key),
            2 => Call::Write(key),
            _ => Call::CompareAndSet(key, self.clients[client].known.get(&key).copied().unwrap_or_default()),
        };
        let number = self.call(Some(client), call);
        self.clients[client].waits_for = Some(number);
        self.at(self.now + GIVE_UP, Event::Client(client, Some(number)));
    }

    /// Sends an operation to the primary that the map names, or now and then to any node.
    pub(crate) fn call(&mut self, client: Option<usize>, call: Call) -> usize {
        let number = self.history.len();
        self.history.push(Operation { client, call, called_at: self.now, answer: None });
        let partition = u32::from(call.key()) % self.config.partitions;
        let is_lost = self.random.chance(self.config.lost_per_mille);
        let primary = self.master.primary(partition).filter(|_| !is_lost);
        let any: Vec<Node> = self.machines.keys().copied().collect();
        if let Some(to) = primary.or_else(|| self.random.pick(&any)) {
            self.send(Packet { from: CLIENTS, to, body: Body::Call(number, call) });
        }
        number
    }

    pub(crate) fn answered(&mut self, number: usize, reply: Reply) {
        let operation = &mut self.history[number];
        if operation.answer.is_some() {
            return;
        }
        operation.answer = Some((self.now, reply));
        let key = operation.call.key();
        let Some(index) = operation.client else { return };
        let client = &mut self.clients[index];
        if let Reply::Read(version, _) | Reply::Written { version, .. } | Reply::Mismatch(version) = reply {
            client.known.insert(key, version);
        }
        if client.waits_for == Some(number) {
            client.waits_for = None;
            let pause = self.random.between(5, 80);
            self.at(self.now + pause, Event::Client(index, None));
        }
    }
}
