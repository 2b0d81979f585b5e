//! What a node does about the data of a partition: it settles, restores, drops or learns them, in attempts; and the pages
//! that a primary gives a learner.

use std::collections::BTreeMap;

use bytes::Bytes;
use cairn_api_spec::{Version, peer::FirstOutcome};
use cairn_replication::{Member, Replica};

use super::{
    disk::{Task, Work},
    machine::{Local, Machine},
    merge::Merging,
    network::{Fetch, Fetched, Message, Node, Page, Part, Process, name, node},
    restoring::Restoring,
    tables::{Held, Row},
    uploads::PATIENCE as BUCKET_PATIENCE,
};
use crate::planted::Bug;

/// Rows or keys of a page.
const PAGE: usize = 2;
/// When what failed begins again.
const BACKOFF: u64 = 200;
/// How long a learner waits for a page.
const PATIENCE: u64 = 1_000;
/// How often a learner says that it has everything.
const STAY: u64 = 500;
/// How long rows of a partition that went elsewhere are kept.
const DISCARD_AFTER: u64 = 3_000;

/// The work on one partition.
pub(crate) struct Doing {
    /// Its number: what belongs to an earlier one comes too late.
    pub(crate) attempt: u64,
    pub(crate) what: What,
}

#[derive(Clone)]
pub(crate) enum What {
    /// Waits until what was acknowledged is on the disk, then leads.
    Settle,
    /// Begins anew, with what the bucket has.
    Restore(Restoring),
    Disown,
    Drop,
    Learn(Learning),
    /// Takes over what other copies of a quorum have, then leads.
    Merge(Merging),
}

#[derive(Clone)]
pub(crate) struct Learning {
    primary: Node,
    generation: u64,
    copy: u64,
    last: Version,
    /// Rows that were here before, and that the primary has not shown.
    mine: BTreeMap<Bytes, Version>,
    asked: Option<(Part, u64)>,
    /// What to ask when what was received is stored.
    next: Part,
    stays: bool,
}

impl Learning {
    pub(crate) fn new(primary: Node, generation: u64) -> Self {
        Self {
            primary,
            generation,
            copy: 0,
            last: Version::NONE,
            mine: BTreeMap::new(),
            asked: None,
            next: Part::Rows(Bytes::new()),
            stays: false,
        }
    }
}

impl Machine {
    /// Begins an attempt, or goes on after a pause.
    pub(crate) fn go_on(&mut self, partition: u32, attempt: u64, now: u64) {
        if self.scan(partition, attempt, now) {
            return;
        }
        let Some(doing) = self.doing.get_mut(&partition).filter(|doing| doing.attempt == attempt) else { return };
        let work = match &mut doing.what {
            What::Settle => Work::Barrier,
            What::Restore(_) | What::Drop => Work::Drop,
            What::Disown => Work::Disown,
            What::Merge(_) => return self.begin_merge(partition, now),
            What::Learn(learning) if learning.stays => return self.ask_primary(partition, Part::Done, now),
            What::Learn(learning) => {
                *learning = Learning::new(learning.primary, learning.generation);
                Work::BeginCopy { mine: BTreeMap::new() }
            }
        };
        if !self.enqueue_task(partition, attempt, work) {
            self.try_again(partition);
        }
    }

    /// Gives an attempt up, for another one.
    pub(crate) fn try_again(&mut self, partition: u32) {
        self.attempts += 1;
        let attempt = self.attempts;
        let Some(doing) = self.doing.get_mut(&partition) else { return };
        doing.attempt = attempt;
        match &mut doing.what {
            What::Learn(learning) => (learning.stays, learning.asked) = (false, None),
            What::Merge(merging) => merging.asked = None,
            What::Restore(restoring) => restoring.asked = None,
            _ => {}
        }
        self.later(BACKOFF, Local::GoOn { partition, attempt });
    }

