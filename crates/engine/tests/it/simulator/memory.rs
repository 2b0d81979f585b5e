//! What a node has at hand: committed entries, dropped at random, and which idempotency keys the disk may know.

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use bytes::Bytes;
use cairn_api_spec::operation::IdempotencyKey;
use cairn_engine::{Entry, Near};

use super::random::Random;

pub(crate) struct Memory {
    entries: RefCell<BTreeMap<Bytes, Entry>>,
    seen: RefCell<BTreeSet<(u32, String)>>,
    random: RefCell<Random>,
    /// Of a thousand entries that are taken in, so many push another one out.
    eviction_per_mille: u64,
}

impl Memory {
    pub(crate) fn new(seed: u64, eviction_per_mille: u64) -> Self {
        Self {
            entries: RefCell::default(),
            seen: RefCell::default(),
            random: RefCell::new(Random::new(seed)),
            eviction_per_mille,
        }
    }

    /// Notes an idempotency key that is on its way to the disk.
    pub(crate) fn note(&self, partition: u32, key: &str) {
        self.seen.borrow_mut().insert((partition, key.to_owned()));
    }

    pub(crate) fn forget(&self, is_forgotten: impl Fn(&[u8]) -> bool) {
        self.entries.borrow_mut().retain(|name, _| !is_forgotten(name));
    }

    /// Drops one entry, or none.
    pub(crate) fn evict(&self) {
        let (mut entries, mut random) = (self.entries.borrow_mut(), self.random.borrow_mut());
        if !random.chance(self.eviction_per_mille) {
            return;
        }
        let names: Vec<&Bytes> = entries.keys().collect();
        let chosen = random.pick(&names).cloned();
        chosen.iter().for_each(|name| drop(entries.remove(name)));
    }
}

impl Near for Memory {
    fn get(&self, name: &[u8]) -> Option<Entry> {
        self.entries.borrow().get(name).cloned()
    }

    fn insert(&self, entry: Entry) {
        self.entries.borrow_mut().insert(Bytes::copy_from_slice(entry.name()), entry);
        self.evict();
    }

    fn remove(&self, name: &[u8]) {
        self.entries.borrow_mut().remove(name);
    }

    fn may_recall(&self, partition: u32, key: &IdempotencyKey) -> bool {
        let seen = self.seen.borrow().contains(&(partition, key.as_str().to_owned()));
        seen || self.random.borrow_mut().chance(20)
    }
}
