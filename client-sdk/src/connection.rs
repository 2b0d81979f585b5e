//! A connection to a cluster, in one bucket: sends what is asked until it is answered or the time is over.

use std::{sync::Arc, time::Duration};

use cairn_api_spec::{
    Bucket, EntryName, ErrorCode, Operation, TraceContext, error::Problem, operation::Action, version::Condition,
};
use progenitor_client::ResponseValue;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::task::AbortOnDropHandle;

use crate::{
    call::{self, Http, Reply, content_type},
    error::{Error, Failure},
    generated::master,
    retry::{Course, Pauses, patience},
    router::Router,
};

/// See the module. Clones share the connection.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) bucket: Bucket,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) _follower: AbortOnDropHandle<()>,
    pub(crate) router: Arc<Router>,
    pub(crate) http: Http,
    pub(crate) timeout: Duration,
    pub(crate) retries: u32,
    pub(crate) trace_context: fn() -> Option<String>,
}

impl Connection {
    pub(crate) fn bucket_name(&self) -> &str {
        self.bucket.as_str()
    }

    /// Asks a master something that may as well be asked twice.
    pub(crate) async fn ask<T, F>(&self, question: impl Fn(master::Client) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<ResponseValue<T>, progenitor_client::Error<Problem>>>,
    {
        let Shared { router, timeout, retries, .. } = &*self.shared;
        let deadline = Instant::now() + *timeout;
        let mut pauses = Pauses::default();
        let mut left = *retries;
        loop {
            let failure = match router.ask(patience(deadline), &question).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = pauses.after(&failure);
            if left == 0 || !failure.may_pass() || Instant::now() + pause >= deadline {
                return Err(failure.into_error(false));
            }
            left -= 1;
            sleep(pause).await;
        }
    }

    /// An operation on a key of this bucket.
    pub(crate) fn operation(&self, key: &str, condition: Condition, action: Action) -> Result<Operation, Error> {
        let name = EntryName::new(&self.bucket, key)?;
        content_type(&action)?;
        let trace = (self.shared.trace_context)().and_then(|header| TraceContext::parse(&header));
        Ok(Operation { trace, ..Operation::new(name, condition, action) })
    }

    /// Sends an operation where it belongs, and again where that is of use.
    pub(crate) async fn execute(&self, operation: &Operation) -> Result<Reply, Error> {
        let Shared { router, http, .. } = &*self.shared;
        let deadline = Instant::now() + self.shared.timeout;
        let mut course = Course::default();
        let mut left = self.shared.retries;
        loop {
            let map = router.map();
            let node = course.node(&map, operation);
            let target = node.unwrap_or_else(|| router.master());
            let patience = patience(deadline);
            let failure = match timeout(patience, call::send(http, target, operation)).await {
                Ok(Ok(reply)) => return Ok(reply),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Broken(format!("{target} did not answer within {patience:?}")),
            };
            let pause = course.pause_after(&failure, node.is_some());
            if left == 0 || !failure.may_pass() || Instant::now() + pause >= deadline {
                return Err(course.last_word(failure, operation));
            }
            left -= 1;
            if node.is_none() && failure.is_lost() {
                router.leave_master(target);
            }
            let has_new_map = match failure.code() {
                Some(ErrorCode::NotOwner) => timeout_at(deadline, router.refresh(&map)).await.unwrap_or(false),
                _ => false,
            };
            if failure.is_lost() {
                router.refresh_soon();
            }
            course.turn(&failure, node, has_new_map);
            sleep(pause).await;
        }
    }
}
