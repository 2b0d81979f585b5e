//! How a replica becomes the primary: it collects from every in-sync peer the writes that may not be everywhere, waits
//! until the promise that it gave the former primary is over, brings those writes everywhere, and only then serves.

use std::{fmt::Debug, hash::Hash};

use cairn_api_spec::Version;

use crate::{
    entry::Member,
    interface::{Collected, Effect, Role},
    replica::{Peer, Replica},
};

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// The data of a [`Role::Preparing`] replica are here: it begins to take over.
    pub fn lead(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        if self.role != Role::Preparing {
            return;
        }
        self.role = Role::Collecting;
        self.since = self.entry.epoch;
        let others = self.entry.in_sync.iter().filter(|member| **member != self.me).cloned();
        self.peers = (0..).zip(others).map(|(slot, member)| Peer::new(member, slot, true)).collect();
        for peer in &mut self.peers {
            (peer.collecting_since, peer.in_sync_since) = (Some(now), now);
        }
        self.confirm_at = now;
        self.tick(now, out);
    }

    /// An in-sync peer has answered what was asked at `sent_at`, with an entry of `epoch`.
    pub fn collected(
        &mut self,
        from: &Member<N>,
        epoch: u64,
        sent_at: u64,
        collected: Collected<D>,
        now: u64,
        out: &mut Vec<Effect<N, D>>,
    ) {
        // An answer of an earlier time as the primary says nothing about what others have done since.
        if self.role != Role::Collecting || epoch < self.since {
            return;
        }
        if let Some(peer) = self.peer(from).filter(|peer| peer.collecting_since.is_some()) {
            peer.collecting_since = None;
            self.granted(from, sent_at);
            self.set_stable(collected.stable);
            self.observe(collected.last);
            for write in collected.writes {
                self.note(write, now);
            }
        }
        self.let_go(from, now, out);
    }

    /// Another process of the node than the one that was asked has answered, or one that holds nothing: neither serves
    /// the partition, nor will it say what is missing here.
    pub fn no_holder(&mut self, from: &Member<N>, now: u64, out: &mut Vec<Effect<N, D>>) {
        if self.role == Role::Collecting {
            self.peer(from).into_iter().for_each(|peer| peer.failed = true);
            self.let_go(from, now, out);
            self.look_after_peers(now, out);
        }
    }

    /// A former primary knows of the change, so it does not serve any more.
    fn let_go(&mut self, former: &Member<N>, now: u64, out: &mut Vec<Effect<N, D>>) {
        self.promises.retain(|(to, _)| to != former);
        self.end_takeover(now, out);
    }

    /// Whether a takeover need not wait for a copy of a quorum: it does not answer, and enough others have. It leaves only
    /// when they have what was found, since this copy may be the only one of them that knows it.
    fn can_do_without(&self, peer: &Peer<N>, now: u64) -> bool {
        let is_silent = peer.collecting_since.is_some_and(|since| since + self.settings.late <= now);
        self.settings.write_quorum.is_some() && self.has_collected_enough() && (peer.failed || is_silent)
    }

    /// Whether enough copies have answered, so that each acknowledged write is on one of them or here: the others may go.
    pub(crate) fn has_collected_enough(&self) -> bool {
        let copies = self.entry.in_sync.len();
        let missing = self.peers.iter().filter(|peer| peer.in_sync && peer.collecting_since.is_some()).count();
        self.settings.write_quorum.is_none_or(|quorum| missing < quorum.min(copies))
    }

    /// Asks former primaries that are no peers any more: the promise to one that answers need not be waited for.
    pub(crate) fn ask_for_confirmation(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        if self.role != Role::Collecting || now < self.confirm_at {
            return;
        }
        self.confirm_at = now + self.settings.retry;
        let answers = |to: &Member<N>| to.node != self.me.node && self.peers.iter().all(|peer| peer.member != *to);
        let former = self.promises.iter().filter(|(to, _)| answers(to));
        out.extend(former.map(|(to, _)| Effect::Collect { to: to.clone(), header: self.header(to), sent_at: now }));
    }

    /// Goes on to bring the collected writes everywhere, once nothing stands against it.
    pub(crate) fn end_takeover(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        let promised = self.promises.iter().any(|(_, until)| now < *until);
        let waits = self.peers.iter().any(|peer| peer.collecting_since.is_some() && !self.can_do_without(peer, now));
        // One that has lost writes leaves the place to another copy, as long as there is one.
        let steps_down = self.lost.is_some() && self.in_sync() != 0;
        if self.role != Role::Collecting || promised || waits || steps_down {
            return;
        }
        self.admit_loss(out);
        self.promises.clear();
        self.role = Role::Syncing;
        self.committed = self.stable;
        self.taken_over = self.last;
        for unstable in &mut self.unstable {
            (unstable.since, unstable.ahead, unstable.acks) = (now, false, 0);
            (unstable.persisted, unstable.failed) = (false, false);
        }
        for unstable in &self.unstable {
            out.push(Effect::Persist(unstable.write.clone()));
            self.send(&unstable.write, out);
        }
        self.advance(out);
    }

    /// No write above this version has been answered, by this primary or by those before it.
    pub(crate) fn may_be_answered(&self) -> Version {
        self.committed.max(self.taken_over)
    }

    /// Serves once the collected writes are everywhere, and nobody is in sync who may have others.
    pub(crate) fn end_sync(&mut self) {
        let synced = self.unstable.back().is_none_or(|newest| newest.write.version <= self.committed);
        let is_strange = |peer: &Peer<N>| peer.in_sync && (peer.failed || peer.collecting_since.is_some());
        let has_strangers = self.settings.write_quorum.is_some() && self.peers.iter().any(is_strange);
        if self.role == Role::Syncing && synced && !has_strangers {
            self.role = Role::Serving;
            self.look_at_successor();
            // Whatever is here, from earlier sessions too, is committed now.
            self.committed = self.last;
            if self.unstable.is_empty() {
                self.stable = self.last;
            }
        }
    }
}
