//! What a primary does as time passes: it renews leases, sends again, and gives up peers that owe answers.

use std::{fmt::Debug, hash::Hash};

use crate::{
    entry::Change,
    interface::{Effect, Role},
    replica::{Peer, Replica, Resent, Unstable},
};

impl<N: Clone + Eq + Debug + Hash, D: Clone> Replica<N, D> {
    /// Time has passed: renews leases, sends and stores again, gives up late peers. To be called a few times in
    /// [`Settings::retry`](crate::Settings::retry).
    pub fn tick(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        if !self.role.leads() {
            return;
        }
        self.end_takeover(now, out);
        self.ask_for_confirmation(now, out);
        for index in 0..self.peers.len() {
            let peer = &self.peers[index];
            if peer.renew_at <= now {
                out.push(Effect::Renew { to: peer.member.clone(), header: self.header(&peer.member), sent_at: now });
                self.peers[index].renew_at = now + self.settings.renew;
            }
        }
        for index in 0..self.peers.len() {
            self.resend(index, now, out);
        }
        self.look_after_disk(now, out);
        self.look_after_peers(now, out);
    }

    /// Sends a peer again what it has not answered: the oldest writes, no more at a time than the window, and the next
    /// ones as soon as all of those are answered. The window is halved with each time that none of them is.
    fn resend(&mut self, index: usize, now: u64, out: &mut Vec<Effect<N, D>>) {
        let peer = &self.peers[index];
        let (to, slot, Resent { count, up_to, in_vain }) = (peer.member.clone(), peer.slot, peer.resent);
        let owes = |unstable: &&Unstable<D>| unstable.acks & 1 << slot == 0;
        let resent = self.unstable.iter().take_while(|unstable| unstable.write.version <= up_to);
        let unanswered = if count == 0 { 0 } else { resent.filter(owes).count() };
        let all_answered = count > 0 && unanswered == 0;
        if peer.resend_at > now && !all_answered {
            return;
        }
        let header = self.header(&to);
        if self.role == Role::Collecting {
            if peer.collecting_since.is_some() {
                out.push(Effect::Collect { to, header, sent_at: now });
            }
        } else {
            let in_vain = if count > 0 && unanswered == count { in_vain.saturating_add(1) } else { 0 };
            let window = self.settings.window.checked_shr(in_vain).unwrap_or(0).max(1);
            // What was proposed just now is on its way.
            let is_due = |unstable: &&Unstable<D>| unstable.since + self.settings.retry <= now;
            let due = self.unstable.iter().filter(owes).take_while(is_due).take(window);
            let mut resent = Resent { in_vain, ..Resent::default() };
            for unstable in due {
                (resent.count, resent.up_to) = (resent.count + 1, unstable.write.version);
                out.push(Effect::Append { to: to.clone(), header: header.clone(), write: unstable.write.clone() });
            }
            self.peers[index].resent = resent;
        }
        self.peers[index].resend_at = now + self.settings.retry;
    }

    /// Asks the store for the change that is due, if any.
    pub(crate) fn look_after_peers(&mut self, now: u64, out: &mut Vec<Effect<N, D>>) {
        if now < self.ask_at {
            return;
        }
        let Some(change) = self.due_change(now) else { return };
        self.ask_at = now + self.settings.retry;
        if let Change::CaughtUp(node) = &change {
            // From when it is in sync it may be made the primary, and this replica may be the last to hear of it.
            self.peers.iter_mut().filter(|peer| peer.member.node == *node).for_each(|peer| peer.joins = true);
        }
        out.push(Effect::Ask { epoch: self.entry.epoch, change });
    }

    fn due_change(&self, now: u64) -> Option<Change<N>> {
        let node = |peer: &Peer<N>| peer.member.node.clone();
        if self.role == Role::Collecting && self.lost.is_some() {
            let has_answered = |peer: &&Peer<N>| peer.in_sync && !peer.failed && peer.collecting_since.is_none();
            if let Some(peer) = self.peers.iter().find(has_answered) {
                return Some(Change::StepDown(node(peer)));
            }
        }
        if let Some(late) = self.late_and_not_needed(now) {
            return Some(Change::Remove(node(late)));
        }
        if self.role == Role::Failing {
            // A learner has what could not be stored here, and cannot take the place.
            let learner = || self.peers.first().filter(|_| self.in_sync() == 0);
            let heir = self.able_to_lead(now).filter(|_| self.can_leave());
            let step_down = heir.map(|peer| Change::StepDown(node(peer)));
            return step_down.or_else(|| learner().map(|peer| Change::Remove(node(peer))));
        }
        // What it copied before every replica had it, nobody could collect from it later.
        let copied = |peer: &&Peer<N>| peer.copied.is_some_and(|copied| self.is_on_replicas(copied));
        if let Some(learner) = self.peers.iter().filter(|peer| !peer.in_sync).find(copied) {
            return Some(Change::CaughtUp(node(learner)));
        }
        let is_drained = self.role == Role::HandingOver && self.unstable.is_empty();
        self.entry.successor.clone().filter(|_| is_drained).map(Change::HandOver)
    }

