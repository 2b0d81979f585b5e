use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

use super::{FORMAT, Head, MAGIC, PAGE_BYTES};
use crate::{
    codec::{FormatError, put_short, stored},
    name::SegmentName,
    record::{Place, Record},
};

/// A checkpoint in the making.
pub struct Writer {
    head: Head,
    bytes: BytesMut,
    /// Where the page that is being filled begins.
    page: usize,
    page_rows: u32,
    rows: u64,
    pages: BytesMut,
    segments: Vec<Arc<SegmentName>>,
    numbers: HashMap<Arc<SegmentName>, u32>,
}

impl Writer {
    /// A checkpoint that lists nothing.
    pub fn new(head: Head) -> Self {
        Self {
            head,
            bytes: BytesMut::new(),
            page: 0,
            page_rows: 0,
            rows: 0,
            pages: BytesMut::new(),
            segments: Vec::new(),
            numbers: HashMap::new(),
        }
    }

    /// Rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Lists a live key. The order of rows does not matter; no key may be listed twice.
    ///
    /// # Errors
    /// [`FormatError::Content`] for a deletion, and for a version above the watermark.
    pub fn push(&mut self, record: &Record) -> Result<(), FormatError> {
        let number = match &record.place {
            None => return Err(FormatError::Content("place")),
            Some(Place::Packed { segment, .. }) => self.number(segment)?,
            Some(_) => 0,
        };
        if record.version > self.head.watermark {
            return Err(FormatError::Content("version"));
        }
        let before = self.bytes.len();
        if let Err(error) = record.write(&mut self.bytes, number) {
            self.bytes.truncate(before);
            return Err(error);
        }
        (self.rows, self.page_rows) = (self.rows + 1, self.page_rows + 1);
        if self.bytes.len() - self.page >= PAGE_BYTES {
            self.end_page();
        }
        Ok(())
    }

    fn number(&mut self, segment: &Arc<SegmentName>) -> Result<u32, FormatError> {
        let next = u32::try_from(self.segments.len()).map_err(|_| FormatError::Content("table of segments"))?;
        Ok(match self.numbers.entry(segment.clone()) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                self.segments.push(segment.clone());
                *new.insert(next)
            }
        })
    }

    fn end_page(&mut self) {
        if self.page_rows > 0 {
            self.pages.put_u32_le(self.page_rows);
            self.pages.put_u64_le(stored(self.bytes.len() - self.page));
            self.pages.put_u64_le(xxh3_64(&self.bytes[self.page..]));
            (self.page, self.page_rows) = (self.bytes.len(), 0);
        }
    }

    /// Completes the checkpoint.
    ///
    /// # Errors
    /// Never with records that [`Writer::push`] has taken.
    pub fn finish(mut self) -> Result<Bytes, FormatError> {
        self.end_page();
        let index_offset = stored(self.bytes.len());
        let mut index = BytesMut::new();
        index.put_u32_le(u32::try_from(self.segments.len()).map_err(|_| FormatError::Content("table of segments"))?);
        for segment in &self.segments {
            put_short(&mut index, segment.to_string().as_bytes(), "segment's name")?;
        }
        index.put_slice(&self.pages);
        self.bytes.put_slice(&index);
        let start = self.bytes.len();
        let Head { partition, watermark, epoch, covers } = self.head;
        for number in [watermark.0, epoch, covers, self.rows, index_offset, stored(index.len()), xxh3_64(&index)] {
            self.bytes.put_u64_le(number);
        }
        self.bytes.put_u32_le(partition);
        self.bytes.put_u16_le(FORMAT);
        let checksum = xxh3_64(&self.bytes[start..]);
        self.bytes.put_u64_le(checksum);
        self.bytes.put_slice(&MAGIC);
        Ok(self.bytes.freeze())
    }
}
