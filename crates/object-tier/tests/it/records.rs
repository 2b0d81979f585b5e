//! Records as any node may have them.

use std::sync::Arc;

use bytes::Bytes;
use cairn_api_spec::Version;
use cairn_object_tier::{Origin, Place, Record, SegmentName, ValueName, checksum};
use proptest::{collection::vec, prelude::*};

pub(crate) fn origin(seq: u64) -> Origin {
    Origin { term: 1, node: "node-1".into(), session: 7, seq }
}

/// A row, its partition and its value.
#[derive(Clone, Debug)]
pub(crate) struct Sample {
    pub(crate) partition: u32,
    pub(crate) record: Record,
    pub(crate) value: Option<Bytes>,
}

/// Rows of a few partitions, each key once: deletions, values, and values with objects of their own.
pub(crate) fn samples() -> impl Strategy<Value = Vec<Sample>> {
    let row = (0_u32..4, 1_u64..1000, any::<Option<u64>>(), "[a-z/]{0,12}", vec(any::<u8>(), 0..200), 0_u8..8);
    vec(row, 0..40).prop_map(|rows| {
        let sample = |(number, (partition, version, expires_at, content_type, value, kind))| {
            sample(number, partition, Version(version), expires_at, content_type, value, kind)
        };
        rows.into_iter().enumerate().map(sample).collect()
    })
}

fn sample(
    number: usize,
    partition: u32,
    version: Version,
    expires_at: Option<u64>,
    content_type: String,
    value: Vec<u8>,
    kind: u8,
) -> Sample {
    let name = Bytes::from(format!("default\0key-{number}"));
    let own = || ValueName { partition, epoch: 3, version, origin: origin(number as u64) };
    let record = Record {
        version,
        modified_at: 1_700_000_000_000 + version.0,
        expires_at: expires_at.filter(|at| *at > 0),
        content_type,
        size: value.len() as u64,
        checksum: checksum(&name, version, &value),
        place: (kind == 1).then(|| Place::Object(Arc::new(own()))),
        name,
    };
    Sample { partition, record, value: (kind > 1).then(|| value.into()) }
}

/// The same as live rows that stand in segments, in objects of their own, and in those of earlier programs.
pub(crate) fn placed(samples: Vec<Sample>) -> Vec<Record> {
    let place = |(number, sample): (usize, Sample)| {
        let segment = Arc::new(SegmentName(origin(number as u64 % 5)));
        let place = match (number % 7, sample.record.place) {
            (0, None) => Place::Versioned,
            (_, None) => Place::Packed { segment, offset: number as u64 },
            (_, Some(own)) => own,
        };
        Record { place: Some(place), ..sample.record }
    };
    samples.into_iter().enumerate().map(place).collect()
}