    /// A task of the disk has ended.
    pub(crate) fn task_done(&mut self, task: Task, is_done: bool, now: u64) {
        if self.segment_marked(&task, is_done, now)
            || self.checkpoint_stored(task.partition, task.attempt, is_done, now)
        {
            return;
        }
        let Task { partition, attempt, work } = task;
        if let Work::Snapshot { learner, fetch } = work {
            if is_done {
                self.send_rows(partition, &learner, &fetch, &Bytes::new());
            }
            return;
        }
        let Some(doing) = self.doing.get_mut(&partition).filter(|doing| doing.attempt == attempt) else { return };
        if !is_done {
            return self.try_again(partition);
        }
        match (&mut doing.what, work) {
            (What::Settle, Work::Barrier) => self.lead(partition, now),
            (What::Restore(_), Work::Drop) => self.begin_restore(partition, now),
            (What::Restore(_), Work::StoreRows { .. }) => self.publish_restored(partition, now),
            (What::Restore(_), Work::Adopt(_)) => self.end_restore(partition, now),
            (What::Merge(_), work) => self.merge_stored(partition, &work, now),
            (What::Disown, Work::Disown) => {
                doing.what = What::Drop;
                self.later(DISCARD_AFTER, Local::GoOn { partition, attempt });
            }
            (What::Drop, _) => drop(self.doing.remove(&partition)),
            (What::Learn(learning), Work::BeginCopy { mine }) => {
                learning.mine = mine;
                self.ask_primary(partition, Part::Rows(Bytes::new()), now);
            }
            (What::Learn(learning), Work::Adopt(_)) => {
                learning.stays = true;
                let last = learning.last;
                self.protocol(partition, now, |replica, _, _| replica.observe(last));
                self.ask_primary(partition, Part::Done, now);
            }
            (What::Learn(learning), Work::StoreRows { .. } | Work::StoreKeys(_)) => {
                let next = learning.next.clone();
                self.ask_or_adopt(partition, attempt, next, now);
            }
            _ => {}
        }
    }

    fn ask_or_adopt(&mut self, partition: u32, attempt: u64, next: Part, now: u64) {
        let Some(What::Learn(learning)) = self.doing.get(&partition).map(|doing| &doing.what) else { return };
        let held = Held { generation: learning.generation, last: learning.last };
        let is_over = match next {
            Part::Keys(after) => after >= learning.last || self.rules.bug == Some(Bug::KeysNotCopied),
            Part::Rows(_) | Part::Done => false,
        };
        if !is_over {
            self.ask_primary(partition, next, now);
        } else if !self.enqueue_task(partition, attempt, Work::Adopt(held)) {
            self.try_again(partition);
        }
    }

    fn ask_primary(&mut self, partition: u32, part: Part, now: u64) {
        let epoch = self.replica(partition).map_or(0, |replica| replica.entry().epoch);
        let primary = self.replica(partition).and_then(|replica| replica.entry().primary_process().cloned());
        let Some(Doing { attempt, what: What::Learn(learning) }) = self.doing.get_mut(&partition) else { return };
        learning.asked = Some((part.clone(), now));
        let fetch = Fetch { attempt: *attempt, copy: learning.copy, epoch, part, merges: false };
        // A node answers whichever of its processes is asked.
        let session = primary.map_or(0, |primary| primary.session);
        let to = Member { node: name(learning.primary).as_str().into(), session };
        self.tell(partition, to, Message::Fetch(fetch));
    }

    /// Begins again, or asks again, for what does not come.
    pub(crate) fn look_after_copies(&mut self, now: u64) {
        let partitions: Vec<u32> = self.doing.keys().copied().collect();
        for partition in partitions {
            let learning = match self.doing.get(&partition).map(|doing| &doing.what) {
                Some(What::Learn(learning)) => learning,
                Some(What::Restore(restoring)) => {
                    if restoring.asked.is_some_and(|at| at + BUCKET_PATIENCE <= now) {
                        self.try_again(partition);
                    }
                    continue;
                }
                Some(What::Merge(merging)) => {
                    if merging.asked.as_ref().is_some_and(|(_, at)| at + PATIENCE <= now) {
                        self.skip_other(partition, now);
                    }
                    continue;
                }
                _ => continue,
            };
            match &learning.asked {
                Some((Part::Done, at)) if at + STAY <= now => self.ask_primary(partition, Part::Done, now),
                Some((Part::Rows(_) | Part::Keys(_), at)) if at + PATIENCE <= now => self.try_again(partition),
                _ => {}
            }
        }
    }

    /// What the primary has answered.
    pub(crate) fn fetched(&mut self, partition: u32, from: &Process, fetched: Fetched, now: u64) {
        if matches!(self.doing.get(&partition), Some(Doing { what: What::Merge(_), .. })) {
            return self.merge_page(partition, from, fetched, now);
        }
        let Some(Doing { attempt, what: What::Learn(learning) }) = self.doing.get_mut(&partition) else { return };
        let attempt = *attempt;
        if fetched.attempt != attempt || node(&from.node) != learning.primary {
            return;
        }
        let Some((part, _)) = learning.asked.clone() else { return };
        let work = match (fetched.page, part) {
            (Page::BeginAgain, Part::Done) => return self.try_again(partition),
            (Page::Refused, Part::Rows(_) | Part::Keys(_)) => return self.try_again(partition),
            (Page::Rows { copy, rows, next, last }, Part::Rows(_)) => {
                learning.copy = copy;
                learning.last = learning.last.max(last);
                learning.store_rows(rows, next)
            }
            (Page::Keys { keys, last }, Part::Keys(after)) => {
                learning.last = learning.last.max(last);
                let end = keys.last().map(|first| Version(first.version));
                learning.next = Part::Keys(end.filter(|end| *end > after).unwrap_or(Version::MAX));
                keys.iter().for_each(|first| self.memory.note(partition, &first.key));
                Work::StoreKeys(keys)
            }
            _ => return,
        };
        learning.asked = None;
        if !self.enqueue_task(partition, attempt, work) {
            self.try_again(partition);
        }
    }

