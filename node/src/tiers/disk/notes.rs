//! Notes of what the object store has, of many rows by few statements.

use std::collections::HashMap;

use cairn_api_spec::Version;
use sqlx::SqliteConnection;

use super::places::{Mark, to_peer};

/// Rows noted by one statement.
const CHUNK: usize = 1_000;

/// The rows come as JSON, `[name in hex, version, object_version]`. A key that has moved on to another version is left alone.
const NOTE: &str = "UPDATE entries SET object_version = j.value ->> 2 FROM json_each(?) j \
     WHERE entries.name = unhex(j.value ->> 0) AND entries.version = j.value ->> 1";
const SETTLE: &str = "UPDATE entries SET object_version = j.value ->> 2, dirty = 0 FROM json_each(?) j \
     WHERE entries.name = unhex(j.value ->> 0) AND entries.version = j.value ->> 1";
/// Likewise, `[name in hex, version, object, offset]`.
const PLACE: &str = "INSERT OR REPLACE INTO places (id, version, object, offset) \
     SELECT e.id, e.version, j.value ->> 2, j.value ->> 3 FROM json_each(?) j \
     CROSS JOIN entries e ON e.name = unhex(j.value ->> 0) AND e.version = j.value ->> 1";

/// Notes what the object store has, by exact versions; if `settles`, those rows wait for their upload no more.
pub(super) async fn note(connection: &mut SqliteConnection, marks: &[Mark], settles: bool) -> Result<(), sqlx::Error> {
    let mut objects = HashMap::new();
    for chunk in marks.chunks(CHUNK) {
        let (mut rows, mut places) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        for mark in chunk {
            let (name, version) = (hex(&mark.name), mark.version.0.cast_signed());
            let object_version = if mark.place.is_some() { mark.version } else { Version::NONE };
            rows.push(format!("[\"{name}\",{version},{}]", object_version.0));
            if let Some(place) = mark.place.as_ref().and_then(to_peer) {
                let object = match objects.get(&place.object) {
                    Some(object) => *object,
                    None => object_id(connection, &mut objects, place.object).await?,
                };
                places.push(format!("[\"{name}\",{version},{object},{}]", place.offset.cast_signed()));
            }
        }
        let noting = if settles { SETTLE } else { NOTE };
        for (statement, rows) in [(noting, rows), (PLACE, places)] {
            if !rows.is_empty() {
                sqlx::query(statement).bind(format!("[{}]", rows.join(","))).execute(&mut *connection).await?;
            }
        }
    }
    Ok(())
}

async fn object_id(
    connection: &mut SqliteConnection,
    known: &mut HashMap<String, i64>,
    object: String,
) -> Result<i64, sqlx::Error> {
    sqlx::query("INSERT INTO objects (name) VALUES (?) ON CONFLICT DO NOTHING")
        .bind(&object)
        .execute(&mut *connection)
        .await?;
    let id = sqlx::query_scalar("SELECT id FROM objects WHERE name = ?").bind(&object).fetch_one(connection).await?;
    known.insert(object, id);
    Ok(id)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}
