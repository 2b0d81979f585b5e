//! One replica on a bench: a test tells it what peers, disk and clock say, and looks at what it asks for.

use cairn_api_spec::Version;
use cairn_replication::{Change, Effect, Entry, Header, Member, NotServing, Replica, Role, Settings, Write};

/// How often the replica is told the time.
const TICK: u64 = 100;

pub(crate) fn process(node: u16) -> Member<u16> {
    Member { node, session: 1 }
}

/// Node 0, and what it asked for since a test looked last.
pub(crate) struct Bench {
    pub(crate) replica: Replica<u16, ()>,
    pub(crate) now: u64,
    pub(crate) effects: Vec<Effect<u16, ()>>,
}

impl Bench {
    /// Node 0 under an entry of nodes 0 to `copies` − 1 with this primary.
    pub(crate) fn new(copies: u16, primary: u16, settings: Settings) -> Self {
        let replica = Replica::new(process(0), settings);
        let mut bench = Self { replica, now: 1_000, effects: Vec::new() };
        bench.enter(1, primary, &(0..copies).collect::<Vec<_>>());
        bench
    }

    /// Node 0 as the primary, which serves.
    pub(crate) fn serving(copies: u16, settings: Settings) -> Self {
        let mut bench = Self::new(copies, 0, settings);
        bench.take_over((1..copies).collect());
        assert_eq!(bench.replica.role(), Role::Serving);
        bench.effects.clear();
        bench
    }

    pub(crate) fn enter(&mut self, epoch: u64, primary: u16, in_sync: &[u16]) {
        let in_sync = in_sync.iter().copied().map(process).collect();
        let entry = Entry { epoch, primary: Some(primary), in_sync, ..Entry::default() };
        assert!(self.replica.configure(entry, self.now, &mut self.effects));
    }

    /// It leads, and these peers say that they have nothing that it lacks.
    pub(crate) fn take_over(&mut self, peers: Vec<u16>) {
        self.replica.lead(self.now, &mut self.effects);
        for peer in peers {
            let (epoch, now) = (self.replica.entry().epoch, self.now);
            let nothing = cairn_replication::Collected {
                writes: Vec::new(),
                stable: self.replica.stable(),
                last: self.replica.last(),
            };
            self.replica.collected(&process(peer), epoch, now, nothing, now, &mut self.effects);
        }
    }

    /// A write of the primary `from` under `epoch`.
    pub(crate) fn append(
        &mut self,
        from: u16,
        epoch: u64,
        version: u64,
        stable: u64,
    ) -> Result<bool, cairn_replication::Refusal> {
        let header = self.header(from, epoch, stable);
        self.replica.append(&header, Write { version: Version(version), data: () }, self.now, &mut self.effects)
    }

    pub(crate) fn header(&self, from: u16, epoch: u64, stable: u64) -> Header<u16> {
        Header { primary: process(from), session: 1, epoch, stable: Version(stable) }
    }

    pub(crate) fn propose(&mut self, ahead: bool) -> Result<Version, NotServing> {
        self.replica.propose(Version::NONE, ahead, self.now, &mut self.effects, |_| ())
    }

    /// The disk has stored a write.
    pub(crate) fn stored(&mut self, version: Version) {
        self.replica.persisted(version, &mut self.effects);
    }

    /// The disk has refused a write. Returns whether it is as if it had never been.
    pub(crate) fn not_stored(&mut self, version: Version) -> bool {
        self.replica.persist_failed(version, &mut self.effects)
    }

    pub(crate) fn acknowledged(&mut self, peer: u16, version: Version) {
        self.replica.acknowledge(&process(peer), version, &mut self.effects);
    }

    /// One tick, in which these peers give their leases. Returns what it asks for.
    pub(crate) fn tick(&mut self, peers: &[u16]) -> Vec<Effect<u16, ()>> {
        self.now += TICK;
        self.replica.tick(self.now, &mut self.effects);
        peers.iter().for_each(|peer| self.replica.granted(&process(*peer), self.now));
        std::mem::take(&mut self.effects)
    }

    /// Ticks for so long. Returns the changes of the entry that it asks for, each once.
    pub(crate) fn asks_within(&mut self, time: u64, peers: &[u16]) -> Vec<Change<u16>> {
        let end = self.now + time;
        let mut asked = Vec::new();
        while self.now < end {
            for effect in self.tick(peers) {
                if let Effect::Ask { change, .. } = effect
                    && !asked.contains(&change)
                {
                    asked.push(change);
                }
            }
        }
        asked
    }
}

/// The writes that effects want stored here.
pub(crate) fn to_store(effects: &[Effect<u16, ()>]) -> Vec<Version> {
    let persist = |effect: &Effect<u16, ()>| match effect {
        Effect::Persist(write) => Some(write.version),
        _ => None,
    };
    effects.iter().filter_map(persist).collect()
}

/// The writes that effects show.
pub(crate) fn committed(effects: &[Effect<u16, ()>]) -> Vec<Version> {
    let committed = |effect: &Effect<u16, ()>| match effect {
        Effect::Committed(write) => Some(write.version),
        _ => None,
    };
    effects.iter().filter_map(committed).collect()
}

/// How many writes effects send to a peer.
pub(crate) fn sent_to(peer: u16, effects: &[Effect<u16, ()>]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Append { to, .. } if to.node == peer)).count()
}
