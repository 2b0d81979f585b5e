//! The memory tier: a sharded LRU bounded by entries and by bytes.
//!
//! It is a cache of committed state and nothing else: what it drops is on the disk. Bytes are what the process really
//! spends on an entry (allocator classes, list node and table slot included), so that `max_memory` means what it says.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use lru::LruCache;
use xxhash_rust::xxh3::xxh3_64;

use cairn_engine::Entry;

const MAX_SHARDS: usize = 16;
/// Fewer entries than this in a shard would make the bounds of the shards too uneven.
const MIN_ENTRIES_PER_SHARD: usize = 64;

/// See the module.
pub struct Memory {
    shards: Vec<Mutex<Shard>>,
    max_entries_per_shard: usize,
    max_bytes_per_shard: usize,
    evictions: AtomicU64,
}

struct Shard {
    entries: LruCache<Entry, ()>,
    bytes: usize,
}

impl Memory {
    /// A tier for at most `max_entries` entries that take at most `max_bytes` together.
    pub fn new(max_entries: usize, max_bytes: usize) -> Self {
        let count = (max_entries / MIN_ENTRIES_PER_SHARD).clamp(1, MAX_SHARDS);
        let shard = || Mutex::new(Shard { entries: LruCache::unbounded(), bytes: 0 });
        Self {
            shards: std::iter::repeat_with(shard).take(count).collect(),
            max_entries_per_shard: max_entries / count,
            max_bytes_per_shard: max_bytes / count,
            evictions: AtomicU64::new(0),
        }
    }

    fn shard(&self, name: &[u8]) -> MutexGuard<'_, Shard> {
        // The low bits choose the partition; the high ones are independent of it.
        let index = (xxh3_64(name) >> 48) as usize % self.shards.len();
        self.shards[index].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The entry under a name, which becomes the most recently used one.
    pub fn get(&self, name: &[u8]) -> Option<Entry> {
        self.shard(name).entries.get_key_value(name).map(|(entry, ())| entry.clone())
    }

    /// Whether the tier holds a name; its place in the order stays.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.shard(name).entries.contains(name)
    }

    /// Takes an entry in, in place of an older one, and drops the least recently used ones that no longer fit.
    pub fn insert(&self, entry: Entry) {
        let bytes = entry.memory_bytes();
        let mut shard = self.shard(entry.name());
        shard.forget(entry.name());
        if bytes > self.max_bytes_per_shard {
            return;
        }
        shard.bytes += bytes;
        shard.entries.put(entry, ());
        let mut evicted = 0;
        while shard.entries.len() > self.max_entries_per_shard || shard.bytes > self.max_bytes_per_shard {
            let Some((dropped, ())) = shard.entries.pop_lru() else { break };
            shard.bytes -= dropped.memory_bytes();
            evicted += 1;
        }
        drop(shard);
        if evicted > 0 {
            self.evictions.fetch_add(evicted, Ordering::Relaxed);
        }
    }

    /// Forgets a name.
    pub fn remove(&self, name: &[u8]) {
        self.shard(name).forget(name);
    }

    /// Forgets every name for which `keep` is false.
    pub fn retain(&self, keep: impl Fn(&[u8]) -> bool) {
        for shard in &self.shards {
            let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            let gone: Vec<Entry> = shard.entries.iter().map(|(e, ())| e).filter(|e| !keep(e.name())).cloned().collect();
            for entry in gone {
                shard.forget(entry.name());
            }
        }
    }

    /// Entries and bytes held.
    pub fn usage(&self) -> (u64, u64) {
        self.shards.iter().fold((0, 0), |(entries, bytes), shard| {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            (entries + shard.entries.len() as u64, bytes + shard.bytes as u64)
        })
    }

    /// Entries dropped to keep within the bounds, so far.
    pub fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }
}

impl Shard {
    fn forget(&mut self, name: &[u8]) {
        if let Some((entry, ())) = self.entries.pop_entry(name) {
            self.bytes -= entry.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_api_spec::{Bucket, EntryName, Version, operation::Metadata};
    use proptest::prelude::*;

    use super::*;

    fn entry(key: &str, value: &[u8]) -> Entry {
        let name = EntryName::new(&Bucket::default(), key).unwrap();
        let metadata =
            Metadata { version: Version(1), modified_at: 0, expires_at: None, size: 0, content_type: String::new() };
        Entry::new(&name, &metadata, value)
    }

    #[test]
    fn the_least_recently_used_entry_goes_first() {
        let memory = Memory::new(2, 1 << 20);
        memory.insert(entry("a", b"1"));
        memory.insert(entry("b", b"2"));
        memory.get(entry("a", b"").name());
        memory.insert(entry("c", b"3"));
        let held = |key| memory.contains(entry(key, b"").name());
        assert_eq!((held("a"), held("b"), held("c")), (true, false, true));
        assert_eq!(memory.evictions(), 1);
    }

    #[test]
    fn the_bytes_counted_are_the_bytes_the_process_spends() {
        let memory = Memory::new(usize::MAX, usize::MAX);
        let before = resident_bytes();
        for i in 0..300_000 {
            memory.insert(entry(&format!("key:{i:09}"), &[7; 100]));
        }
        let spent = resident_bytes() - before;
        let (_, counted) = memory.usage();
        let ratio = counted as f64 / spent as f64;
        assert!((0.8..1.25).contains(&ratio), "counted {counted}, spent {spent}");
    }

    fn resident_bytes() -> u64 {
        let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
        statm.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
    }

    proptest! {
        #[test]
        fn neither_bound_is_ever_exceeded_and_the_count_is_exact(
            max_entries in 1usize..200, max_bytes in 500usize..50_000,
            steps in proptest::collection::vec((0u8..60, 0usize..2000, any::<bool>()), 1..300),
        ) {
            let memory = Memory::new(max_entries, max_bytes);
            for (key, size, remove) in steps {
                let entry = entry(&key.to_string(), &vec![0; size]);
                if remove { memory.remove(entry.name()) } else { memory.insert(entry) }
                let (entries, bytes) = memory.usage();
                prop_assert!(entries as usize <= max_entries && bytes as usize <= max_bytes);
            }
            memory.retain(|_| false);
            prop_assert_eq!(memory.usage(), (0, 0));
        }
    }
}
