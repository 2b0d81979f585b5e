//! How a new primary of a quorum takes over what other copies have, when processes that do not know any more which of
//! their writes may not be everywhere go on together.

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_replication::{Replica, Role};

use super::{
    copy::{Doing, What},
    disk::Work,
    machine::Machine,
    network::{Fetch, Fetched, Message, Page, Part, Process},
    tables::Held,
};

#[derive(Clone)]
pub(crate) struct Merging {
    generation: u64,
    /// The copies to take over from.
    others: Vec<Process>,
    /// Which of them is asked now.
    index: usize,
    /// How many of them did not answer.
    missing: usize,
    last: Version,
    pub(crate) asked: Option<(Part, u64)>,
    /// What to ask when what was received is stored.
    next: Part,
}

impl Merging {
    pub(crate) fn new(generation: u64, others: Vec<Process>) -> Self {
        let next = Part::Rows(Bytes::new());
        Self { generation, others, index: 0, missing: 0, last: Version::NONE, asked: None, next }
    }
}

impl Machine {
    pub(crate) fn begin_merge(&mut self, partition: u32, now: u64) {
        if let Some(Doing { what: What::Merge(merging), .. }) = self.doing.get_mut(&partition) {
            *merging = Merging::new(merging.generation, std::mem::take(&mut merging.others));
            self.ask_other(partition, now);
        }
    }

    /// Goes on without a copy that does not answer.
    pub(crate) fn skip_other(&mut self, partition: u32, now: u64) {
        if let Some(Doing { what: What::Merge(merging), .. }) = self.doing.get_mut(&partition) {
            (merging.index, merging.missing) = (merging.index + 1, merging.missing + 1);
            merging.next = Part::Rows(Bytes::new());
            self.ask_other(partition, now);
        }
    }

    /// Asks the next copy for the next part, or counts what is here as the whole, if every write that may have been
    /// answered is on one of the copies that have answered.
    fn ask_other(&mut self, partition: u32, now: u64) {
        let Some(entry) = self.replica(partition).map(Replica::entry) else { return };
        let (epoch, copies) = (entry.epoch, entry.in_sync.len());
        let quorum = self.rules.settings.write_quorum.map_or(1, |quorum| quorum.min(copies));
        let Some(Doing { attempt, what: What::Merge(merging) }) = self.doing.get_mut(&partition) else { return };
        let attempt = *attempt;
        let Some(other) = merging.others.get(merging.index).cloned() else {
            let held = Held { generation: merging.generation, last: merging.last };
            if merging.missing >= quorum || !self.enqueue_task(partition, attempt, Work::Adopt(held)) {
                self.try_again(partition);
            }
            return;
        };
        let part = merging.next.clone();
        merging.asked = Some((part.clone(), now));
        self.tell(partition, other, Message::Fetch(Fetch { attempt, copy: 0, epoch, part, merges: true }));
    }

    /// What another copy has answered.
    pub(crate) fn merge_page(
        &mut self,
        partition: u32,
        from: &Process,
        Fetched { attempt: number, page }: Fetched,
        now: u64,
    ) {
        let Some(Doing { attempt, what: What::Merge(merging) }) = self.doing.get_mut(&partition) else { return };
        let attempt = *attempt;
        let is_asked = merging.others.get(merging.index).is_some_and(|other| other.node == from.node);
        if number != attempt || !is_asked {
            return;
        }
        let Some((part, _)) = merging.asked.take() else { return };
        let work = match (page, part) {
            (Page::Rows { rows, next, .. }, Part::Rows(_)) => {
                merging.last = rows.iter().map(|row| row.change.version()).fold(merging.last, Version::max);
                merging.next = next.map_or(Part::Keys(Version::NONE), Part::Rows);
                Work::StoreRows { outdated: Vec::new(), rows }
            }
            (Page::Keys { keys, .. }, Part::Keys(_)) => {
                merging.next = keys.last().map_or(Part::Done, |first| Part::Keys(Version(first.version)));
                merging.last = keys.iter().map(|first| Version(first.version)).fold(merging.last, Version::max);
                keys.iter().for_each(|first| self.memory.note(partition, &first.key));
                Work::StoreKeys(keys)
            }
            _ => return self.skip_other(partition, now),
        };
        if !self.enqueue_task(partition, attempt, work) {
            self.try_again(partition);
        }
    }

    /// A part of the merge is stored, or all of it is flushed: then the node leads, and the others learn it anew.
    pub(crate) fn merge_stored(&mut self, partition: u32, work: &Work, now: u64) {
        let Some(Doing { what: What::Merge(merging), .. }) = self.doing.get_mut(&partition) else { return };
        if !matches!(work, Work::Adopt(_)) {
            if merging.next == Part::Done {
                (merging.index, merging.next) = (merging.index + 1, Part::Rows(Bytes::new()));
            }
            return self.ask_other(partition, now);
        }
        let (last, others) = (merging.last, std::mem::take(&mut merging.others));
        self.protocol(partition, now, |replica, _, _| replica.observe(last));
        self.lead(partition, now);
        for other in others {
            self.protocol(partition, now, |replica, now, out| replica.refused(&other, true, now, out));
        }
    }

    /// As a replica: a part of its copy, for a new primary.
    pub(crate) fn serve_merge(&mut self, partition: u32, primary: &Process, fetch: &Fetch) {
        let follows = self.replica(partition).is_some_and(|replica| {
            let entry = replica.entry();
            let is_primary = entry.primary_process() == Some(primary);
            entry.epoch >= fetch.epoch && replica.role() == Role::Replica && is_primary
        });
        let page = match &fetch.part {
            Part::Rows(above) if follows => {
                let above = above.clone();
                return self.send_rows(partition, primary, fetch, &above);
            }
            Part::Keys(after) if follows => {
                Page::Keys { keys: self.page_of_keys(partition, *after), last: Version::NONE }
            }
            _ => Page::Refused,
        };
        let fetched = Fetched { attempt: fetch.attempt, page };
        self.answer(partition, self.me.clone(), primary.clone(), Message::Fetched(fetched));
    }
}
