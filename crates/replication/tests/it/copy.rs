//! How a learner copies a partition from its primary, page by page.

use cairn_replication::{Role, Write};

use crate::{
    host::{Host, Job},
    message::{Key, Message, Out, Process, Row},
    planted::Bug,
};

/// How far a learner is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Copying {
    primary: Process,
    /// The primary's number for it, once it is known.
    activation: u64,
    /// What it asked last.
    asked: Message,
    is_refused: bool,
    /// When it asks again.
    ask_at: u64,
}

impl Host {
    /// What a new entry means for the copy.
    pub(crate) fn copy_from_primary(&mut self, now: u64, out: &mut Out) {
        let primary = self.replica.entry().primary_process();
        if self.replica.role() != Role::Learner {
            self.copying = None;
        } else if primary != self.copying.as_ref().map(|copying| &copying.primary) {
            self.begin_copy(now, out);
        }
    }

    pub(crate) fn begin_copy(&mut self, now: u64, out: &mut Out) {
        let Some(primary) = self.replica.entry().primary_process().cloned() else { return };
        self.attempts += 1;
        // What the primary does not have must not be here.
        self.queue.clear();
        self.refused.clear();
        if !self.has(Bug::FormerRowsKept) {
            self.disk.clear();
        }
        let asked = Message::Begin { attempt: self.attempts, epoch: self.replica.entry().epoch };
        self.copying = Some(Copying { primary, activation: 0, asked, is_refused: false, ask_at: now });
        self.ask(now, out);
    }

    /// Whether an answer is about the present copy.
    pub(crate) fn is_of_copy(&self, attempt: u32, activation: u64) -> bool {
        let known = self.copying.as_ref().map(|copying| copying.activation);
        attempt == self.attempts && known.is_some_and(|known| known == 0 || known == activation)
    }

    pub(crate) fn copy_refused(&mut self, attempt: u32, activation: u64, begin_again: bool, now: u64) {
        let is_mine = self.is_of_copy(attempt, activation);
        if let Some(copying) = self.copying.as_mut().filter(|_| is_mine) {
            (copying.ask_at, copying.is_refused) = (now, begin_again);
        }
    }

    /// A page is on the learner's disk; without `above` it was the last.
    pub(crate) fn stored_page(&mut self, attempt: u32, activation: u64, above: Option<Key>, now: u64, out: &mut Out) {
        let is_mine = self.is_of_copy(attempt, activation);
        if let Some(copying) = self.copying.as_mut().filter(|_| is_mine) {
            copying.activation = activation;
            copying.asked = match above {
                Some(above) => Message::Fetch { attempt, activation, above },
                None => Message::Copied { attempt, activation },
            };
            self.ask(now, out);
        }
    }

    pub(crate) fn ask_again(&mut self, now: u64, out: &mut Out) {
        match &self.copying {
            Some(copying) if copying.ask_at > now => {}
            Some(Copying { is_refused: true, .. } | Copying { asked: Message::Begin { .. }, .. }) => {
                self.begin_copy(now, out);
            }
            Some(_) if self.has(Bug::BeginsAgainAtWill) => self.begin_copy(now, out),
            _ => self.ask(now, out),
        }
    }

    fn ask(&mut self, now: u64, out: &mut Out) {
        let Some(copying) = &mut self.copying else { return };
        copying.ask_at = now.saturating_add(self.rules.patience);
        let (primary, asked) = (copying.primary.clone(), copying.asked.clone());
        self.send(primary, asked, out);
    }

    /// As the primary: a learner begins a copy, from when on it gets every write.
    pub(crate) fn serve_copy(&mut self, learner: &Process, attempt: u32, epoch: u64, out: &mut Out) {
        if self.replica.activate(learner, epoch).is_err() {
            return self.refuse_copy(learner, attempt, 0, out);
        }
        let activation = self.replica.activation(learner).unwrap_or_default();
        if self.has(Bug::EarlySnapshot) {
            self.send_page(learner, attempt, activation, None, out);
        } else {
            self.queue.push_back(Job::Snapshot { learner: learner.clone(), attempt, activation });
        }
    }

    /// As the primary: a learner goes on.
    pub(crate) fn serve_page(&mut self, learner: &Process, attempt: u32, activation: u64, above: Key, out: &mut Out) {
        if self.is_present(learner, activation) {
            self.send_page(learner, attempt, activation, Some(above), out);
        } else {
            self.refuse_copy(learner, attempt, activation, out);
        }
    }

    pub(crate) fn refuse_copy(&self, learner: &Process, attempt: u32, activation: u64, out: &mut Out) {
        let begin_again = self.replica.must_begin_again(learner, activation);
        self.send(learner.clone(), Message::FetchRefused { attempt, activation, begin_again }, out);
    }

    /// Whether a learner's request belongs to its present copy.
    pub(crate) fn is_present(&self, learner: &Process, activation: u64) -> bool {
        match self.replica.activation(learner) {
            Some(present) => present == activation || self.has(Bug::CopiesNotNumbered),
            None => false,
        }
    }

    pub(crate) fn send_page(
        &self,
        learner: &Process,
        attempt: u32,
        activation: u64,
        above: Option<Key>,
        out: &mut Out,
    ) {
        let mut left = self.disk.values().filter(|write| above.is_none_or(|above| write.data.key > above)).cloned();
        let rows: Vec<Write<Row>> = left.by_ref().take(self.rules.page).collect();
        let is_last = left.next().is_none();
        self.send(learner.clone(), Message::Page { attempt, activation, rows, is_last }, out);
    }

    pub(crate) fn is_learner(&self, member: &Process) -> bool {
        self.replica.entry().learners.contains(member)
    }
}
