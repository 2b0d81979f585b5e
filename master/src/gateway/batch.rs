//! Batches: one message to each owner, all at the same time, and again for what is left when owners have moved.

use std::{
    collections::{BTreeMap, HashSet},
    time::{Duration, Instant},
};

use cairn_api_spec::{
    ApiError, EntryName, ErrorCode, Operation, Outcome,
    batch::AnswerRoom,
    peer::{Execute, ExecuteBatch, Request, RequestKind, ResponseKind},
};
use cairn_operations::metrics::Kind;
use futures_util::future::join_all;

use super::{
    Gateway, GatewayError,
    attempts::Attempts,
    call,
    routes::{Holder, Table},
    with_upload,
};

/// An operation on its way to a result.
struct Pending<'a> {
    index: usize,
    operation: &'a Operation,
    attempts: Attempts<'a>,
}

/// Operations that have the same owner, with what each of them knows of that one.
type Part<'a> = Vec<(Pending<'a>, Holder)>;

impl Gateway {
    /// Executes every operation, and measures each.
    pub(super) async fn execute_batch(&self, operations: Vec<Operation>) -> Vec<Result<Outcome, ApiError>> {
        let began = Instant::now();
        let results = self.run_batch(&operations).await;
        for (operation, result) in operations.iter().zip(&results) {
            self.plan.watch.observe_part(operation, began, result);
        }
        self.plan.watch.observe_batch(operations.first().and_then(|operation| operation.trace), began);
        results
    }

    async fn run_batch(&self, operations: &[Operation]) -> Vec<Result<Outcome, ApiError>> {
        let until = self.attempts();
        let mut pending: Vec<_> = operations
            .iter()
            .enumerate()
            .map(|(index, operation)| Pending { index, operation, attempts: until.clone().of(operation) })
            .collect();
        let mut results: Vec<_> = operations.iter().map(|_| Err(GatewayError::Strange.into())).collect();
        let mut room = AnswerRoom::default();
        // The keys of operations that have failed for good, and might not have.
        let mut ended: HashSet<&EntryName> = HashSet::new();
        loop {
            let routes = self.routes();
            let mut answers = self.ask_owners(&routes, pending, until.call_deadline()).await;
            answers.sort_unstable_by_key(|(operation, _)| operation.index);
            let mut left = Vec::new();
            for (mut operation, result) in answers {
                let (index, name) = (operation.index, &operation.operation.name);
                match result.map(|outcome| room.admit(outcome)) {
                    Ok(admitted) => results[index] = admitted,
                    // One that may still be under way is not to be overtaken by those behind it.
                    Err(error) if ended.contains(name) => results[index] = Err(operation.attempts.last_word(error)),
                    Err(error) => match operation.attempts.judge(error) {
                        Ok(()) => left.push(operation),
                        Err(last_word) => {
                            if last_word.code.may_pass() {
                                ended.insert(name);
                            }
                            results[index] = Err(last_word);
                        }
                    },
                }
            }
            if left.is_empty() {
                return results;
            }
            pending = left;
            until.pause(&routes).await;
        }
    }

    /// Asks each owner once.
    async fn ask_owners<'a>(
        &self,
        routes: &Table,
        pending: Vec<Pending<'a>>,
        deadline: Duration,
    ) -> Vec<(Pending<'a>, Result<Outcome, ApiError>)> {
        let mut parts: BTreeMap<String, Part<'a>> = BTreeMap::new();
        let mut answers = Vec::with_capacity(pending.len());
        for operation in pending {
            match routes.primary(&operation.operation.name) {
                Ok(owner) => {
                    let owner = owner.clone();
                    parts.entry(owner.target.node.to_string()).or_default().push((operation, owner));
                }
                Err(error) => answers.push((operation, Err(error.into()))),
            }
        }
        let asked = join_all(parts.into_values().map(|part| self.ask_owner(part, deadline))).await;
        answers.extend(asked.into_iter().flatten());
        answers
    }

    async fn ask_owner<'a>(&self, part: Part<'a>, deadline: Duration) -> Vec<(Pending<'a>, Result<Outcome, ApiError>)> {
        let Some((_, Holder { target, .. })) = part.first() else { return Vec::new() };
        let target = target.clone();
        let trace = part.iter().find_map(|(pending, _)| pending.operation.trace);
        let mut span = self.plan.watch.span(&target, Kind::Batch, trace);
        let trace = span.context().or(trace);
        let message = |(pending, owner): &(Pending<'_>, Holder)| {
            Execute::new(Operation { trace, ..pending.operation.clone() }, owner.epoch)
        };
        let operations = part.iter().map(message).collect();
        let request = Request { kind: Some(RequestKind::ExecuteBatch(ExecuteBatch { operations })) };
        let deadlines = part.iter().map(|(pending, _)| with_upload(deadline, pending.operation));
        let deadline = deadlines.max().unwrap_or(deadline);
        let has_writes = part.iter().any(|(pending, _)| pending.operation.action.is_write());
        let answer = call(&target.link, &request, deadline, has_writes).await;
        let with_node = |error: ApiError| ApiError { node: Some(target.node.to_string()), ..error };
        let answers = match answer {
            Ok(ResponseKind::ExecutedBatch(batch)) if batch.answers.len() == part.len() => batch.answers,
            other => {
                let error = match other {
                    Ok(ResponseKind::Failed(error)) => error.into(),
                    Ok(_) => GatewayError::Strange.into(),
                    Err(error) => error,
                };
                span.fail(error.code.as_str());
                let failed = |(pending, _): (Pending<'a>, Holder)| {
                    let error = without_answer(pending.operation, &error);
                    (pending, Err(with_node(error)))
                };
                return part.into_iter().map(failed).collect();
            }
        };
        let results = answers.into_iter().map(|answer| Result::<Outcome, ApiError>::from(answer).map_err(with_node));
        part.into_iter().map(|(pending, _)| pending).zip(results).collect()
    }
}

/// What an error of a whole part means for one of its operations: no read is ever in doubt.
fn without_answer(operation: &Operation, error: &ApiError) -> ApiError {
    match error.code {
        ErrorCode::OutcomeUnknown if !operation.action.is_write() => {
            ApiError::new(ErrorCode::PartitionOffline, "the node did not answer in time, or the connection to it broke")
        }
        _ => error.clone(),
    }
}
