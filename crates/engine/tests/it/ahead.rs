//! What a learner is told of writes that the primary's disk has refused.

use cairn_api_spec::{operation::Durability, version::Condition};
use cairn_engine::{Loaded, Request, TierError};

use crate::alone::{Alone, put, with_key};

fn in_memory(request: Request) -> Request {
    Request { durability: Durability::Memory, ..request }
}

#[test]
fn a_learner_is_told_which_answered_writes_the_disk_has_refused() {
    let broken = TierError::Disk("no space left on device".to_owned());
    let mut alone = Alone::new();
    alone.ask(0, in_memory(put("first")));
    alone.load(&Ok(Loaded::Nothing));
    drop(alone.store(&Ok(())));
    assert!(alone.ahead().is_empty());
    alone.ask(1, in_memory(put("second")));
    alone.ask(2, in_memory(put("third")));
    alone.ask(3, with_key(Request { condition: Condition::Absent, ..put("refused") }));
    alone.recall(None);
    alone.store(&Err(broken.clone()));
    let third = alone.store(&Err(broken.clone())).version;
    alone.store(&Err(broken));
    assert_eq!(alone.ahead(), [third.0], "the newest of the key");
    alone.add_learner();
    assert_eq!(alone.ahead(), [third.0]);
    (0..3).for_each(|_| drop(alone.store(&Ok(()))));
    assert!(alone.ahead().is_empty());
}
