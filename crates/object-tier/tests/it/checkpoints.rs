use std::ops::Range;

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_object_tier::{
    FormatError, Place, Record, SegmentName,
    checkpoint::{Head, Index, PAGE_BYTES, TAIL_BYTES, TRAILER_BYTES, Trailer, Writer},
};
use proptest::{prelude::*, sample};

use crate::records::{origin, placed, samples};

const HEAD: Head = Head { partition: 9, watermark: Version(1000), epoch: 3, covers: 17 };

fn write(records: &[Record]) -> Bytes {
    let mut writer = Writer::new(HEAD);
    records.iter().for_each(|record| writer.push(record).unwrap());
    assert_eq!(writer.rows(), records.len() as u64);
    writer.finish().unwrap()
}

fn part(bytes: &Bytes, range: Range<u64>) -> Bytes {
    bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

fn index(bytes: &Bytes) -> Result<(Head, Index), FormatError> {
    let tail = bytes.slice(bytes.len().saturating_sub(TRAILER_BYTES)..);
    let trailer = Trailer::read(&tail, bytes.len() as u64)?;
    Ok((trailer.head, Index::read(&trailer, &part(bytes, trailer.index()))?))
}

fn read(bytes: &Bytes) -> Result<Vec<Record>, FormatError> {
    let (_, index) = index(bytes)?;
    let mut records = Vec::new();
    for page in &index.pages {
        records.extend(index.rows(page, part(bytes, page.range.clone()))?);
    }
    Ok(records)
}

proptest! {
    #[test]
    fn a_checkpoint_is_read_as_it_was_written(samples in samples()) {
        let records = placed(samples);
        let bytes = write(&records);
        prop_assert_eq!(&read(&bytes).unwrap(), &records);
        let (head, index) = index(&bytes).unwrap();
        prop_assert_eq!(head, HEAD);
        let refers = |segment: &SegmentName| records.iter().any(|record| {
            matches!(&record.place, Some(Place::Packed { segment: of, .. }) if **of == *segment)
        });
        for segment in (0..5).map(|seq| SegmentName(origin(seq))) {
            let is_listed = index.segments.iter().any(|listed| **listed == segment);
            prop_assert_eq!(is_listed, refers(&segment));
        }
    }

    #[test]
    fn a_flipped_bit_is_refused(samples in samples(), at: sample::Index, bit in 0_u8..8) {
        let bytes = write(&placed(samples));
        let mut damaged = bytes.to_vec();
        damaged[at.index(bytes.len())] ^= 1 << bit;
        prop_assert!(read(&damaged.into()).is_err());
    }

    #[test]
    fn a_truncated_checkpoint_is_refused(samples in samples(), length: sample::Index) {
        let bytes = write(&placed(samples));
        prop_assert!(read(&bytes.slice(..length.index(bytes.len()))).is_err());
    }

    #[test]
    fn anything_else_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes.into()).is_err());
    }
}

fn record(number: u64) -> Record {
    Record {
        name: format!("default\0key-{number}").into(),
        version: Version(number % 1000),
        modified_at: 1_700_000_000_000,
        expires_at: None,
        content_type: String::new(),
        size: 100,
        checksum: number,
        place: Some(Place::Packed { segment: SegmentName(origin(number / 1000)).into(), offset: number }),
    }
}

#[test]
fn a_hundred_thousand_keys_are_read_by_pages() {
    let records: Vec<Record> = (0..100_000).map(record).collect();
    let bytes = write(&records);
    let (_, index) = index(&bytes).unwrap();
    assert_eq!(index.segments.len(), 100);
    assert!(index.pages.iter().all(|page| page.range.end - page.range.start < 2 * PAGE_BYTES as u64));
    assert!(index.pages.len() > 10);
    // One request brings everything but the pages.
    assert!(bytes.len() as u64 - index.pages.last().unwrap().range.end < TAIL_BYTES);
    assert_eq!(read(&bytes).unwrap(), records);
}

#[test]
fn deletions_and_versions_above_the_watermark_are_not_listed() {
    let mut writer = Writer::new(HEAD);
    assert!(writer.push(&Record { place: None, ..record(1) }).is_err());
    assert!(writer.push(&Record { version: Version(1001), ..record(1) }).is_err());
    writer.push(&Record { version: Version(1000), ..record(1) }).unwrap();
    assert_eq!(read(&writer.finish().unwrap()).unwrap().len(), 1);
}
