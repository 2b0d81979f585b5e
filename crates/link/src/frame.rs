//! Frames, and the outbox that both ends write through.

use std::{
    io,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use prost::Message;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
};

/// Opens every connection, so that a stray HTTP client is told apart at once.
pub(crate) const PREFACE: &[u8; 8] = b"cairn/1\n";

const HEADER_BYTES: usize = 8;
const ID_BYTES: usize = 4;
const READ_BYTES: usize = 64 << 10;

/// Locks a mutex whose critical sections cannot panic half way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Appends one frame.
pub(crate) fn encode(buffer: &mut BytesMut, id: u32, message: &impl Message) {
    let length = message.encoded_len();
    buffer.reserve(HEADER_BYTES + length);
    #[expect(clippy::cast_possible_truncation, reason = "messages are bounded far below 4 GiB before they get here")]
    buffer.put_u32((ID_BYTES + length) as u32);
    buffer.put_u32(id);
    message.encode_raw(buffer);
}

/// Reads frames off a socket, many for one system call.
pub(crate) struct FrameReader<R> {
    socket: R,
    buffer: BytesMut,
    max_message_bytes: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub(crate) fn new(socket: R, max_message_bytes: usize) -> Self {
        Self { socket, buffer: BytesMut::with_capacity(READ_BYTES), max_message_bytes }
    }

    /// Takes a frame that has already arrived.
    pub(crate) fn buffered(&mut self) -> io::Result<Option<(u32, Bytes)>> {
        if self.buffer.len() < HEADER_BYTES {
            return Ok(None);
        }
        let length = (&self.buffer[..]).get_u32() as usize;
        if length < ID_BYTES || length - ID_BYTES > self.max_message_bytes {
            let text = format!("a peer announced a frame of {length} bytes, the limit is {}", self.max_message_bytes);
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let whole = HEADER_BYTES - ID_BYTES + length;
        if self.buffer.len() < whole {
            self.buffer.reserve(whole - self.buffer.len());
            return Ok(None);
        }
        let mut frame = self.buffer.split_to(whole).freeze();
        frame.advance(HEADER_BYTES - ID_BYTES);
        let id = frame.get_u32();
        Ok(Some((id, frame)))
    }

    /// Waits for more bytes; `false` at the end of the stream.
    pub(crate) async fn fill(&mut self) -> io::Result<bool> {
        if self.buffer.capacity() - self.buffer.len() < READ_BYTES / 4 {
            self.buffer.reserve(READ_BYTES);
        }
        Ok(self.socket.read_buf(&mut self.buffer).await? > 0)
    }
}

/// Encoded frames on their way to the socket.
#[derive(Default)]
pub(crate) struct Outbox {
    pending: Mutex<BytesMut>,
    /// Taken out of `pending` and not yet written.
    writing: AtomicUsize,
    filled: Notify,
    drained: Notify,
}

impl Outbox {
    pub(crate) fn push(&self, id: u32, message: &impl Message) {
        encode(&mut lock(&self.pending), id, message);
        self.filled.notify_one();
    }

    pub(crate) fn len(&self) -> usize {
        let pending = lock(&self.pending);
        pending.len() + self.writing.load(Ordering::Acquire)
    }

    /// Waits until fewer than `limit` bytes wait.
    pub(crate) async fn room(&self, limit: usize) {
        loop {
            let drained = self.drained.notified();
            if self.len() < limit {
                return;
            }
            drained.await;
        }
    }

    /// Writes out what comes in, everything that has gathered at a time. Returns with the first error.
    pub(crate) async fn write_to(&self, mut socket: impl AsyncWrite + Unpin, timeout: Duration) -> io::Result<()> {
        let mut batch = BytesMut::new();
        loop {
            {
                let mut pending = lock(&self.pending);
                std::mem::swap(&mut *pending, &mut batch);
                self.writing.store(batch.len(), Ordering::Release);
            }
            if batch.is_empty() {
                self.filled.notified().await;
                // Whatever else is ready to run may add to the batch.
                tokio::task::yield_now().await;
                continue;
            }
            // A peer that takes nothing for this long has stopped; partial progress starts the clock anew.
            while batch.has_remaining() {
                let written = tokio::time::timeout(timeout, socket.write_buf(&mut batch)).await??;
                if written == 0 {
                    return Err(io::ErrorKind::WriteZero.into());
                }
            }
            self.writing.store(0, Ordering::Release);
            self.drained.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Text {
        #[prost(string, tag = "1")]
        text: String,
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in_however_the_bytes_are_cut(texts in proptest::collection::vec(".{0,40}", 1..20), cut in 1usize..50) {
            let mut wire = BytesMut::new();
            for (id, text) in texts.iter().enumerate() {
                encode(&mut wire, id as u32, &Text { text: text.clone() });
            }
            let mut reader = FrameReader::new(tokio::io::empty(), 1000);
            let mut seen = Vec::new();
            for piece in wire.chunks(cut) {
                reader.buffer.extend_from_slice(piece);
                while let Some((id, frame)) = reader.buffered().unwrap() {
                    prop_assert_eq!(id as usize, seen.len());
                    seen.push(Text::decode(frame).unwrap().text);
                }
            }
            prop_assert_eq!(seen, texts);
        }

        #[test]
        fn no_bytes_panic_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = FrameReader::new(tokio::io::empty(), 1000);
            reader.buffer.extend_from_slice(&bytes);
            while let Ok(Some(_)) = reader.buffered() {}
        }
    }
}
