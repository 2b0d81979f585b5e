//! Request bodies with a limit and a deadline. actix times a request's head, but would wait for its body for ever.

use std::{
    io, mem,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use super::Budget;
use actix_web::{
    error::PayloadError,
    web::{self, Bytes, BytesMut},
};
use cairn_api_spec::{ApiError, ErrorCode};
use futures_util::{Stream, StreamExt};
use tokio::time::{Instant, Sleep, sleep_until};

/// A declared length is only a claim: no more than this is allocated on the strength of it.
const MAX_PREALLOCATED: usize = 1 << 20;

/// How fast a whole body must arrive: within `grace` and the time that its bytes take at the lowest rate.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// What every body may take.
    pub grace: Duration,
    /// The lowest rate.
    pub bytes_per_second: u32,
}

impl Default for Pace {
    fn default() -> Self {
        Self { grace: Duration::from_secs(30), bytes_per_second: 16 << 10 }
    }
}

impl Pace {
    fn allowance(self, bytes: u64) -> Duration {
        self.grace + Duration::from_secs(bytes / u64::from(self.bytes_per_second.max(1)))
    }
}

/// A body that fails with [`io::ErrorKind::TimedOut`] when it falls behind its pace. Without a declared length the
/// bytes that came extend the deadline. A body that is already there is not timed.
#[derive(Debug)]
pub struct Paced<S> {
    stream: S,
    pace: Pace,
    declared: u64,
    received: u64,
    timer: Timer,
}

#[derive(Debug)]
enum Timer {
    /// Nothing was ever waited for.
    Idle,
    /// actix calls the handler before it has decoded the first piece, even when that came in the same packet as the
    /// head: the first wait is only a yield, and most bodies never need a timer.
    Yielded,
    Armed {
        since: Instant,
        sleep: Pin<Box<Sleep>>,
    },
}

impl<S> Paced<S> {
    /// Times `stream`, whose length is `declared`.
    pub fn new(stream: S, declared: Option<u64>, pace: Pace) -> Self {
        Self { stream, pace, declared: declared.unwrap_or(0), received: 0, timer: Timer::Idle }
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let allowance = self.pace.allowance(self.declared.max(self.received));
        match mem::replace(&mut self.timer, Timer::Yielded) {
            Timer::Idle => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            Timer::Yielded => {
                let since = Instant::now();
                self.timer = Timer::Armed { since, sleep: Box::pin(sleep_until(since + allowance)) };
            }
            armed => self.timer = armed,
        }
        let Timer::Armed { since, sleep } = &mut self.timer else { return Poll::Pending };
        loop {
            ready!(sleep.as_mut().poll(cx));
            let deadline = *since + allowance;
            if deadline <= Instant::now() {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}

impl<S: Stream<Item = Result<Bytes, PayloadError>> + Unpin> Stream for Paced<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match Pin::new(&mut self.stream).poll_next(cx) {
            Poll::Ready(item) => {
                if let Some(Ok(piece)) = &item {
                    self.received += piece.len() as u64;
                }
                Poll::Ready(item)
            }
            Poll::Pending => {
                ready!(self.poll_timer(cx));
                Poll::Ready(Some(Err(PayloadError::Io(io::ErrorKind::TimedOut.into()))))
            }
        }
    }
}

/// Collects a body of at most `limit` bytes at the default [`Pace`]: 30 s, and 1 s for every 16 KiB. `declared` is its
/// `Content-Length`. A body that comes in one piece is not copied. It is counted in `budget` before it is buffered, until
/// the last clone of it is gone.
///
/// # Errors
/// `value_too_large`, when declared before anything is read; `request_timeout`; `invalid_body` when it breaks off;
/// `overloaded` when the budget has no room for it.
pub async fn read_body(
    budget: &Budget,
    payload: &mut web::Payload,
    declared: Option<u64>,
    limit: usize,
) -> Result<Bytes, ApiError> {
    read_body_at(Pace::default(), budget, payload, declared, limit).await
}

/// [`read_body`] at another pace.
///
/// # Errors
/// As [`read_body`].
pub async fn read_body_at(
    pace: Pace,
    budget: &Budget,
    payload: &mut web::Payload,
    declared: Option<u64>,
    limit: usize,
) -> Result<Bytes, ApiError> {
    if declared.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    let mut pieces = Paced::new(payload, declared, pace);
    let mut held = budget.hold();
    let mut first = Bytes::new();
    let mut whole = BytesMut::new();
    while let Some(piece) = pieces.next().await {
        let piece = piece.map_err(broken)?;
        if first.len() + whole.len() + piece.len() > limit {
            return Err(too_large(limit));
        }
        held.grow(first.len() + whole.len() + piece.len()).await?;
        if first.is_empty() && whole.is_empty() {
            first = piece;
            continue;
        }
        if whole.is_empty() {
            let length = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
            whole.reserve(length.min(MAX_PREALLOCATED).max(first.len() + piece.len()));
            whole.extend_from_slice(&mem::take(&mut first));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(held.keep(if whole.is_empty() { first } else { whole.freeze() }))
}

pub(super) fn too_large(limit: usize) -> ApiError {
    ApiError::new(ErrorCode::ValueTooLarge, format!("the body is longer than the {limit} bytes that are taken here"))
}

pub(super) fn broken(error: PayloadError) -> ApiError {
    match error {
        PayloadError::Io(error) if error.kind() == io::ErrorKind::TimedOut => {
            let Pace { grace, bytes_per_second } = Pace::default();
            ApiError::new(
                ErrorCode::RequestTimeout,
                format!("the body came too slowly: {grace:?} and 1 s for every {bytes_per_second} bytes are allowed"),
            )
        }
        error => ApiError::new(ErrorCode::InvalidBody, format!("the body could not be read: {error}")),
    }
}
