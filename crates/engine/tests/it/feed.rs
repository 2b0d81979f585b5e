//! What those who have subscribed to a partition are told.

use cairn_api_spec::{Version, operation::Removal, version::Condition};
use cairn_engine::{Change, Loaded, Request, TierError, Verb};

use crate::alone::{Alone, name, put, with_key};

/// What was published so far: of each change its version and why the key went, if it did.
fn published(alone: &mut Alone) -> Vec<(Version, Option<Removal>)> {
    let told = |change: Change| match change {
        Change::Put(entry) => (entry.version(), None),
        Change::Delete { version, why, .. } => (version, Some(why)),
        Change::Note { .. } => panic!("a note changes no key"),
    };
    std::mem::take(&mut alone.published).into_iter().map(told).collect()
}

#[test]
fn a_change_is_told_when_reads_see_it_and_with_why_the_key_went() {
    let mut alone = Alone::new();
    alone.ask(0, put("1"));
    alone.load(&Ok(Loaded::Nothing));
    assert_eq!(published(&mut alone), [], "the disk does not have it");
    let stored = alone.store(&Ok(())).version;
    assert_eq!(published(&mut alone), [(stored, None)]);
    let mut last = stored;
    for (verb, why) in [
        (Verb::Delete, Removal::Delete),
        (Verb::Remove(Version::NONE, Removal::Expire), Removal::Expire),
        (Verb::Remove(Version::NONE, Removal::Evict), Removal::Evict),
    ] {
        let verb = match verb {
            Verb::Remove(_, why) => Verb::Remove(last, why),
            other => other,
        };
        alone.ask(1, Request::new(name(), verb));
        let gone = alone.store(&Ok(())).version;
        assert_eq!(published(&mut alone), [(gone, Some(why))]);
        alone.ask(2, put("1"));
        alone.load(&Ok(Loaded::Nothing));
        last = alone.store(&Ok(())).version;
        published(&mut alone);
    }
}

#[test]
fn what_was_refused_or_could_not_be_stored_is_not_told() {
    let mut alone = Alone::new();
    alone.ask(0, put("1"));
    alone.load(&Ok(Loaded::Nothing));
    alone.store(&Ok(()));
    published(&mut alone);
    alone.ask(1, with_key(Request { condition: Condition::Absent, ..put("2") }));
    alone.recall(None);
    alone.store(&Ok(()));
    alone.ask(2, put("3"));
    alone.store(&Err(TierError::Disk("input/output error".to_owned())));
    assert_eq!(published(&mut alone), []);
}
