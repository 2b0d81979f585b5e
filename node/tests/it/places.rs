//! What the disk knows of the object store.

use bytes::Bytes;
use cairn_api_spec::{Version, operation::Metadata};
use cairn_engine::checksum;
use cairn_node::tiers::disk::{Mark, Packed, Row};
use cairn_object_tier::{Origin, Place, SegmentName};

use crate::support::TestStore;

const ROWS: u64 = 1_000;

fn name(number: u64) -> Bytes {
    format!("default\0key {number}").into()
}

fn place(number: u64) -> Place {
    let origin = Origin { term: 1, node: "node".into(), session: 1, seq: number / 100 };
    Place::Packed { segment: SegmentName(origin).into(), offset: number * 3_000 }
}

fn row(number: u64) -> Row {
    let (name, version, value) = (name(number), Version(number + 1), Bytes::from(vec![7; 3_000]));
    Row {
        partition: 0,
        metadata: Metadata {
            version,
            modified_at: 1,
            expires_at: None,
            size: value.len() as u64,
            content_type: String::new(),
        },
        checksum: checksum(&name, version, &value),
        tombstone: false,
        dirty: true,
        object_version: Version::NONE,
        place: None,
        value: Some(value),
        name,
    }
}

async fn stored() -> TestStore {
    let store = TestStore::open(10).await;
    store.driver.disk.ingest((0..ROWS).map(row).collect()).await.unwrap();
    store
}

fn marks(version: impl Fn(u64) -> Version) -> Vec<Mark> {
    (0..ROWS).map(|number| Mark { name: name(number), version: version(number), place: Some(place(number)) }).collect()
}

#[tokio::test]
async fn values_that_leave_the_disk_leave_their_pages_and_keep_their_places() {
    let store = stored().await;
    let disk = &store.driver.disk;
    disk.mark_uploaded(marks(|number| Version(number + 1))).await.unwrap();
    let before = disk.used_bytes().await.unwrap();
    let rows = disk.values_from(0, true, 2_000).await.unwrap();
    let offloaded = disk.offload(rows.into_iter().map(|(id, _, version, _)| (id, version)).collect()).await.unwrap();
    assert_eq!(offloaded, ROWS);
    let after = disk.used_bytes().await.unwrap();
    assert!(after * 5 < before, "{before} bytes before, {after} after");
    for number in [0, 99, 100, 999] {
        let row = disk.load(name(number), true).await.unwrap().unwrap();
        assert_eq!((row.value.clone(), row.metadata.version), (None, Version(number + 1)));
        assert_eq!(disk.place(&row).await.unwrap(), Some(place(number)));
    }
}

#[tokio::test]
async fn only_the_version_that_was_uploaded_counts() {
    let store = stored().await;
    let disk = &store.driver.disk;
    disk.mark_uploaded(marks(|number| Version(number + 1 - number % 2))).await.unwrap();
    assert_eq!(disk.dirty(&[0], 10_000).await.unwrap().len() as u64, ROWS / 2);
    assert_eq!(disk.oldest_waiting(0).await.unwrap(), Some(Version(2)));
    let rows = disk.scan_places(0, 0, 10_000).await.unwrap().0;
    assert!(rows.iter().all(|row| row.place.is_some() != row.dirty));
}

#[tokio::test]
async fn a_row_that_is_removed_leaves_no_place_behind() {
    let store = stored().await;
    let disk = &store.driver.disk;
    disk.mark_uploaded(marks(|number| Version(number + 1))).await.unwrap();
    disk.drop_partition(0).await.unwrap();
    disk.ingest((0..ROWS).map(row).collect()).await.unwrap();
    let rows = disk.scan_places(0, 0, 10_000).await.unwrap().0;
    assert!(rows.iter().all(|row| row.dirty && row.place.is_none()));
}

#[tokio::test]
async fn a_copied_row_does_not_undo_an_upload_that_is_known_here() {
    let store = stored().await;
    let disk = &store.driver.disk;
    disk.mark_uploaded(marks(|number| Version(number + 1))).await.unwrap();
    // Another copy has not heard of the upload: it knows of that of an earlier version only.
    let page = (1..ROWS).map(|number| Row { object_version: Version(number), ..row(number) }).collect();
    disk.ingest(page).await.unwrap();
    let rows = disk.scan_places(0, 0, 10_000).await.unwrap().0;
    assert_eq!(rows.iter().filter(|row| row.place.is_some()).count() as u64, ROWS);
}

#[tokio::test]
async fn a_segment_is_known_by_the_bytes_that_are_current_in_it() {
    let store = stored().await;
    let disk = &store.driver.disk;
    disk.mark_uploaded(marks(|number| Version(number + 1))).await.unwrap();
    let live = async |partitions: &[u32]| {
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            let (page, next) = disk.live_in_segments(partitions, cursor, 3).await.unwrap();
            all.extend(page.into_iter().map(|(name, live)| (name.0.seq, live)));
            cursor = next;
            if next == 0 {
                return all;
            }
        }
    };
    assert_eq!(live(&[0]).await, (0..10).map(|seq| (seq, 300_000)).collect::<Vec<_>>());
    assert!(live(&[1]).await.iter().all(|(_, live)| *live == 0));

    // All of the first segment is overwritten, and a tenth of the second is removed.
    let newer = |number| {
        let version = Version(number + 10_001);
        let value = Bytes::from(vec![8; 3_000]);
        let metadata = Metadata { version, ..row(number).metadata };
        Row { metadata, checksum: checksum(&name(number), version, &value), value: Some(value), ..row(number) }
    };
    disk.ingest((0..100).map(newer).collect()).await.unwrap();
    disk.remove_names((100..110).map(|number| (name(number), Version(number + 1))).collect()).await.unwrap();
    assert_eq!(live(&[0]).await[..3], [(0, 0), (1, 270_000), (2, 300_000)]);
    let Place::Packed { segment, offset } = place(110) else { unreachable!() };
    let mut packed = disk.packed_in(&segment, &[0]).await.unwrap();
    packed.sort_by_key(|packed| packed.version);
    assert_eq!((packed.len(), &packed[0]), (90, &Packed { name: name(110), version: Version(111), offset }));

    // A row that was overwritten keeps the place of its former version until the new one has one.
    disk.remove_names((0..100).map(|number| (name(number), Version(number + 10_001))).collect()).await.unwrap();
    disk.forget_objects().await.unwrap();
    assert_eq!(live(&[0]).await[..2], [(1, 270_000), (2, 300_000)]);
}

#[tokio::test]
async fn an_older_row_that_comes_late_does_not_change_what_is_known_of_the_newer_one() {
    let store = stored().await;
    let disk = &store.driver.disk;
    disk.mark_uploaded(marks(|number| Version(number + 1))).await.unwrap();
    let older = Row { dirty: false, object_version: Version(1), ..row(0) };
    let newer = Row { metadata: Metadata { version: Version(5_000), ..row(0).metadata }, ..row(0) };
    disk.ingest(vec![newer]).await.unwrap();
    let mark = Mark { name: name(0), version: Version(5_000), place: Some(place(7)) };
    disk.mark_uploaded(vec![mark]).await.unwrap();
    disk.ingest(vec![Row { place: Some(place(0)), ..older }]).await.unwrap();
    let row = disk.load(name(0), true).await.unwrap().unwrap();
    assert_eq!((row.metadata.version, row.object_version), (Version(5_000), Version(5_000)));
    assert_eq!(disk.place(&row).await.unwrap(), Some(place(7)));
}
