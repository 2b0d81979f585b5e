//! Values on their way into a put: short ones are collected, long ones are streamed and never held as a whole.

use std::{future::ready, io, pin::pin};

use actix_web::{error::PayloadError, web};
use bytes::{Bytes, BytesMut};
use cairn_api_spec::{ApiError, ErrorCode, Operation, operation::Action};
use cairn_operations::{DataApi, Reply, ValueStream};
use cairn_server_kit::http::{Budget, Pace, Paced, read_body};
use futures_util::{
    Stream, StreamExt,
    future::{Either, select},
    stream,
};
use tokio::sync::mpsc;

/// Pieces under way between the body and the domain.
const PIECES: usize = 8;
/// A value that already is in memory goes in pieces of this many bytes.
const PIECE_BYTES: usize = 64 << 10;

/// Puts a request's body. The operation's own value is empty.
///
/// # Errors
/// `value_too_large`, when declared before anything is read; `request_timeout`; `invalid_body` when it breaks off; and
/// what the domain says.
pub(crate) async fn put_body(
    api: &dyn DataApi,
    budget: &Budget,
    operation: Operation,
    mut payload: web::Payload,
    declared: Option<u64>,
) -> Result<Reply, ApiError> {
    let buffer = api.buffer_bytes().min(api.max_value_bytes());
    match declared {
        Some(length) if length > api.max_value_bytes() as u64 => Err(too_large(api)),
        Some(length) if length <= buffer as u64 => {
            let value = read_body(budget, &mut payload, declared, buffer).await?;
            api.execute(with_value(operation, value)).await
        }
        Some(_) => {
            let pieces = Paced::new(payload, declared, Pace::default());
            put_pieces(api, operation, declared, pieces.map(|piece| piece.map_err(broken))).await
        }
        None => put_chunked(api, budget, operation, payload, buffer).await,
    }
}

/// Puts a value that is in memory.
///
/// # Errors
/// `value_too_large`, and what the domain says.
pub(crate) async fn put_bytes(api: &dyn DataApi, operation: Operation, value: Bytes) -> Result<Reply, ApiError> {
    if value.len() > api.max_value_bytes() {
        return Err(too_large(api));
    }
    if value.len() <= api.buffer_bytes() {
        return api.execute(with_value(operation, value)).await;
    }
    let length = value.len();
    let pieces = (0..length).step_by(PIECE_BYTES).map(|at| Ok(value.slice(at..length.min(at + PIECE_BYTES))));
    put_pieces(api, operation, Some(length as u64), stream::iter(pieces)).await
}

/// How long a chunked body is shows only on the way.
async fn put_chunked(
    api: &dyn DataApi,
    budget: &Budget,
    operation: Operation,
    payload: web::Payload,
    buffer: usize,
) -> Result<Reply, ApiError> {
    let mut pieces = Paced::new(payload, None, Pace::default()).map(|piece| piece.map_err(broken));
    let mut collected = BytesMut::new();
    let mut held = budget.hold();
    while let Some(piece) = pieces.next().await {
        let piece = piece?;
        held.grow(collected.len() + piece.len()).await?;
        collected.extend_from_slice(&piece);
        if collected.len() > buffer {
            let pieces = stream::once(ready(Ok(held.keep(collected.freeze())))).chain(pieces);
            return put_pieces(api, operation, None, pieces).await;
        }
    }
    api.execute(with_value(operation, held.keep(collected.freeze()))).await
}

/// Feeds the domain and waits for it in one future, so that no task outlives the request.
async fn put_pieces(
    api: &dyn DataApi,
    operation: Operation,
    length: Option<u64>,
    pieces: impl Stream<Item = Result<Bytes, ApiError>>,
) -> Result<Reply, ApiError> {
    let (feed, receiver) = Feed::new();
    let call = api.put_stream(operation, ValueStream { length, pieces: receiver });
    match select(call, pin!(feed.send_all(pieces, api))).await {
        Either::Left((reply, _)) => reply,
        Either::Right((Ok(()), call)) => call.await,
        // The domain hears of the broken stream and gives the put up; why it broke is known here.
        Either::Right((Err(error), call)) => {
            let _ = call.await;
            Err(error)
        }
    }
}

/// The sending end of a [`ValueStream`]. The end of a channel means the end of the value, so one that is dropped early,
/// as when the client leaves, says so in a place that was kept for it.
struct Feed {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    aborted: Option<mpsc::OwnedPermit<io::Result<Bytes>>>,
}

impl Feed {
    fn new() -> (Self, mpsc::Receiver<io::Result<Bytes>>) {
        let (pieces, receiver) = mpsc::channel(PIECES + 1);
        let aborted = pieces.clone().try_reserve_owned().ok();
        (Self { pieces, aborted }, receiver)
    }

    async fn send_all(
        mut self,
        pieces: impl Stream<Item = Result<Bytes, ApiError>>,
        api: &dyn DataApi,
    ) -> Result<(), ApiError> {
        let mut pieces = pin!(pieces);
        let mut sent = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece?;
            sent += piece.len();
            if sent > api.max_value_bytes() {
                return Err(too_large(api));
            }
            if self.pieces.send(Ok(piece)).await.is_err() {
                // The domain has stopped listening; its answer says why.
                return Ok(());
            }
        }
        self.aborted = None;
        Ok(())
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        if let Some(place) = self.aborted.take() {
            place.send(Err(io::ErrorKind::ConnectionAborted.into()));
        }
    }
}

fn with_value(mut operation: Operation, value: Bytes) -> Operation {
    if let Action::Put(put) = &mut operation.action {
        put.value = value;
    }
    operation
}

fn too_large(api: &dyn DataApi) -> ApiError {
    let limit = api.max_value_bytes();
    ApiError::new(ErrorCode::ValueTooLarge, format!("the value is longer than the {limit} bytes that are taken here"))
}

fn broken(error: PayloadError) -> ApiError {
    match error {
        PayloadError::Io(error) if error.kind() == io::ErrorKind::TimedOut => ApiError::new(
            ErrorCode::RequestTimeout,
            "the body came too slowly: 30 s and 1 s for every 16 KiB are allowed",
        ),
        error => ApiError::new(ErrorCode::InvalidBody, format!("the body could not be read: {error}")),
    }
}
