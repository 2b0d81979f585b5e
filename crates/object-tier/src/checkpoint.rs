//! Checkpoints: every live key of a partition as of one version, its watermark.
//!
//! ```text
//! pages of rows │ table of segments │ directory of pages │ trailer
//! ```
//!
//! The table names each segment once. Whoever asks only which segments a checkpoint refers to reads the last part;
//! whoever restores reads page after page.

mod reader;
mod writer;

pub use reader::{Index, Page, Trailer};
pub use writer::Writer;

use cairn_api_spec::Version;

/// Rows fill a page up to about this many bytes.
pub const PAGE_BYTES: usize = 256 << 10;
/// What to read from the end of a checkpoint at first.
pub const TAIL_BYTES: u64 = 64 << 10;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 78;
const MAGIC: [u8; 8] = *b"cairnchk";
const FORMAT: u16 = 1;

/// What a checkpoint says of itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// The partition.
    pub partition: u32,
    /// Up to which version it speaks.
    pub watermark: Version,
    /// The epoch under which it was gathered.
    pub epoch: u64,
    /// Each segment of the same process whose number is below this was settled before the gathering began: what is not
    /// listed as being there never will be. See [`crate::rules::collect`].
    pub covers: u64,
}
