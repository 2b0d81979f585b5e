//! Requests that have waited for too long.

use cairn_api_spec::{Version, version::Condition};
use cairn_engine::{Loaded, Request};

use crate::alone::{Alone, get, put, with_key};

#[test]
fn nothing_is_kept_of_requests_that_have_waited_for_too_long() {
    let mut alone = Alone::new();
    alone.ask(0, with_key(put("value")));
    alone.recall(None);
    alone.load(&Ok(Loaded::Nothing));
    // Nobody hears of the disk again, while clients ask for the key, for the same write, and for another one.
    alone.ask(1, get());
    alone.ask(2, with_key(put("value")));
    alone.ask(3, Request { condition: Condition::Matches(Version(1)), ..put("other") });
    assert_eq!((alone.waiting(), alone.waiting_places()), (4, 4));
    alone.pass(5_200);
    assert_eq!(alone.answers.len(), 4);
    assert_eq!((alone.waiting(), alone.waiting_places()), (0, 0));
}
