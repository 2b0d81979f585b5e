//! The names of objects, without the prefix that the operator chose.
//!
//! Every name ends with its [`Origin`], whose numbers are never given twice. So no object is ever overwritten, whatever
//! request arrives late or once more.

use std::{
    fmt::{self, Display},
    str::FromStr,
    sync::Arc,
};

use cairn_api_spec::Version;

/// Who wrote an object, and as which of its objects: `{term}/{node}/{session}-{seq}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// Which life of the cluster the object belongs to: raised when another region takes over.
    pub term: u64,
    /// The node.
    pub node: Arc<str>,
    /// The node's process; see `cairn_api_spec::cluster::RegisterNode::session`.
    pub session: u64,
    /// Counts the objects of that process. One counter for objects of all kinds.
    pub seq: u64,
}

/// `segments/{origin}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName(pub Origin);

/// A value that has an object of its own: `values/{partition}/{epoch}/{version}/{origin}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ValueName {
    /// The partition of its key.
    pub partition: u32,
    /// The epoch under which it was gathered.
    pub epoch: u64,
    /// The version of the row.
    pub version: Version,
    /// Who wrote it.
    pub origin: Origin,
}

/// `checkpoints/{partition}/{watermark}/{epoch}/{origin}`.
///
/// Of two checkpoints of a partition the one with the higher [`CheckpointName::order`] counts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CheckpointName {
    /// The partition.
    pub partition: u32,
    /// Up to which version it speaks.
    pub watermark: Version,
    /// The epoch under which it was gathered.
    pub epoch: u64,
    /// Who wrote it.
    pub origin: Origin,
}

impl CheckpointName {
    /// What says which of two checkpoints counts. Not the order of their names, in which 10 comes before 9.
    pub fn order(&self) -> (u64, Version, u64, u64) {
        (self.origin.term, self.watermark, self.epoch, self.origin.seq)
    }
}

/// What stands before the names of all checkpoints.
pub const CHECKPOINTS: &str = "checkpoints/";

/// What stands before the names of a partition's checkpoints.
pub fn checkpoints_of(partition: u32) -> String {
    format!("{CHECKPOINTS}{partition}/")
}

/// What stands before the names of a partition's values with objects of their own.
pub fn values_of(partition: u32) -> String {
    format!("values/{partition}/")
}

/// What stands before the names of all segments.
pub const SEGMENTS: &str = "segments/";

/// The text is no name of the kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no name of such an object")]
pub struct NameError;

impl Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { term, node, session, seq } = self;
        write!(f, "{term}/{node}/{session}-{seq}")
    }
}

impl Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SEGMENTS}{}", self.0)
    }
}

impl Display for ValueName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, epoch, version, origin } = self;
        write!(f, "{}{epoch}/{version}/{origin}", values_of(*partition))
    }
}

impl Display for CheckpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, watermark, epoch, origin } = self;
        write!(f, "{}{watermark}/{epoch}/{origin}", checkpoints_of(*partition))
    }
}

impl FromStr for SegmentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = Parts(text);
        parts.literal("segments")?;
        parts.origin().map(Self)
    }
}

impl FromStr for ValueName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = Parts(text);
        parts.literal("values")?;
        let (partition, epoch, version) = (parts.number()?, parts.number()?, Version(parts.number()?));
        Ok(Self { partition, epoch, version, origin: parts.origin()? })
    }
}

impl FromStr for CheckpointName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let mut parts = Parts(text);
        parts.literal("checkpoints")?;
        let (partition, watermark, epoch) = (parts.number()?, Version(parts.number()?), parts.number()?);
        Ok(Self { partition, watermark, epoch, origin: parts.origin()? })
    }
}

/// The rest of a name that is being read.
struct Parts<'a>(&'a str);

impl<'a> Parts<'a> {
    fn next(&mut self) -> Result<&'a str, NameError> {
        let (part, rest) = self.0.split_once('/').ok_or(NameError)?;
        self.0 = rest;
        Ok(part)
    }

    fn literal(&mut self, expected: &str) -> Result<(), NameError> {
        if self.next()? == expected { Ok(()) } else { Err(NameError) }
    }

    fn number<N: FromStr + Display>(&mut self) -> Result<N, NameError> {
        number(self.next()?)
    }

    fn origin(mut self) -> Result<Origin, NameError> {
        let (term, node) = (self.number()?, self.next()?);
        let (session, seq) = self.0.split_once('-').ok_or(NameError)?;
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if !(1..=63).contains(&node.len()) || !node.bytes().all(plain) {
            return Err(NameError);
        }
        Ok(Origin { term, node: node.into(), session: number(session)?, seq: number(seq)? })
    }
}

/// Only the one spelling that is ever written, so that an object has one name.
fn number<N: FromStr + Display>(text: &str) -> Result<N, NameError> {
    text.parse::<N>().ok().filter(|number| number.to_string() == text).ok_or(NameError)
}
