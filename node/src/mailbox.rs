//! Answers on their way to another thread, many for one wake-up.
//!
//! The disk's writer settles a batch at a time. Waking each waiting task by itself would cost a system call, and mostly
//! a context switch, for every write: more than the write. So a thread that serves HTTP has a mailbox; the writer puts all
//! answers for the thread into it and wakes it once, and a task there hands them out.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

use cairn_api_spec::Outcome;
use cairn_engine::Error;

/// The answer to a request.
pub type Answer = Result<Outcome, Error>;

/// One thread's mailbox.
#[derive(Default)]
pub struct Mailbox {
    answers: Mutex<Vec<(oneshot::Sender<Answer>, Answer)>>,
    filled: Notify,
}

/// Where an answer goes.
pub struct Reply {
    sender: oneshot::Sender<Answer>,
    mailbox: Option<Arc<Mailbox>>,
}

impl Mailbox {
    /// A mailbox for the tasks of this runtime, which hands out until the handle is dropped.
    pub fn open() -> (Arc<Self>, AbortOnDropHandle<()>) {
        let mailbox = Arc::new(Self::default());
        let task = tokio::spawn({
            let mailbox = mailbox.clone();
            async move { mailbox.hand_out().await }
        });
        (mailbox, AbortOnDropHandle::new(task))
    }

    async fn hand_out(&self) {
        loop {
            self.filled.notified().await;
            for (sender, answer) in std::mem::take(&mut *self.lock()) {
                // A client that went away wants no answer.
                let _ = sender.send(answer);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(oneshot::Sender<Answer>, Answer)>> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reply {
    /// An answer through a mailbox, or straight to the task without one; and the end where it arrives.
    pub fn new(mailbox: Option<Arc<Mailbox>>) -> (Self, oneshot::Receiver<Answer>) {
        let (sender, receiver) = oneshot::channel();
        (Self { sender, mailbox }, receiver)
    }
}

/// Sends answers, in few wake-ups.
pub fn deliver(answers: Vec<(Reply, Answer)>) {
    let mut mailboxes: Vec<Arc<Mailbox>> = Vec::new();
    for (Reply { sender, mailbox }, answer) in answers {
        let Some(mailbox) = mailbox else {
            // A client that went away wants no answer.
            let _ = sender.send(answer);
            continue;
        };
        mailbox.lock().push((sender, answer));
        if !mailboxes.iter().any(|known| Arc::ptr_eq(known, &mailbox)) {
            mailboxes.push(mailbox);
        }
    }
    for mailbox in mailboxes {
        mailbox.filled.notify_one();
    }
}
