//! What a node does about what its disk has written.

use cairn_api_spec::operation::Durability;
use cairn_engine::{Idempotency, Payload, Replicated, TierError};

use super::{
    disk::{Done, Job, Task, Work, Write},
    machine::{Local, Machine},
    network::Message,
};
use crate::planted::Bug;

impl Machine {
    pub(crate) fn persist(&mut self, partition: u32, write: &Replicated) -> Result<(), TierError> {
        let Payload { change, durability, idempotency, .. } = write.data.clone();
        let (awaited, flush) = (durability != Durability::Memory, durability >= Durability::Fsync);
        self.enqueue(Job::Write(Write { partition, change, awaited, flush, idempotency, asked: None }))
    }

    /// Puts something into the disk's queue.
    pub(crate) fn enqueue(&mut self, job: Job) -> Result<(), TierError> {
        if let Job::Write(Write { partition, idempotency: Some(Idempotency { key, .. }), .. }) = &job {
            self.memory.note(*partition, key.as_str());
        }
        if self.disk.push(job)? {
            let delay = self.random.between(0, self.disk.delay);
            self.later(delay, Local::Disk);
        }
        Ok(())
    }

    /// The same for what is no write.
    pub(crate) fn enqueue_task(&mut self, partition: u32, attempt: u64, work: Work) -> bool {
        self.enqueue(Job::Task(Task { partition, attempt, work })).is_ok()
    }

    pub(crate) fn work_disk(&mut self, now: u64) {
        if now < self.disk.hangs_until {
            return self.later(self.disk.hangs_until - now, Local::Disk);
        }
        let done = self.disk.work(now, &mut self.random);
        let delay = self.random.between(0, 2);
        self.later(delay, Local::Settled(done));
    }

    /// Says what the disk has done, before it does more.
    pub(crate) fn settled(&mut self, done: Done, now: u64) {
        match done {
            Done::Writes(writes, result, given_up) => {
                writes.into_iter().for_each(|write| self.stored(write, &result, now));
                given_up.into_iter().for_each(|task| self.task_done(task, false, now));
            }
            Done::Task(task, is_done) => self.task_done(task, is_done, now),
            Done::Nothing => {}
        }
        if self.disk.is_refusing {
            let delay = self.random.between(0, 200);
            self.later(delay, Local::Reopened);
        } else {
            self.go_on_writing();
        }
    }

    pub(crate) fn go_on_writing(&mut self) {
        self.disk.is_busy = !self.disk.queue.is_empty();
        if self.disk.is_busy {
            let delay = self.random.between(0, self.disk.delay);
            self.later(delay, Local::Disk);
        }
    }

    fn stored(&mut self, write: Write, result: &Result<(), TierError>, now: u64) {
        let Write { partition, change, awaited, idempotency, asked, .. } = write;
        let (tells, early) = (!self.has(Bug::FailureNotTold), self.has(Bug::StoredWhenQueued) && asked.is_none());
        self.drive(partition, now, |engine, step| match result {
            Ok(()) if early => {}
            Ok(()) => engine.persisted(&change, idempotency.as_ref(), step),
            Err(error) if tells => engine.persist_failed(&change, idempotency.as_ref(), !awaited, error, step),
            Err(_) => {}
        });
        if let Some((primary, addressed)) = asked.filter(|_| awaited) {
            let message = match result {
                Ok(()) => Message::Appended { version: change.version() },
                Err(_) => Message::AppendRefused { failed: true },
            };
            self.answer(partition, addressed, primary, message);
        }
    }
}
