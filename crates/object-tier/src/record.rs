//! What is known of one key at one version.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use cairn_api_spec::Version;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    codec::{FormatError, Input, put_short},
    name::{SegmentName, ValueName},
};

/// Where a value is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// In a segment, from this byte on.
    Packed {
        /// The segment.
        segment: Arc<SegmentName>,
        /// The value's first byte in it.
        offset: u64,
    },
    /// In an object of its own.
    Object(Arc<ValueName>),
    /// In an object named by partition, key and version, as they were before there were segments.
    Versioned,
}

/// One key's state at one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// See `cairn_api_spec::EntryName::as_bytes`.
    pub name: Bytes,
    /// The version.
    pub version: Version,
    /// When it was written, in milliseconds since the Unix epoch.
    pub modified_at: u64,
    /// When it expires, likewise.
    pub expires_at: Option<u64>,
    /// The content type.
    pub content_type: String,
    /// Bytes of the value.
    pub size: u64,
    /// See [`checksum`].
    pub checksum: u64,
    /// Where the value is; `None` for a deletion.
    pub place: Option<Place>,
}

/// The checksum of a value that is stored under `name` at `version`: one that was swapped for another does not pass.
pub fn checksum(name: &[u8], version: Version, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(name) ^ version.0)
}

const TOMBSTONE: u8 = 0;
const PACKED: u8 = 1;
const OBJECT: u8 = 2;
const VERSIONED: u8 = 3;

impl Record {
    /// Whether the key was deleted.
    pub fn is_tombstone(&self) -> bool {
        self.place.is_none()
    }

    /// Whether `value` is the record's value.
    ///
    /// # Errors
    /// [`FormatError::Length`] or [`FormatError::Checksum`] when it is not.
    pub fn check_value(&self, value: &[u8]) -> Result<(), FormatError> {
        if value.len() as u64 != self.size {
            return Err(FormatError::Length);
        }
        if checksum(&self.name, self.version, value) == self.checksum { Ok(()) } else { Err(FormatError::Checksum) }
    }

    /// Appends the record. `segment` is the number of its segment in the table that it is read with.
    pub(crate) fn write(&self, out: &mut BytesMut, segment: u32) -> Result<(), FormatError> {
        put_short(out, &self.name, "name")?;
        out.put_u64_le(self.version.0);
        out.put_u64_le(self.modified_at);
        // A time of 0 has passed, as has one of 1.
        out.put_u64_le(self.expires_at.map_or(0, |at| at.max(1)));
        put_short(out, self.content_type.as_bytes(), "content type")?;
        out.put_u64_le(self.size);
        out.put_u64_le(self.checksum);
        match &self.place {
            None => out.put_u8(TOMBSTONE),
            Some(Place::Packed { offset, .. }) => {
                out.put_u8(PACKED);
                out.put_u32_le(segment);
                out.put_u64_le(*offset);
            }
            Some(Place::Object(name)) => {
                out.put_u8(OBJECT);
                put_short(out, name.to_string().as_bytes(), "object's name")?;
            }
            Some(Place::Versioned) => out.put_u8(VERSIONED),
        }
        Ok(())
    }

    pub(crate) fn read(input: &mut Input, segments: &[Arc<SegmentName>]) -> Result<Self, FormatError> {
        Ok(Self {
            name: input.short()?,
            version: Version(input.u64()?),
            modified_at: input.u64()?,
            expires_at: Some(input.u64()?).filter(|at| *at > 0),
            content_type: input.text("content type")?,
            size: input.u64()?,
            checksum: input.u64()?,
            place: match input.u8()? {
                TOMBSTONE => None,
                PACKED => {
                    let segment =
                        segments.get(input.u32()? as usize).ok_or(FormatError::Content("segment's number"))?;
                    Some(Place::Packed { segment: segment.clone(), offset: input.u64()? })
                }
                OBJECT => {
                    let name = input.text("object's name")?.parse::<ValueName>();
                    Some(Place::Object(Arc::new(name.map_err(|_| FormatError::Content("object's name"))?)))
                }
                VERSIONED => Some(Place::Versioned),
                _ => return Err(FormatError::Content("place")),
            },
        })
    }
}
