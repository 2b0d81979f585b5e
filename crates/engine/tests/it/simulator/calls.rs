//! What a node does for its clients: what the real driver does of `execute`, and finding what is to expire.

use cairn_api_spec::{
    Outcome, Version,
    operation::{Durability, Metadata, Removal, Tier},
    version::Condition,
};
use cairn_engine::{Change, Entry, Near, Request, Verb};
use cairn_replication::Role;

use super::{
    disk::Work,
    history::{Ask, Call},
    machine::Machine,
    network::{Body, CLIENTS},
};
use crate::planted::Bug;

impl Machine {
    pub(crate) fn call(&mut self, number: usize, call: &Call, now: u64) {
        let partition = call.name().partition(self.rules.partitions);
        if let Some(outcome) = self.read_memory(partition, call, now) {
            return self.send(CLIENTS, Body::Reply(number, Ok(outcome).into()));
        }
        let name = call.name();
        let verb = match call.ask {
            Ask::Get => Verb::Get,
            Ask::Head => Verb::Head,
            Ask::Delete => Verb::Delete,
            Ask::Remove(version) => Verb::Remove(version, Removal::Expire),
            Ask::Put { ttl } => {
                let value = call.first.to_string();
                let wall = self.wall(now);
                let metadata = Metadata {
                    version: Version::NONE,
                    modified_at: wall,
                    expires_at: ttl.map(|ttl| wall + ttl),
                    size: value.len() as u64,
                    content_type: String::new(),
                };
                Verb::Put(Entry::new(&name, &metadata, value.as_bytes()))
            }
        };
        let request = Request {
            condition: call.condition,
            durability: call.durability,
            key: call.idempotency_key(),
            epoch: call.epoch,
            eventual: call.eventual,
            ..Request::new(name, verb)
        };
        self.owed.insert(number, (partition, now));
        if call.is_write() && call.durability == Durability::Object {
            self.uploads.awaited.insert(number, now);
        }
        self.drive(partition, now, |engine, step| engine.submit(request, number, step));
    }

    /// A read that memory can answer takes no lock of its partition.
    fn read_memory(&self, partition: u32, call: &Call, now: u64) -> Option<Outcome> {
        let published = self.engine(partition)?.published();
        let is_plain = !call.is_write() && call.condition == Condition::None;
        if published.serving == 0 || published.serving < call.epoch || !is_plain || self.clock_is_off {
            return None;
        }
        let entry = self.memory.get(call.name().as_bytes()).filter(|entry| entry.is_live(self.wall(now)))?;
        let value = if call.ask == Ask::Get { entry.value_bytes() } else { bytes::Bytes::new() };
        let has_lease = now < published.lease_until || self.has(Bug::ReadWithoutLease);
        has_lease.then(|| Outcome::Found { metadata: entry.metadata(), tier: Tier::Memory, value: Some(value) })
    }

    /// Keys of partitions that this node serves whose time has come, with their versions; and forgets deletions that no
    /// copy needs any more.
    pub(crate) fn sweep(&mut self, now: u64) -> Vec<(bytes::Bytes, Version)> {
        self.memory.evict();
        if self.clock_is_off || now < self.disk.hangs_until {
            return Vec::new();
        }
        let wall = self.wall(now);
        let mut expired = Vec::new();
        let mut settled = Vec::new();
        for (name, row) in &self.disk.tables.rows {
            let Some(engine) = self.engine(row.partition) else { continue };
            match &row.change {
                Change::Put(entry) if !entry.is_live(wall) && engine.published().serving > 0 => {
                    expired.push((name.clone(), entry.version()));
                }
                Change::Delete { version, .. } if row.uploaded => {
                    let replica = engine.replica();
                    let holds = matches!(replica.role(), Role::Serving | Role::Replica);
                    if holds && replica.entry().learners.is_empty() && *version <= replica.stable() {
                        settled.push((row.partition, name.clone(), *version));
                    }
                }
                _ => {}
            }
        }
        for (partition, name, version) in settled {
            // What fails is met again in a later round.
            self.enqueue_task(partition, 0, Work::Forget(vec![(name, version)]));
        }
        expired
    }
}
