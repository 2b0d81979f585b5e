//! How nodes remove segments that nobody needs any more, as the real driver does with the same rules.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use cairn_api_spec::Version;
use cairn_engine::Change;
use cairn_object_tier::{Place, SegmentName, rules::collect::grace_is_over};

use super::{
    bucket::{Ask, Segment},
    machine::Machine,
    network::{Message, Process},
    world::World,
};
use crate::planted::Bug;

/// How often a tick begins a round, of a thousand.
const ROUNDS: u64 = 60;
/// How long what is useless stays.
const GRACE: Duration = Duration::from_millis(500);

/// What a process knows of segments.
#[derive(Default)]
pub(crate) struct Collecting {
    /// Its number for the listing that it waits for.
    pub(crate) number: u64,
    /// Segments of this round, with the partitions that have not released them.
    open: BTreeMap<Arc<SegmentName>, BTreeSet<u32>>,
    /// What is useless, and since when.
    useless: BTreeMap<Arc<SegmentName>, u64>,
}

/// A segment, as its primary is asked about one of its partitions.
#[derive(Clone)]
pub(crate) struct Release {
    pub(crate) segment: Arc<SegmentName>,
    pub(crate) epoch: u64,
    pub(crate) newest: Version,
}

impl Machine {
    /// Ends a round, and begins the next one.
    pub(crate) fn look_after_segments(&mut self, now: u64) {
        if !self.random.chance(ROUNDS) {
            return;
        }
        let open = std::mem::take(&mut self.collecting.open);
        let released: BTreeSet<_> = open.into_iter().filter(|(_, of)| of.is_empty()).map(|(name, _)| name).collect();
        let useless = &mut self.collecting.useless;
        useless.retain(|name, _| released.contains(name));
        for name in released {
            useless.entry(name).or_insert(now);
        }
        let is_over = |since: &u64| grace_is_over(Duration::from_millis(now - since), GRACE);
        let over: Vec<_> = useless.iter().filter(|(_, since)| is_over(since)).map(|(name, _)| name.clone()).collect();
        for name in over {
            self.collecting.useless.remove(&name);
            self.ask_bucket(Ask::RemoveSegment(name));
        }
        self.collecting.number = self.ask_bucket(Ask::Segments);
    }

    /// Asks the primaries of all partitions in the segments that are this node's to collect.
    pub(crate) fn begin_round(&mut self, segments: Vec<Arc<Segment>>, now: u64) {
        for segment in segments {
            let first = segment.rows.first().map(|row| row.partition);
            let leads_first = first.is_some_and(|partition| self.lead_of(partition, now).is_some());
            if segment.name.0.node != self.me.node && !leads_first {
                continue;
            }
            let mut left = BTreeSet::new();
            for partition in 0..self.rules.partitions {
                let Some((epoch, newest)) = segment.section(partition) else { continue };
                let release = Release { segment: segment.name.clone(), epoch, newest };
                if self.releases(partition, &release, now) {
                    continue;
                }
                left.insert(partition);
                let primary = self.replica(partition).and_then(|replica| replica.entry().primary_process().cloned());
                if let Some(primary) = primary.filter(|primary| *primary != self.me) {
                    self.tell(partition, primary, Message::Release(release));
                }
            }
            self.collecting.open.insert(segment.name.clone(), left);
        }
    }

    /// Whether this node, as a partition's primary, releases a segment.
    fn releases(&self, partition: u32, Release { segment, epoch, newest }: &Release, now: u64) -> bool {
        let lead = self.lead_of(partition, now);
        let basis = self.uploads.known.get(&partition).and_then(|known| known.basis.as_ref());
        let ignores = self.has(Bug::WatermarkIgnored);
        basis.is_some_and(|basis| {
            basis.releases_segment(segment, *epoch, *newest, lead) || (ignores && !basis.segments.contains(segment))
        })
    }

    /// Another node asks whether a segment may go.
    pub(crate) fn answer_release(&mut self, partition: u32, from: Process, me: Process, release: Release, now: u64) {
        if self.releases(partition, &release, now) {
            self.answer(partition, me, from, Message::Released(release.segment));
        }
    }

    pub(crate) fn released(&mut self, partition: u32, segment: &Arc<SegmentName>) {
        if let Some(left) = self.collecting.open.get_mut(segment) {
            left.remove(&partition);
        }
    }
}

impl World {
    /// A segment is about to go: neither the newest checkpoint of a partition may refer to it, nor a row of a primary that
    /// has taken over the places of that checkpoint.
    pub(crate) fn check_removal(&mut self, name: &SegmentName) {
        let is_there =
            |place: &Option<Place>| matches!(place, Some(Place::Packed { segment, .. }) if **segment == *name);
        for partition in 0..self.config.partitions {
            let newest = self.bucket.newest(partition);
            let listed = newest.into_iter().flat_map(|newest| &newest.rows).find(|record| is_there(&record.place));
            let primary = self.master.primary(partition).and_then(|id| self.machines.get(&id));
            let trusted = primary.filter(|machine| {
                let known = machine.uploads.known.get(&partition);
                let lead = machine.lead_of(partition, self.now);
                machine.is_up && lead.is_some_and(|lead| known.is_some_and(|known| known.reconciled == lead.epoch))
            });
            let mut rows = trusted.into_iter().flat_map(|machine| machine.disk.tables.rows.values());
            let row = rows.find(|row| {
                row.partition == partition
                    && matches!(row.change, Change::Put(_))
                    && row.uploaded
                    && is_there(&row.place)
            });
            if (listed.is_some() || row.is_some()) && self.bucket.segments.contains_key(name) && self.wrong.is_none() {
                self.wrong = Some(format!("{} ms: {name} goes, where {listed:?} or {row:?} is", self.now));
            }
        }
    }
}
