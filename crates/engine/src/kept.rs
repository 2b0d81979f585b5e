//! How much one partition keeps of writes that are not everywhere yet.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::change::Room;

/// With so many bytes of values no further write is taken: a copy that answers nothing must not fill the node's memory
/// before it is given up.
const MAX_BYTES: usize = 16 << 20;

/// The bytes of values that are kept.
#[derive(Default)]
pub(crate) struct Kept(Arc<AtomicUsize>);

/// A part of them, for as long as the write is kept.
struct Part {
    bytes: usize,
    of: Arc<AtomicUsize>,
}

impl Kept {
    pub(crate) fn is_full(&self) -> bool {
        self.0.load(Ordering::Relaxed) >= MAX_BYTES
    }

    /// Counts a value until the last clone of its room is gone.
    pub(crate) fn keep(&self, bytes: usize) -> Room {
        self.0.fetch_add(bytes, Ordering::Relaxed);
        Arc::new(Part { bytes, of: self.0.clone() })
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