    /// As the primary: a part of a learner's copy.
    pub(crate) fn serve_fetch(&mut self, partition: u32, learner: &Process, me: Process, fetch: Fetch, now: u64) {
        if fetch.merges {
            return self.serve_merge(partition, learner, &fetch);
        }
        let reads = self.replica(partition).is_some_and(|replica| {
            replica.role().reads() && now < replica.lease_until() && replica.entry().epoch >= fetch.epoch
        });
        let copy = self.protocol(partition, now, |replica, now, out| {
            if !reads {
                return Err(Page::Refused);
            }
            if fetch.part == Part::Done && replica.must_begin_again(learner, fetch.copy) {
                return Err(Page::BeginAgain);
            }
            if fetch.copy == 0 {
                replica.activate(learner, fetch.epoch).map_err(|_| Page::Refused)?;
            }
            let copy = replica.activation(learner).filter(|copy| fetch.copy == 0 || fetch.copy == *copy);
            let copy = copy.ok_or(Page::Refused)?;
            if fetch.part == Part::Done {
                replica.caught_up(learner, now, out).map_err(|_| Page::Refused)?;
            }
            Ok(copy)
        });
        let attempt = fetch.attempt;
        let page = match (copy, &fetch.part) {
            (Err(page), _) => page,
            (Ok(_), Part::Done) => Page::Heard,
            (Ok(copy), Part::Rows(_)) if fetch.copy == 0 => {
                let fetch = Fetch { copy, ..fetch };
                if self.has(Bug::PageTooEarly) {
                    return self.send_rows(partition, learner, &fetch, &Bytes::new());
                }
                // What was given a version before now is on the disk after this.
                let work = Work::Snapshot { learner: learner.clone(), fetch };
                if self.enqueue_task(partition, 0, work) {
                    return;
                }
                Page::Refused
            }
            (Ok(_), Part::Rows(above)) => {
                let above = above.clone();
                return self.send_rows(partition, learner, &fetch, &above);
            }
            (Ok(_), Part::Keys(after)) => {
                let last = self.replica(partition).map_or(Version::NONE, Replica::last);
                Page::Keys { keys: self.page_of_keys(partition, *after), last }
            }
        };
        self.answer(partition, me, learner.clone(), Message::Fetched(Fetched { attempt, page }));
    }

    pub(crate) fn page_of_keys(&self, partition: u32, after: Version) -> Vec<FirstOutcome> {
        let keys = self.disk.tables.keys.range((partition, Version(after.0 + 1))..=(partition, Version::MAX));
        keys.take(PAGE).map(|(_, first)| first.clone()).collect()
    }

    pub(crate) fn send_rows(&mut self, partition: u32, learner: &Process, fetch: &Fetch, above: &Bytes) {
        let of_partition = self.disk.tables.rows.iter().filter(|(_, row)| row.partition == partition);
        let mut rest = of_partition.filter(|(name, _)| *name > above);
        let rows: Vec<Row> = rest.by_ref().take(PAGE).map(|(_, row)| for_copy(row)).collect();
        let next = rest.next().and(rows.last()).map(|row| Bytes::copy_from_slice(row.change.name()));
        let last = self.replica(partition).map_or(Version::NONE, Replica::last);
        let page = Page::Rows { copy: fetch.copy, rows, next, last };
        let fetched = Fetched { attempt: fetch.attempt, page };
        self.answer(partition, self.me.clone(), learner.clone(), Message::Fetched(fetched));
    }
}

/// A row as it is sent to another copy, which uploads a deletion once more.
fn for_copy(row: &Row) -> Row {
    Row { uploaded: row.uploaded && row.place.is_some(), ..row.clone() }
}

impl Learning {
    /// Of a page: rows that are here in another version go, and come as the primary has them.
    fn store_rows(&mut self, rows: Vec<Row>, next: Option<Bytes>) -> Work {
        let (mut outdated, mut wanted) = (Vec::new(), Vec::new());
        for row in rows {
            let name = Bytes::copy_from_slice(row.change.name());
            match self.mine.remove(&name) {
                Some(version) if version == row.change.version() => continue,
                Some(version) => outdated.push((name, version)),
                None => {}
            }
            wanted.push(row);
        }
        if next.is_none() {
            outdated.extend(std::mem::take(&mut self.mine));
        }
        self.next = next.map_or(Part::Keys(Version::NONE), Part::Rows);
        Work::StoreRows { outdated, rows: wanted }
    }
}
