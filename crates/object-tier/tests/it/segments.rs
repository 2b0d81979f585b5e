use std::{collections::BTreeMap, ops::Range};

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_object_tier::{
    FormatError, Place, Record, SegmentName, checksum,
    segment::{Builder, Built, CUT_BYTES, Directory, MAX_PACKED_BYTES, TRAILER_BYTES, Trailer},
};
use proptest::{prelude::*, sample::Index};

use crate::records::{Sample, origin, samples};

fn build(samples: &[Sample]) -> Built {
    let mut builder = Builder::new(SegmentName(origin(1)));
    for Sample { partition, record, value } in samples {
        builder.push(*partition, 3, record.clone(), value.as_deref()).unwrap();
    }
    builder.finish().unwrap()
}

fn part(bytes: &Bytes, range: Range<u64>) -> Bytes {
    bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap())
}

type Contents = BTreeMap<(u32, Bytes), (Record, Option<Bytes>)>;

/// Everything in a segment, by ranged reads, as long as each of them is right.
fn read(bytes: &Bytes) -> Result<Contents, FormatError> {
    let tail = bytes.slice(bytes.len().saturating_sub(TRAILER_BYTES)..);
    let trailer = Trailer::read(&tail, bytes.len() as u64)?;
    let directory = Directory::read(&trailer, &part(bytes, trailer.directory()))?;
    let name = SegmentName(origin(1)).into();
    let mut contents = Contents::new();
    for section in directory.sections() {
        for record in directory.rows(section, &name, part(bytes, section.range.clone()))? {
            let value = match record.place {
                Some(Place::Packed { offset, .. }) => Some(part(bytes, offset..offset + record.size)),
                _ => None,
            };
            if let Some(value) = &value {
                record.check_value(value)?;
            }
            contents.insert((section.partition, record.name.clone()), (record, value));
        }
    }
    Ok(contents)
}

proptest! {
    #[test]
    fn a_segment_is_read_as_it_was_built(samples in samples()) {
        let built = build(&samples);
        let contents = read(&built.bytes).unwrap();
        prop_assert_eq!(contents.len(), samples.len());
        for placed in &built.rows {
            let (record, _) = &contents[&(placed.partition, placed.record.name.clone())];
            prop_assert_eq!(record, &placed.record);
        }
        for sample in &samples {
            let (record, value) = &contents[&(sample.partition, sample.record.name.clone())];
            prop_assert_eq!(value, &sample.value);
            prop_assert_eq!(record.is_tombstone(), sample.value.is_none() && sample.record.place.is_none());
        }
    }

    #[test]
    fn a_directory_knows_the_versions_and_bytes_of_each_partition(samples in samples()) {
        let bytes = build(&samples).bytes;
        let trailer = Trailer::read(&bytes, bytes.len() as u64).unwrap();
        let directory = Directory::read(&trailer, &part(&bytes, trailer.directory())).unwrap();
        for section in directory.sections() {
            let rows = || samples.iter().filter(|sample| sample.partition == section.partition);
            prop_assert_eq!(rows().map(|sample| sample.record.version).min(), Some(section.oldest));
            prop_assert_eq!(rows().map(|sample| sample.record.version).max(), Some(section.newest));
            prop_assert_eq!(rows().count(), section.rows as usize);
            let packed: usize = rows().filter_map(|sample| sample.value.as_ref()).map(Bytes::len).sum();
            prop_assert_eq!(packed as u64, section.value_bytes);
            prop_assert_eq!(directory.section(section.partition), Some(section));
        }
    }

    #[test]
    fn a_flipped_bit_is_refused(samples in samples(), at: Index, bit in 0_u8..8) {
        let bytes = build(&samples).bytes;
        let at = at.index(bytes.len());
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << bit;
        prop_assert!(read(&damaged.into()).is_err());
    }

    #[test]
    fn a_truncated_segment_is_refused(samples in samples(), length: Index) {
        let bytes = build(&samples).bytes;
        prop_assert!(read(&bytes.slice(..length.index(bytes.len()))).is_err());
    }

    #[test]
    fn anything_else_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(read(&bytes.into()).is_err());
    }

    /// With a trailer that fits, so that the checksums are what refuses.
    #[test]
    fn the_parts_of_another_segment_are_refused(one in samples(), other in samples()) {
        let (one, other) = (build(&one).bytes, build(&other).bytes);
        prop_assume!(one != other);
        let trailer = Trailer::read(&one, one.len() as u64).unwrap();
        let theirs = Trailer::read(&other, other.len() as u64).unwrap();
        let directory = part(&other, theirs.directory());
        if part(&one, trailer.directory()) != directory {
            prop_assert!(Directory::read(&trailer, &directory).is_err());
        }
    }
}

fn record(name: &str, value: &[u8]) -> Record {
    let name = Bytes::copy_from_slice(name.as_bytes());
    Record {
        version: Version(1),
        modified_at: 0,
        expires_at: None,
        content_type: String::new(),
        size: value.len() as u64,
        checksum: checksum(&name, Version(1), value),
        place: None,
        name,
    }
}

#[test]
fn a_value_that_is_not_the_records_is_not_packed() {
    let mut builder = Builder::new(SegmentName(origin(1)));
    assert_eq!(builder.push(0, 1, record("a", b"good"), Some(b"evil")), Err(FormatError::Checksum));
    assert_eq!(builder.push(0, 1, record("a", b"good"), Some(b"short")), Err(FormatError::Length));
    let large = vec![0; MAX_PACKED_BYTES + 1];
    assert_eq!(builder.push(0, 1, record("a", &large), Some(&large)), Err(FormatError::Length));
    assert!(builder.is_empty());
}

#[test]
fn a_key_stands_in_a_segment_once_and_a_partition_under_one_epoch() {
    let mut builder = Builder::new(SegmentName(origin(1)));
    builder.push(0, 1, record("a", b"x"), Some(b"x")).unwrap();
    assert!(builder.push(0, 1, record("a", b"x"), Some(b"x")).is_err());
    assert!(builder.push(0, 2, record("b", b"x"), Some(b"x")).is_err());
    builder.push(1, 2, record("b", b"x"), Some(b"x")).unwrap();
    assert_eq!(builder.finish().unwrap().rows.len(), 2);
}

#[test]
fn a_row_without_its_value_does_not_refer_to_a_segment() {
    let mut builder = Builder::new(SegmentName(origin(1)));
    let place = Some(Place::Packed { segment: SegmentName(origin(9)).into(), offset: 0 });
    assert!(builder.push(0, 1, Record { place, ..record("a", b"x") }, None).is_err());
    assert!(builder.push(0, 1, Record { place: Some(Place::Versioned), ..record("a", b"x") }, None).is_err());
}

#[test]
fn a_segment_is_full_at_eight_mebibytes() {
    let mut builder = Builder::new(SegmentName(origin(1)));
    let value = vec![7; MAX_PACKED_BYTES];
    for number in 0..CUT_BYTES / MAX_PACKED_BYTES {
        assert!(!builder.is_full());
        builder.push(0, 1, record(&number.to_string(), &value), Some(&value)).unwrap();
    }
    assert!(builder.is_full());
}
