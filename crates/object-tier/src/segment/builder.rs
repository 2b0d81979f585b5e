use std::{collections::BTreeMap, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_api_spec::Version;
use xxhash_rust::xxh3::xxh3_64;

use super::{CUT_BYTES, FORMAT, MAGIC, MAX_PACKED_BYTES, Section};
use crate::{
    codec::{FormatError, stored},
    name::SegmentName,
    record::{Place, Record},
};

/// A segment in the making.
pub struct Builder {
    name: Arc<SegmentName>,
    bytes: BytesMut,
    /// By partition: the epoch under which it is gathered, and its records by name.
    partitions: BTreeMap<u32, (u64, BTreeMap<Bytes, Record>)>,
}

/// A complete segment.
pub struct Built {
    /// Its name.
    pub name: Arc<SegmentName>,
    /// What is to be stored under it.
    pub bytes: Bytes,
    /// What stands in it.
    pub rows: Vec<Placed>,
}

/// A record and where it stands now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The partition.
    pub partition: u32,
    /// The record.
    pub record: Record,
}

impl Builder {
    /// An empty segment.
    pub fn new(name: SegmentName) -> Self {
        Self { name: Arc::new(name), bytes: BytesMut::new(), partitions: BTreeMap::new() }
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty()
    }

    /// Bytes of values in it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is long enough.
    pub fn is_full(&self) -> bool {
        self.bytes.len() >= CUT_BYTES
    }

    /// Adds a key's state, gathered under `epoch` of its partition. With a `value` it is packed, and `record.place` is
    /// set; without one the record is a deletion, or has a place of its own.
    ///
    /// # Errors
    /// - [`FormatError::Length`]: the value is longer than [`MAX_PACKED_BYTES`], or is not `record.size` long.
    /// - [`FormatError::Checksum`]: the value is not the record's.
    /// - [`FormatError::Content`]: the key is in the segment already, its partition under another epoch, or a record
    ///   without a value refers to a segment.
    ///
    /// Then the segment is as it was.
    pub fn push(
        &mut self,
        partition: u32,
        epoch: u64,
        mut record: Record,
        value: Option<&[u8]>,
    ) -> Result<(), FormatError> {
        if let Some(value) = value {
            if value.len() > MAX_PACKED_BYTES {
                return Err(FormatError::Length);
            }
            record.check_value(value)?;
            record.place = Some(Place::Packed { segment: self.name.clone(), offset: stored(self.bytes.len()) });
        } else if matches!(record.place, Some(Place::Packed { .. } | Place::Versioned)) {
            return Err(FormatError::Content("place"));
        }
        let known = self.partitions.get(&partition);
        if known.is_some_and(|(of, records)| *of != epoch || records.contains_key(&record.name)) {
            return Err(FormatError::Content("rows"));
        }
        record.write(&mut BytesMut::new(), 0)?;
        self.bytes.put_slice(value.unwrap_or_default());
        let (_, records) = self.partitions.entry(partition).or_insert((epoch, BTreeMap::new()));
        records.insert(record.name.clone(), record);
        Ok(())
    }

    /// Completes the segment.
    ///
    /// # Errors
    /// Never with records that [`Builder::push`] has taken.
    pub fn finish(mut self) -> Result<Built, FormatError> {
        let rows_offset = stored(self.bytes.len());
        let mut directory = BytesMut::new();
        let mut placed = Vec::new();
        for (partition, (epoch, records)) in self.partitions {
            let start = self.bytes.len();
            let mut section = Section { partition, epoch, oldest: Version(u64::MAX), ..Section::default() };
            for record in records.into_values() {
                record.write(&mut self.bytes, 0)?;
                section.rows += 1;
                section.value_bytes += if matches!(record.place, Some(Place::Packed { .. })) { record.size } else { 0 };
                section.oldest = section.oldest.min(record.version);
                section.newest = section.newest.max(record.version);
                placed.push(Placed { partition, record });
            }
            section.range = stored(start)..stored(self.bytes.len());
            section.checksum = xxh3_64(&self.bytes[start..]);
            section.write(&mut directory);
        }
        let directory_offset = stored(self.bytes.len());
        self.bytes.put_slice(&directory);
        let start = self.bytes.len();
        self.bytes.put_u64_le(rows_offset);
        self.bytes.put_u64_le(directory_offset);
        self.bytes.put_u64_le(stored(directory.len()));
        self.bytes.put_u64_le(xxh3_64(&directory));
        self.bytes.put_u16_le(FORMAT);
        let checksum = xxh3_64(&self.bytes[start..]);
        self.bytes.put_u64_le(checksum);
        self.bytes.put_slice(&MAGIC);
        Ok(Built { name: self.name, bytes: self.bytes.freeze(), rows: placed })
    }
}