    /// An in-sync peer that was there a moment ago.
    pub(crate) fn able_to_lead(&self, now: u64) -> Option<&Peer<N>> {
        self.peers.iter().find(|peer| peer.in_sync && !peer.failed && now < peer.lease_until)
    }

    fn is_late(&self, peer: &Peer<N>, now: u64) -> bool {
        let Self { settings, .. } = self;
        let waits_for = |since: u64, time: u64| since + time <= now;
        match self.role {
            Role::Collecting => {
                // Whoever has lost writes needs somebody who has them.
                let late = if self.lost.is_some() { settings.patience } else { settings.late };
                let is_silent = peer.collecting_since.is_some_and(|since| waits_for(since, late));
                // What was found in a quorum may be here and on one that fails next.
                let may_leave = settings.write_quorum.is_none() || self.lost.is_some();
                may_leave && self.has_collected_enough() && (peer.failed || is_silent)
            }
            Role::Syncing if peer.in_sync && peer.collecting_since.is_some() => true,
            _ => {
                let granted_at = peer.lease_until.saturating_sub(settings.lease).max(peer.in_sync_since);
                let needs_lease = peer.in_sync && (self.role.reads() || self.role == Role::Failing);
                let is_unleased = needs_lease && waits_for(granted_at + settings.renew, settings.late);
                let owes_too_long = |unstable: &Unstable<D>| waits_for(unstable.since, settings.late);
                let is_awaited = !self.is_spare(peer);
                peer.failed || is_unleased || (is_awaited && self.oldest_owed(peer).is_some_and(owes_too_long))
            }
        }
    }

    /// Whether no write waits for this peer: others are a quorum.
    fn is_spare(&self, peer: &Peer<N>) -> bool {
        self.settings.write_quorum.is_some() && peer.in_sync && self.role.reads()
    }

    fn oldest_owed(&self, peer: &Peer<N>) -> Option<&Unstable<D>> {
        self.unstable.iter().find(|unstable| unstable.acks & 1 << peer.slot == 0)
    }

    /// A peer that gives leases, and owes writes for too long or too many.
    fn is_hung(&self, peer: &Peer<N>, now: u64) -> bool {
        let Self { settings, unstable, .. } = self;
        let Some(oldest) = self.oldest_owed(peer).filter(|_| self.is_spare(peer)) else { return false };
        let holds_back = unstable.len() * 2 >= settings.most_unstable
            && unstable.front().is_some_and(|first| first.write.version == oldest.write.version);
        oldest.since + if holds_back { settings.late } else { settings.patience } <= now
    }

    /// A peer that is late or hung, and without which every write that may have been answered is on enough copies: on a
    /// quorum of those who stay, or else of those who would stay if all such peers left.
    fn late_and_not_needed(&self, now: u64) -> Option<&Peer<N>> {
        let given_up = self.mask(|peer| self.is_late(peer, now) || self.is_hung(peer, now));
        let mut among = self.peers.iter().filter(|peer| given_up & 1 << peer.slot != 0);
        let first = among.clone().next()?;
        // What was answered is on every copy, or one that has lost it looks for anybody who answers.
        let counts_all = self.settings.write_quorum.is_none() || self.role == Role::Collecting;
        let is_free = |peer: &&Peer<N>| counts_all || !peer.in_sync;
        let alone = among.find(|peer| is_free(peer) || self.can_spare(1 << peer.slot));
        alone.or_else(|| Some(first).filter(|_| self.can_spare(given_up)))
    }

    /// Whether every write that may have been answered is on a quorum of the peers, which go on without this copy.
    fn can_leave(&self) -> bool {
        let (stay, end) = (self.in_sync(), self.may_be_answered());
        let copies = |peers: u32| peers.count_ones() as usize;
        let quorum = self.settings.write_quorum.map_or(copies(stay), |quorum| quorum.min(copies(stay)));
        let mut answered = self.unstable.iter().take_while(|unstable| unstable.write.version <= end);
        answered.all(|unstable| copies(unstable.acks & stay) >= quorum)
    }

    /// Whether every write that may have been answered is on a quorum of the copies but these.
    fn can_spare(&self, peers: u32) -> bool {
        let stay = self.in_sync() & !peers;
        let copies = |peers: u32| peers.count_ones() as usize + 1;
        let quorum = self.settings.write_quorum.map_or(copies(stay), |quorum| quorum.min(copies(stay)));
        let end = self.may_be_answered();
        let mut answered = self.unstable.iter().take_while(|unstable| unstable.write.version <= end);
        answered.all(|unstable| copies(unstable.acks & stay) >= quorum)
    }
}
