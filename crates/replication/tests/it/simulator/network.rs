//! What travels between nodes, the master and clients, and what happens to it on the way.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use cairn_api_spec::Version;
use cairn_replication::Entry;

use super::random::Random;
use crate::message::{Envelope, Key, Message, Node, Request};

/// Whoever sends or receives.
pub(crate) type Site = u16;
pub(crate) const MASTER: Site = u16::MAX;
pub(crate) const CLIENTS: Site = u16::MAX - 1;

#[derive(Debug)]
pub(crate) struct Packet {
    pub(crate) from: Site,
    pub(crate) to: Site,
    pub(crate) body: Body,
}

#[derive(Debug)]
pub(crate) enum Body {
    Peer(u32, Envelope),
    /// A primary asks for a change of its entry.
    Ask(u32, Request),
    Heartbeat(Beat),
    /// What has changed in the map since the revision that the node knew.
    Map(News),
    Call(usize, Call),
    Reply(usize, Reply),
}

impl Body {
    pub(crate) fn is_for_client(&self) -> bool {
        match self {
            Self::Call(..) | Self::Reply(..) => true,
            Self::Peer(_, envelope) => matches!(envelope.message, Message::Append { .. } | Message::Appended { .. }),
            Self::Ask(..) | Self::Heartbeat(_) | Self::Map(_) => false,
        }
    }
}

/// What a node says of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Beat {
    pub(crate) session: u64,
    /// The first session on its present data.
    pub(crate) data_since: u64,
    pub(crate) seen: usize,
    pub(crate) leaving: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct News {
    /// The process that it is for: another one would take what is old for new.
    pub(crate) session: u64,
    pub(crate) revision: usize,
    pub(crate) entries: Vec<(u32, Arc<Entry<Node>>)>,
    pub(crate) sessions: Arc<BTreeMap<Node, u64>>,
}

/// A client's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Read(Key),
    Write(Key),
    /// A write if the key has this version.
    CompareAndSet(Key, Version),
}

impl Call {
    pub(crate) fn key(self) -> Key {
        match self {
            Self::Read(key) | Self::Write(key) | Self::CompareAndSet(key, _) => key,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The version, and the number of the operation that wrote it.
    Read(Version, Option<u32>),
    Written {
        version: Version,
        instead_of: Version,
    },
    /// The condition does not hold for this version.
    Mismatch(Version),
    /// Nothing has happened.
    Refused,
}

/// Which ways are cut, and how bad the others are.
#[derive(Debug, Default)]
pub(crate) struct Network {
    /// Of a thousand nodes these are hundreds of thousands, and every packet is looked for among them.
    cuts: HashSet<(Site, Site)>,
    pub(crate) loss_per_mille: u64,
    pub(crate) slow_per_mille: u64,
}

impl Network {
    /// How long a packet takes; `None` when it is lost.
    pub(crate) fn delay(&self, from: Site, to: Site, random: &mut Random) -> Option<u64> {
        let is_cut = self.cuts.contains(&(from, to));
        if is_cut || (self.loss_per_mille > 0 && random.chance(self.loss_per_mille)) {
            return None;
        }
        let slow = random.chance(self.slow_per_mille);
        Some(if slow { random.between(5, 2_500) } else { random.between(1, 4) })
    }

    pub(crate) fn cut(&mut self, ways: Vec<(Site, Site)>) {
        self.cuts = ways.into_iter().collect();
    }

    pub(crate) fn heal(&mut self) {
        *self = Self::default();
    }
}
