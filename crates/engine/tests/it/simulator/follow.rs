//! What a node does with the messages of its peers.

use cairn_api_spec::operation::Durability;
use cairn_engine::{Payload, Replicated};
use cairn_replication::Refusal;

use super::{
    disk::{Job, Write},
    machine::Machine,
    network::{Body, Envelope, Message, Process, node},
};
use crate::planted::Bug;

impl Machine {
    /// Answers as the process that was asked, whichever runs by now.
    pub(crate) fn answer(&mut self, partition: u32, me: Process, to: Process, message: Message) {
        let to_node = node(&to.node);
        self.send(to_node, Body::Peer(partition, Envelope { from: me, to, message }));
    }

    pub(crate) fn deliver(&mut self, partition: u32, envelope: Envelope, now: u64) {
        let Envelope { from, to, message } = envelope;
        if message.is_answer() && to != self.me {
            return;
        }
        match message {
            Message::Append { .. } if self.leaving => {
                self.answer(partition, to, from, Message::AppendRefused { failed: true });
            }
            Message::Append { header, write } => {
                let accepted =
                    self.protocol(partition, now, |replica, now, out| replica.append(&header, write.clone(), now, out));
                let version = write.version;
                let answer = match accepted {
                    Ok(true) => self.store(partition, write, &from, &to),
                    Ok(false) => Some(Message::Appended { version }),
                    Err(refusal) => Some(Message::AppendRefused { failed: refusal == Refusal::Failed }),
                };
                answer.into_iter().for_each(|answer| self.answer(partition, to.clone(), from.clone(), answer));
            }
            Message::Renew { .. } if self.leaving => self.answer(partition, to, from, Message::Leaving),
            Message::Renew { header, sent_at } => {
                if self.protocol(partition, now, |replica, now, out| replica.renew(&header, now, out)).is_ok() {
                    self.answer(partition, to, from, Message::Granted { sent_at });
                }
            }
            Message::Collect { header, sent_at } => {
                let collected = self.protocol(partition, now, |replica, now, out| replica.collect(&header, now, out));
                let answer = match collected {
                    Ok(collected) => Message::Collected { epoch: header.epoch, sent_at, collected },
                    Err(Refusal::NotHolder | Refusal::Failed) => Message::NoHolder,
                    Err(Refusal::Stale(_)) => return,
                };
                self.answer(partition, to, from, answer);
            }
            Message::Uploaded { epoch, marks } => self.hear_of_upload(partition, &from, &to, epoch, marks),
            Message::Release(release) => self.answer_release(partition, from, to, release, now),
            Message::Released(segment) => self.released(partition, &segment),
            Message::Fetch(fetch) => {
                let me = self.me.clone();
                self.serve_fetch(partition, &from, me, fetch, now);
            }
            Message::Fetched(fetched) => self.fetched(partition, &from, fetched, now),
            answer => self.take_answer(partition, &from, answer, now),
        }
    }

    /// What the protocol asked a peer, or told it, is answered.
    fn take_answer(&mut self, partition: u32, from: &Process, answer: Message, now: u64) {
        self.protocol(partition, now, |replica, now, out| match answer {
            Message::Appended { version } => replica.acknowledge(from, version, out),
            Message::AppendRefused { failed } => replica.refused(from, failed, now, out),
            Message::Granted { sent_at } => replica.granted(from, sent_at),
            Message::Leaving | Message::Down => replica.refused(from, true, now, out),
            Message::Collected { epoch, sent_at, collected } => {
                replica.collected(from, epoch, sent_at, collected, now, out);
            }
            Message::NoHolder => replica.no_holder(from, now, out),
            _ => {}
        });
    }

    /// Queues a primary's write. Returns what is answered at once, if anything.
    fn store(&mut self, partition: u32, write: Replicated, primary: &Process, me: &Process) -> Option<Message> {
        let Replicated { version, data: Payload { change, durability, idempotency, .. } } = write;
        let early = self.has(Bug::AcknowledgedEarly);
        let awaited = durability != Durability::Memory;
        let asked = Some((primary.clone(), me.clone()));
        let flush = durability >= Durability::Fsync && !self.has(Bug::ReplicaDoesNotFlush);
        let job = Job::Write(Write { partition, change, awaited, flush, idempotency, asked });
        match self.enqueue(job) {
            Err(_) => Some(Message::AppendRefused { failed: true }),
            Ok(()) => (!awaited || early).then_some(Message::Appended { version }),
        }
    }
}
