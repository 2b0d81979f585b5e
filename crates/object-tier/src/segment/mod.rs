//! Segments: many values in one object, which is never changed.
//!
//! ```text
//! values │ rows of one partition after the other │ directory │ trailer
//! ```
//!
//! A reader needs the trailer, which has a fixed length, then the directory, then the rows of the one partition that it
//! is interested in. The rows say where each value is. [`TAIL_BYTES`] from the end hold trailer and directory of almost
//! every segment, so that one request brings both.

mod builder;
mod reader;

pub use builder::{Builder, Built, Placed};
pub use reader::{Directory, Section, Trailer};

/// A segment is complete when it is this long. One value more may make it longer.
pub const CUT_BYTES: usize = 8 << 20;
/// The longest value that is packed; a longer one has an object of its own.
pub const MAX_PACKED_BYTES: usize = 256 << 10;
/// What to read from the end of a segment at first: trailer and directory, and the rows of most.
pub const TAIL_BYTES: u64 = 256 << 10;
/// Bytes of the trailer.
pub const TRAILER_BYTES: usize = 50;
/// Bytes of a partition's entry in the directory.
const SECTION_BYTES: usize = 64;
const MAGIC: [u8; 8] = *b"cairnseg";
const FORMAT: u16 = 1;
