//! Requests to the object store that do not end as their sender believes.
//!
//! A store on the network may execute a request and lose the answer, or execute it long after its sender has given up.
//! Requests are told apart by operation and by the node that sends them; what objects are called is the node's business.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use s3s::{S3Result, s3_error};
use tokio::sync::watch;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is executed, and answered 500.
    ExecutedAndRefused,
    /// It waits for [`Fault::release`] and is executed then, also when its sender is gone.
    Held,
    /// It takes so long, and is executed at the end of it, also when its sender is gone.
    Slow(Duration),
    /// It is never executed, and not answered before the fault ends.
    Lost,
}

/// Which requests are meant.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    operation: &'static str,
    node: Option<String>,
}

impl Requests {
    /// All requests for an operation, such as `PutObject`.
    pub(crate) fn of(operation: &'static str) -> Self {
        Self { operation, node: None }
    }

    /// Only those of one node.
    pub(crate) fn by(self, node: &str) -> Self {
        Self { node: Some(node.to_owned()), ..self }
    }

    fn includes(&self, operation: &str, node: &str) -> bool {
        self.operation == operation && self.node.as_deref().is_none_or(|of| of == node)
    }
}

/// The faults of one object store.
#[derive(Clone, Default)]
pub(super) struct Faults(Arc<Mutex<Vec<Arc<Planned>>>>);

struct Planned {
    requests: Requests,
    fate: Fate,
    met: AtomicU64,
    executed: AtomicU64,
    is_over: watch::Sender<bool>,
}

/// A fault as long as this lives; when it is dropped, what is held goes on.
pub(crate) struct Fault {
    planned: Arc<Planned>,
    faults: Faults,
}

impl Faults {
    pub(super) fn plan(&self, requests: Requests, fate: Fate) -> Fault {
        let (met, executed, is_over) = (AtomicU64::new(0), AtomicU64::new(0), watch::Sender::new(false));
        let planned = Arc::new(Planned { requests, fate, met, executed, is_over });
        self.0.lock().unwrap().push(planned.clone());
        Fault { planned, faults: self.clone() }
    }

    /// Does what a request asks for, or what its fate is. The newest fault counts.
    pub(super) async fn meet<T: Send + 'static>(
        &self,
        operation: &str,
        node: &str,
        execute: impl FnOnce() -> T + Send + 'static,
    ) -> S3Result<T> {
        let is_met = |planned: &&Arc<Planned>| planned.requests.includes(operation, node);
        let Some(planned) = self.0.lock().unwrap().iter().rev().find(is_met).cloned() else { return Ok(execute()) };
        planned.met.fetch_add(1, Ordering::Relaxed);
        // In a task of its own, which goes on when the connection that the request came by is gone.
        let task = tokio::spawn(async move { planned.end(execute).await });
        task.await.map_err(|error| s3_error!(InternalError, "{error}"))?
    }
}

impl Planned {
    async fn end<T>(&self, execute: impl FnOnce() -> T) -> S3Result<T> {
        match self.fate {
            Fate::ExecutedAndRefused => {}
            Fate::Held | Fate::Lost => drop(self.is_over.subscribe().wait_for(|is_over| *is_over).await),
            Fate::Slow(time) => tokio::time::sleep(time).await,
        }
        if self.fate == Fate::Lost {
            return Err(s3_error!(ServiceUnavailable, "lost by the test"));
        }
        let done = execute();
        self.executed.fetch_add(1, Ordering::Relaxed);
        match self.fate {
            Fate::ExecutedAndRefused => Err(s3_error!(InternalError, "executed, and refused by the test")),
            _ => Ok(done),
        }
    }
}

impl Fault {
    /// How many requests have met it.
    pub(crate) fn met(&self) -> u64 {
        self.planned.met.load(Ordering::Relaxed)
    }

    /// How many of them have been executed.
    pub(crate) fn executed(&self) -> u64 {
        self.planned.executed.load(Ordering::Relaxed)
    }

    /// No more requests meet it; what is held stays so.
    pub(crate) fn spare_others(&self) {
        self.faults.0.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &self.planned));
    }

    /// Ends the fault: no more requests meet it, and what is held is executed.
    pub(crate) fn release(&self) {
        self.spare_others();
        self.planned.is_over.send_replace(true);
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        self.release();
    }
}
