//! What a node does with messages, and with the answers of its disk.

use cairn_replication::{Collected, Effect, Refusal, Write};

use crate::{
    host::{Host, Job, store},
    message::{Envelope, Message, Node, Out, Process, Row},
    planted::Bug,
};

impl Host {
    /// The disk has taken what is first in its queue.
    pub(crate) fn flush(&mut self, now: u64, out: &mut Out) {
        let mut effects = Vec::new();
        match self.queue.pop_front() {
            None => {}
            Some(Job::Own(write)) => {
                store(&mut self.disk, &write);
                self.refused.retain(|refused| refused.version != write.version);
                self.replica.persisted(write.version, &mut effects);
                // Nobody waits for a write that was abandoned, but who looks at the disk finds it.
                let is_settled = write.version <= self.replica.committed();
                self.visible.iter_mut().filter(|_| is_settled).for_each(|visible| store(visible, &write));
            }
            Some(Job::Replicated { write, primary, acknowledged }) => {
                store(&mut self.disk, &write);
                if !acknowledged {
                    self.send(primary, Message::Appended { version: write.version }, out);
                }
            }
            Some(Job::Page { attempt, activation, rows, is_last }) => {
                rows.iter().for_each(|write| store(&mut self.disk, write));
                let above = rows.last().map(|write| write.data.key).filter(|_| !is_last);
                self.stored_page(attempt, activation, above, now, out);
            }
            Some(Job::Snapshot { learner, attempt, activation }) => {
                self.send_page(&learner, attempt, activation, None, out);
            }
        }
        self.absorb(effects, now, out);
    }

    /// The disk refuses what is first in its queue.
    pub(crate) fn fail(&mut self, now: u64, out: &mut Out) {
        let mut effects = Vec::new();
        match self.queue.pop_front() {
            Some(Job::Own(write)) => {
                let version = write.version;
                let is_as_if_never_made = self.own_failed(write, &mut effects);
                let index = self.waiting.iter().position(|waiting| *waiting == version);
                if let Some(index) = index.filter(|_| is_as_if_never_made) {
                    out.undone.push(self.waiting.remove(index));
                }
            }
            Some(Job::Replicated { acknowledged: true, .. }) if self.has(Bug::LossNotTold) => {}
            Some(Job::Replicated { write, acknowledged: true, .. }) => self.replica.lost(write.version, &mut effects),
            Some(Job::Replicated { primary, .. }) => self.send(primary, Message::Refused { failed: true }, out),
            Some(Job::Page { attempt, activation, .. }) => self.copy_refused(attempt, activation, true, now),
            Some(Job::Snapshot { learner, attempt, activation }) => {
                self.refuse_copy(&learner, attempt, activation, out);
            }
            None => {}
        }
        self.absorb(effects, now, out);
    }

    /// The disk has refused an own write. Returns whether it is as if it had never been.
    pub(crate) fn own_failed(&mut self, write: Write<Row>, effects: &mut Vec<Effect<Node, Row>>) -> bool {
        let is_as_if_never_made = self.replica.persist_failed(write.version, effects);
        if self.has(Bug::RefusedWriteForgotten) {
            self.visible.iter_mut().for_each(|visible| visible.retain(|_, shown| shown.version != write.version));
        } else if write.data.ahead && !is_as_if_never_made {
            self.refused.push(write);
        }
        is_as_if_never_made
    }

    pub(crate) fn deliver(&mut self, envelope: &Envelope, now: u64, out: &mut Out) {
        if envelope.message.needs_process() && envelope.to != self.me {
            return;
        }
        let mut effects = Vec::new();
        let from = &envelope.from;
        match &envelope.message {
            Message::Append { header, write } => match self.replica.append(header, write.clone(), now, &mut effects) {
                Ok(true) => self.take_write(from, write, out),
                Ok(false) => self.send(from.clone(), Message::Appended { version: write.version }, out),
                Err(_) if self.has(Bug::RefusedWritesStored) => self.take_write(from, write, out),
                Err(refusal) => self.refuse(from, refusal, out),
            },
            Message::Appended { version } => self.replica.acknowledge(from, *version, &mut effects),
            Message::Refused { failed } => self.replica.refused(from, *failed, now, &mut effects),
            Message::Renew { header, sent_at } => match self.replica.renew(header, now, &mut effects) {
                Ok(()) => self.send(from.clone(), Message::Renewed { sent_at: *sent_at }, out),
                Err(Refusal::Failed) => self.refuse(from, Refusal::Failed, out),
                Err(_) => {}
            },
            Message::Renewed { sent_at } => self.replica.granted(from, *sent_at),
            Message::Collect { header, sent_at } => {
                let answer = match self.replica.collect(header, now, &mut effects) {
                    Ok(collected) => Message::collected(header.epoch, *sent_at, collected),
                    Err(Refusal::NotHolder | Refusal::Failed) => Message::NoHolder,
                    Err(Refusal::Stale(_)) => return self.absorb(effects, now, out),
                };
                out.sent.push(Envelope { from: envelope.to.clone(), to: from.clone(), message: answer });
            }
            Message::NoHolder => self.replica.no_holder(from, now, &mut effects),
            Message::Collected { epoch, sent_at, writes, stable, last } => {
                let collected = Collected { writes: writes.clone(), stable: *stable, last: *last };
                self.replica.collected(from, *epoch, *sent_at, collected, now, &mut effects);
            }
            Message::Begin { attempt, epoch } => self.serve_copy(from, *attempt, *epoch, out),
            Message::Fetch { attempt, activation, above } => {
                self.serve_page(from, *attempt, *activation, *above, out);
            }
            Message::Page { attempt, activation, rows, is_last } => {
                if self.is_of_copy(*attempt, *activation) {
                    let (rows, is_last) = (rows.clone(), *is_last);
                    self.queue.push_back(Job::Page { attempt: *attempt, activation: *activation, rows, is_last });
                }
            }
            Message::FetchRefused { attempt, activation, begin_again } => {
                self.copy_refused(*attempt, *activation, *begin_again, now);
            }
            Message::Copied { attempt, activation } => {
                let is_present = self.is_present(from, *activation);
                if !is_present || self.replica.caught_up(from, now, &mut effects).is_err() {
                    self.refuse_copy(from, *attempt, *activation, out);
                }
            }
        }
        self.absorb(effects, now, out);
    }

    fn refuse(&self, primary: &Process, refusal: Refusal, out: &mut Out) {
        self.send(primary.clone(), Message::Refused { failed: refusal == Refusal::Failed }, out);
    }

    fn take_write(&mut self, from: &Process, write: &Write<Row>, out: &mut Out) {
        if self.is_refusing {
            return self.send(from.clone(), Message::Refused { failed: true }, out);
        }
        let acknowledged = write.data.ahead || self.has(Bug::AcknowledgedBeforeTheDisk);
        if acknowledged {
            self.send(from.clone(), Message::Appended { version: write.version }, out);
        }
        self.queue.push_back(Job::Replicated { write: write.clone(), primary: from.clone(), acknowledged });
    }
}
