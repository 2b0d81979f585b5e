//! What a partition keeps of writes that are not everywhere.

use std::sync::Arc;

use cairn_engine::{Error, Loaded, Request, Room};

use crate::alone::{Alone, put};

#[test]
fn a_write_that_the_disk_has_takes_no_room_in_its_queue_while_a_copy_lacks_it() {
    let mut alone = Alone::new();
    alone.add_learner();
    let room: Room = Arc::new(());
    let queued = Arc::downgrade(&room);
    alone.ask(0, Request { room: Some(room), ..put("value") });
    alone.load(&Ok(Loaded::Nothing));
    assert!(queued.upgrade().is_some());
    drop(alone.store(&Ok(())));
    assert!(alone.answer(0).is_none(), "the copy does not answer");
    assert!(queued.upgrade().is_none());
}

#[test]
fn a_partition_that_keeps_too_many_bytes_takes_no_write_until_they_are_everywhere() {
    let mut alone = Alone::new();
    let mib = "v".repeat(1 << 20);
    alone.ask(0, put(&mib));
    alone.load(&Ok(Loaded::Nothing));
    (1..16).for_each(|number| alone.ask(number, put(&mib)));
    alone.ask(16, put("small"));
    assert!(matches!(alone.answer(16), Some(Err(Error::Overloaded(_)))));
    (0..16).for_each(|_| drop(alone.store(&Ok(()))));
    assert_eq!(alone.answers.len(), 16);
    alone.ask(17, put("small"));
    drop(alone.store(&Ok(())));
    assert!(matches!(alone.answer(17), Some(Ok(_))));
}
