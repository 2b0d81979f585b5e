//! What the object tier keeps in a bucket, and the rules by which it is believed and removed.
//!
//! | module | owns |
//! |---|---|
//! | [`name`] | the names of objects, none of which is ever used twice |
//! | [`record`] | what is known of one key at one version, and where its value is |
//! | [`segment`] | many values in one immutable object |
//! | [`checkpoint`] | every live key of a partition as of one version |
//! | [`rules`] | who may upload, what counts as uploaded, what a restore believes, what may be removed |
//! | `codec` | bounded reading and writing of bytes |
//!
//! Nothing here does I/O or reads a clock. Whatever comes out of a bucket may be damaged, so every read is checked and
//! fails with a [`FormatError`]; nothing panics.
//!
//! The terms: a **segment** holds the newest state of keys of several partitions. A **checkpoint** of a partition has a
//! **watermark**, a version: it lists every live key whose newest version is at or below it, and whatever else is at or
//! below it is dead. Versions grow with epochs, so no clock and no order of arrival decides anything.

pub mod checkpoint;
mod codec;
pub mod name;
pub mod record;
pub mod rules;
pub mod segment;

pub use codec::FormatError;
pub use name::{CheckpointName, Origin, SegmentName, ValueName};
pub use record::{Place, Record, checksum};
