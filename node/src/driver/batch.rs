//! Batches: operations that come together share the disk's statements, and those on the same key keep their order.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use bytes::Bytes;
use cairn_api_spec::{ApiError, ErrorCode, Operation, Outcome, batch::AnswerRoom};
use cairn_operations::metrics::{Details, End, Kind};
use futures_util::{StreamExt, stream};

use super::Driver;
use crate::mailbox::Mailbox;

/// Keys of one batch that are worked on at the same time: two statements of the disk.
const CONCURRENCY: usize = 128;

impl Driver {
    /// Executes operations, each on a partition that the asker knows at the epoch beside it (0: not at all), and gives a
    /// result for each. Once one fails that may end better later, those behind it on the same key are not done, so that
    /// all of them may be sent again in their order.
    pub async fn execute_batch(
        &self,
        operations: Vec<(Operation, u64)>,
        mailbox: Option<&Arc<Mailbox>>,
    ) -> Vec<Result<Outcome, ApiError>> {
        let began = Instant::now();
        let trace_id = operations.iter().find_map(|(operation, _)| operation.trace).map(|trace| trace.trace_id);
        let unanswered = || Err(ApiError::new(ErrorCode::Internal, "the operation has no result"));
        let mut results: Vec<_> = operations.iter().map(|_| unanswered()).collect();
        let room = Mutex::new(AnswerRoom::default());
        let mut done = stream::iter(by_key(operations))
            .map(|operations| self.execute_in_order(operations, &room, mailbox))
            .buffer_unordered(CONCURRENCY);
        while let Some(answers) = done.next().await {
            for (index, result) in answers {
                results[index] = result;
            }
        }
        self.metrics.operations.observe(Kind::Batch, began, End::Hit, || Details { trace_id, ..Details::default() });
        results
    }

    async fn execute_in_order(
        &self,
        operations: Vec<Numbered>,
        room: &Mutex<AnswerRoom>,
        mailbox: Option<&Arc<Mailbox>>,
    ) -> Vec<(usize, Result<Outcome, ApiError>)> {
        let mut results = Vec::with_capacity(operations.len());
        let mut failure: Option<ApiError> = None;
        for (index, operation, epoch) in operations {
            let result = if let Some(failure) = &failure {
                let detail =
                    format!("not done, since an operation before it on the same key failed: {}", failure.detail);
                Err(ApiError { detail, ..failure.clone() })
            } else {
                let result = self.execute(operation, epoch, mailbox).await.map_err(ApiError::from);
                result.and_then(|outcome| room.lock().unwrap_or_else(PoisonError::into_inner).admit(outcome))
            };
            if failure.is_none() {
                failure = result.as_ref().err().filter(|error| error.code.may_pass()).cloned();
            }
            results.push((index, result));
        }
        results
    }
}

/// An operation, its place in the batch, and an epoch.
type Numbered = (usize, Operation, u64);

/// The operations on each key, in their order; keys in the order in which they come first.
fn by_key(operations: Vec<(Operation, u64)>) -> Vec<Vec<Numbered>> {
    let mut places: HashMap<Bytes, usize> = HashMap::with_capacity(operations.len());
    let mut groups: Vec<Vec<Numbered>> = Vec::new();
    for (index, (operation, epoch)) in operations.into_iter().enumerate() {
        let place = *places.entry(operation.name.as_bytes().clone()).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push((index, operation, epoch));
    }
    groups
}
