//! A large value on its way to a client. A client that takes nothing of it for a while loses it, so that whoever does not
//! read pins no memory.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use tokio::task::JoinHandle;

/// How long a client may take nothing.
const PATIENCE: Duration = Duration::from_secs(30);
/// Bytes given to the connection at a time.
const PIECE: usize = 64 << 10;

/// See the module.
pub(crate) struct Patient {
    value: Arc<Mutex<Option<Bytes>>>,
    length: usize,
    taken: Arc<AtomicUsize>,
    watch: JoinHandle<()>,
}

impl Patient {
    pub(crate) fn new(value: Bytes) -> Self {
        let (length, taken) = (value.len(), Arc::new(AtomicUsize::new(0)));
        let value = Arc::new(Mutex::new(Some(value)));
        let watch = {
            let (value, taken) = (value.clone(), taken.clone());
            tokio::spawn(async move {
                let mut before = usize::MAX;
                while before != taken.load(Ordering::Relaxed) {
                    before = taken.load(Ordering::Relaxed);
                    tokio::time::sleep(PATIENCE).await;
                }
                value.lock().unwrap_or_else(PoisonError::into_inner).take();
            })
        };
        Self { value, length, taken, watch }
    }
}

impl MessageBody for Patient {
    type Error = io::Error;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.length as u64)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, io::Error>>> {
        let from = self.taken.load(Ordering::Relaxed);
        let value = self.value.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(value) = value.as_ref() else { return Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into()))) };
        let to = self.length.min(from + PIECE);
        self.taken.store(to, Ordering::Relaxed);
        Poll::Ready((from < to).then(|| Ok(value.slice(from..to))))
    }
}

impl Drop for Patient {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn next(body: &mut Patient) -> Option<Result<Bytes, io::Error>> {
        std::future::poll_fn(|context| Pin::new(&mut *body).poll_next(context)).await
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_goes_on_reading_gets_all() {
        let mut body = Patient::new(Bytes::from(vec![7; 5 * PIECE + 1]));
        let mut length = 0;
        while let Some(piece) = next(&mut body).await {
            length += piece.unwrap().len();
            tokio::time::sleep(PATIENCE * 2 / 3).await;
        }
        assert_eq!(length, 5 * PIECE + 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_loses_the_value() {
        let value = Bytes::from(vec![7; 5 * PIECE]);
        let mut body = Patient::new(value.clone());
        next(&mut body).await.unwrap().unwrap();
        assert!(!value.is_unique());
        tokio::time::sleep(PATIENCE * 3).await;
        assert!(value.is_unique(), "the memory is free");
        assert!(next(&mut body).await.unwrap().is_err());
    }
}
