use std::{ops::Range, sync::Arc};

use bytes::{BufMut, Bytes, BytesMut};
use cairn_api_spec::Version;

use super::{FORMAT, MAGIC, SECTION_BYTES, TRAILER_BYTES};
use crate::{
    codec::{FormatError, Input, check, in_memory, stored},
    name::SegmentName,
    record::{Place, Record},
};

/// The end of a segment: where the rest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    rows_offset: u64,
    directory: Range<u64>,
    checksum: u64,
}

/// Which partitions have rows in a segment, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    rows_offset: u64,
    sections: Vec<Section>,
}

/// What a segment holds of one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// The partition.
    pub partition: u32,
    /// The epoch under which it was gathered.
    pub epoch: u64,
    /// How many rows.
    pub rows: u32,
    /// Bytes of the packed values.
    pub value_bytes: u64,
    /// The lowest version.
    pub oldest: Version,
    /// The highest version.
    pub newest: Version,
    /// Where in the segment the rows are.
    pub range: Range<u64>,
    pub(super) checksum: u64,
}

impl Trailer {
    /// Reads the last bytes of a segment that is `length` long: at least [`TRAILER_BYTES`] of them.
    ///
    /// # Errors
    /// When they are not the end of a segment of that length.
    pub fn read(tail: &[u8], length: u64) -> Result<Self, FormatError> {
        let start = tail.len().checked_sub(TRAILER_BYTES).ok_or(FormatError::Length)?;
        let trailer = &tail[start..];
        let mut input = Input::new(Bytes::copy_from_slice(trailer));
        let (rows_offset, offset, directory_length) = (input.u64()?, input.u64()?, input.u64()?);
        let directory_checksum = input.u64()?;
        let (format, checksum) = (input.u16()?, input.u64()?);
        if *input.take(MAGIC.len())? != MAGIC {
            return Err(FormatError::Magic);
        }
        check(&trailer[..TRAILER_BYTES - MAGIC.len() - 8], checksum)?;
        if format != FORMAT {
            return Err(FormatError::Version(format));
        }
        let end = offset.checked_add(directory_length).ok_or(FormatError::Length)?;
        if rows_offset > offset || end.checked_add(stored(TRAILER_BYTES)) != Some(length) {
            return Err(FormatError::Length);
        }
        Ok(Self { rows_offset, directory: offset..end, checksum: directory_checksum })
    }

    /// Where in the segment the directory is.
    pub fn directory(&self) -> Range<u64> {
        self.directory.clone()
    }
}

impl Directory {
    /// Reads the bytes at [`Trailer::directory`].
    ///
    /// # Errors
    /// When they are not that segment's directory.
    pub fn read(trailer: &Trailer, bytes: &Bytes) -> Result<Self, FormatError> {
        if stored(bytes.len()) != trailer.directory.end - trailer.directory.start {
            return Err(FormatError::Length);
        }
        check(bytes, trailer.checksum)?;
        let mut input = Input::new(bytes.clone());
        let mut sections = Vec::with_capacity(bytes.len() / SECTION_BYTES);
        let mut end = trailer.rows_offset;
        while !input.is_empty() {
            let section = Section::read(&mut input)?;
            let follows = sections.last().is_none_or(|last: &Section| last.partition < section.partition);
            if !follows || section.range.start != end || section.range.end < end {
                return Err(FormatError::Content("directory"));
            }
            end = section.range.end;
            sections.push(section);
        }
        if end != trailer.directory.start {
            return Err(FormatError::Content("directory"));
        }
        Ok(Self { rows_offset: trailer.rows_offset, sections })
    }

    /// The partitions, in their order.
    pub fn sections(&self) -> &[Section] {
        &self.sections
    }

    /// What there is of one partition.
    pub fn section(&self, partition: u32) -> Option<&Section> {
        let index = self.sections.binary_search_by_key(&partition, |section| section.partition).ok()?;
        self.sections.get(index)
    }

    /// Reads the rows of a section of this segment, from the bytes at [`Section::range`].
    ///
    /// # Errors
    /// When they are not those rows, or a row's value would lie outside the segment's values.
    pub fn rows(&self, section: &Section, name: &Arc<SegmentName>, bytes: Bytes) -> Result<Vec<Record>, FormatError> {
        if bytes.len() != in_memory(section.range.end - section.range.start)? {
            return Err(FormatError::Length);
        }
        check(&bytes, section.checksum)?;
        let mut input = Input::new(bytes);
        let mut records: Vec<Record> = Vec::new();
        while !input.is_empty() {
            let record = Record::read(&mut input, std::slice::from_ref(name))?;
            if let Some(Place::Packed { offset, .. }) = record.place
                && offset.checked_add(record.size).is_none_or(|end| end > self.rows_offset)
            {
                return Err(FormatError::Content("offset"));
            }
            let follows = records.last().is_none_or(|last| last.name < record.name);
            if !follows || !(section.oldest..=section.newest).contains(&record.version) {
                return Err(FormatError::Content("rows"));
            }
            records.push(record);
        }
        if records.len() == section.rows as usize { Ok(records) } else { Err(FormatError::Content("rows")) }
    }
}

impl Section {
    pub(super) fn write(&self, out: &mut BytesMut) {
        out.put_u32_le(self.partition);
        out.put_u64_le(self.epoch);
        out.put_u32_le(self.rows);
        out.put_u64_le(self.value_bytes);
        out.put_u64_le(self.oldest.0);
        out.put_u64_le(self.newest.0);
        out.put_u64_le(self.range.end - self.range.start);
        out.put_u64_le(self.range.start);
        out.put_u64_le(self.checksum);
    }

    fn read(input: &mut Input) -> Result<Self, FormatError> {
        let (partition, epoch, rows, value_bytes) = (input.u32()?, input.u64()?, input.u32()?, input.u64()?);
        let (oldest, newest) = (Version(input.u64()?), Version(input.u64()?));
        let (length, start) = (input.u64()?, input.u64()?);
        let end = start.checked_add(length).ok_or(FormatError::Length)?;
        Ok(Self { partition, epoch, rows, value_bytes, oldest, newest, range: start..end, checksum: input.u64()? })
    }
}
