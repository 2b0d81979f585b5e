//! What a peer sends and this release cannot read is refused: nothing is stored in place of it.

use cairn_api_spec::peer::{Append, Place, Row};
use cairn_node::{cluster::follow, error::NodeError, tiers::disk};

fn row() -> Row {
    Row { name: "default\0k".into(), version: 1, size: 1, value: Some("1".into()), ..Row::default() }
}

fn append() -> Append {
    Append { partition: 0, epoch: 1, durability: 1, row: Some(row()), ..Append::default() }
}

fn is_refused<T>(result: &Result<T, NodeError>) -> bool {
    matches!(result, Err(NodeError::Transfer(_)))
}

#[test]
fn a_write_without_its_row_is_refused() {
    assert!(follow::write(append()).is_ok());
    assert!(is_refused(&follow::write(Append { row: None, ..append() })));
    let without_value = Row { value: None, ..row() };
    assert!(is_refused(&follow::write(Append { row: Some(without_value), ..append() })));
}

#[test]
fn a_write_of_an_unknown_durability_or_refusal_is_refused() {
    for unknown in [-1, 4, i32::MAX] {
        assert!(is_refused(&follow::write(Append { durability: unknown, ..append() })), "{unknown}");
        assert!(is_refused(&follow::write(Append { refused: unknown, ..append() })), "{unknown}");
    }
}

#[test]
fn a_row_without_a_readable_name_or_place_is_refused() {
    let read = |row| disk::Row::from_peer(row, 0, true);
    assert!(read(row()).is_ok());
    assert!(is_refused(&read(Row { name: "".into(), ..row() })));
    let place = Place { object: "no such kind of object".to_owned(), offset: 0 };
    assert!(is_refused(&read(Row { object_version: 1, place: Some(place), ..row() })));
}
