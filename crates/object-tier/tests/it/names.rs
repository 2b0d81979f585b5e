use cairn_api_spec::Version;
use cairn_object_tier::{CheckpointName, Origin, SegmentName, ValueName};
use proptest::prelude::*;

fn origins() -> impl Strategy<Value = Origin> {
    (any::<u64>(), "[a-zA-Z0-9._-]{1,63}", any::<u64>(), any::<u64>()).prop_map(|(term, node, session, seq)| Origin {
        term,
        node: node.into(),
        session,
        seq,
    })
}

proptest! {
    #[test]
    fn names_are_read_as_they_are_written(origin in origins(), partition: u32, epoch: u64, version: u64) {
        let version = Version(version);
        let segment = SegmentName(origin.clone());
        let value = ValueName { partition, epoch, version, origin: origin.clone() };
        let checkpoint = CheckpointName { partition, watermark: version, epoch, origin };
        prop_assert_eq!(segment.to_string().parse(), Ok(segment.clone()));
        prop_assert_eq!(value.to_string().parse(), Ok(value.clone()));
        prop_assert_eq!(checkpoint.to_string().parse(), Ok(checkpoint));
        prop_assert!(segment.to_string().parse::<ValueName>().is_err());
        prop_assert!(value.to_string().parse::<CheckpointName>().is_err());
    }

    #[test]
    fn a_name_has_one_spelling(text in "(segments|values|checkpoints)(/[0-9a-z+._-]{0,4}){2,6}") {
        if let Ok(name) = text.parse::<SegmentName>() {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        if let Ok(name) = text.parse::<ValueName>() {
            prop_assert_eq!(name.to_string(), text.clone());
        }
        if let Ok(name) = text.parse::<CheckpointName>() {
            prop_assert_eq!(name.to_string(), text);
        }
    }
}

#[test]
fn names_say_who_wrote_what() {
    let origin = Origin { term: 2, node: "node-1".into(), session: 1_700_000_000_000, seq: 17 };
    assert_eq!(SegmentName(origin.clone()).to_string(), "segments/2/node-1/1700000000000-17");
    let checkpoint = CheckpointName { partition: 9, watermark: Version(5), epoch: 4, origin: origin.clone() };
    assert_eq!(checkpoint.to_string(), "checkpoints/9/5/4/2/node-1/1700000000000-17");
    let value = ValueName { partition: 9, epoch: 4, version: Version(5), origin };
    assert_eq!(value.to_string(), "values/9/4/5/2/node-1/1700000000000-17");
}

#[test]
fn other_spellings_are_refused() {
    for text in ["segments/01/a/1-1", "segments/1/a/1-+1", "segments/1//1-1", "segments/1/a/1", "segments/1/a b/1-1"] {
        assert!(text.parse::<SegmentName>().is_err(), "{text}");
    }
}
