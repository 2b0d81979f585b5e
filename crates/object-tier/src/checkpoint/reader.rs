use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use cairn_api_spec::Version;

use super::{FORMAT, Head, MAGIC, TRAILER_BYTES};
use crate::{
    codec::{FormatError, Input, check, in_memory, stored},
    name::SegmentName,
    record::Record,
};

/// The end of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// What it says of itself.
    pub head: Head,
    /// How many keys it lists.
    pub rows: u64,
    index: Range<u64>,
    checksum: u64,
}

/// Which segments a checkpoint refers to, and where its pages are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// The segments, each once.
    pub segments: Vec<Arc<SegmentName>>,
    /// The pages, one behind the other from the checkpoint's first byte on.
    pub pages: Vec<Page>,
    watermark: Version,
}

/// Some of a checkpoint's rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// How many.
    pub rows: u32,
    /// Where in the checkpoint.
    pub range: Range<u64>,
    checksum: u64,
}

impl Trailer {
    /// Reads the last bytes of a checkpoint that is `length` long: at least [`TRAILER_BYTES`] of them.
    ///
    /// # Errors
    /// When they are not the end of a checkpoint of that length.
    pub fn read(tail: &[u8], length: u64) -> Result<Self, FormatError> {
        let start = tail.len().checked_sub(TRAILER_BYTES).ok_or(FormatError::Length)?;
        let trailer = &tail[start..];
        let mut input = Input::new(Bytes::copy_from_slice(trailer));
        let (watermark, epoch, covers, rows) = (Version(input.u64()?), input.u64()?, input.u64()?, input.u64()?);
        let (offset, index_length, index_checksum) = (input.u64()?, input.u64()?, input.u64()?);
        let (partition, format, checksum) = (input.u32()?, input.u16()?, input.u64()?);
        if *input.take(MAGIC.len())? != MAGIC {
            return Err(FormatError::Magic);
        }
        check(&trailer[..TRAILER_BYTES - MAGIC.len() - 8], checksum)?;
        if format != FORMAT {
            return Err(FormatError::Version(format));
        }
        let end = offset.checked_add(index_length).ok_or(FormatError::Length)?;
        if end.checked_add(stored(TRAILER_BYTES)) != Some(length) {
            return Err(FormatError::Length);
        }
        let head = Head { partition, watermark, epoch, covers };
        Ok(Self { head, rows, index: offset..end, checksum: index_checksum })
    }

    /// Where in the checkpoint the index is.
    pub fn index(&self) -> Range<u64> {
        self.index.clone()
    }
}

impl Index {
    /// Reads the bytes at [`Trailer::index`].
    ///
    /// # Errors
    /// When they are not that checkpoint's index.
    pub fn read(trailer: &Trailer, bytes: &Bytes) -> Result<Self, FormatError> {
        if stored(bytes.len()) != trailer.index.end - trailer.index.start {
            return Err(FormatError::Length);
        }
        check(bytes, trailer.checksum)?;
        let mut input = Input::new(bytes.clone());
        let mut segments = Vec::new();
        for _ in 0..input.u32()? {
            let name = input.text("segment's name")?.parse::<SegmentName>();
            segments.push(Arc::new(name.map_err(|_| FormatError::Content("segment's name"))?));
        }
        let (mut pages, mut end, mut rows) = (Vec::new(), 0_u64, 0_u64);
        while !input.is_empty() {
            let (page_rows, length, checksum) = (input.u32()?, input.u64()?, input.u64()?);
            let start = end;
            end = start.checked_add(length).ok_or(FormatError::Length)?;
            rows = rows.saturating_add(page_rows.into());
            pages.push(Page { rows: page_rows, range: start..end, checksum });
        }
        if end != trailer.index.start || rows != trailer.rows {
            return Err(FormatError::Content("directory"));
        }
        Ok(Self { segments, pages, watermark: trailer.head.watermark })
    }

    /// Reads a page of this checkpoint, from the bytes at [`Page::range`].
    ///
    /// # Errors
    /// When they are not that page.
    pub fn rows(&self, page: &Page, bytes: Bytes) -> Result<Vec<Record>, FormatError> {
        if bytes.len() != in_memory(page.range.end - page.range.start)? {
            return Err(FormatError::Length);
        }
        check(&bytes, page.checksum)?;
        let mut input = Input::new(bytes);
        let mut records = Vec::new();
        while !input.is_empty() {
            let record = Record::read(&mut input, &self.segments)?;
            if record.is_tombstone() || record.version > self.watermark {
                return Err(FormatError::Content("rows"));
            }
            records.push(record);
        }
        if records.len() == page.rows as usize { Ok(records) } else { Err(FormatError::Content("rows")) }
    }
}
