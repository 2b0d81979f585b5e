//! What the disks of stopped nodes hold: in-sync copies must be the same.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use cairn_api_spec::cluster::Ring;
use sqlx::{Connection, Row, SqliteConnection, sqlite::SqliteConnectOptions};

/// The rows of a partition, by name.
type Rows = BTreeMap<Vec<u8>, Held>;

/// What a copy holds of a key.
#[derive(Debug, PartialEq)]
struct Held {
    version: i64,
    tombstone: bool,
    expires_at: Option<i64>,
    content_type: String,
    /// `None` when only the object store has it.
    value: Option<Vec<u8>>,
}

/// Every difference between the in-sync copies of the same partition. `directory` gives that of a node's data.
pub(crate) async fn differences(ring: &Ring, directories: &BTreeMap<String, &Path>) -> Vec<String> {
    let mut nodes = BTreeMap::new();
    for (node, directory) in directories {
        nodes.insert(node.as_str(), rows(directory).await);
    }
    let nothing = Rows::new();
    let mut found = Vec::new();
    for partition in &ring.partitions {
        let copies = partition.in_sync.iter().filter_map(|node| {
            let rows = nodes.get(node.as_str())?;
            Some((node, rows.get(&partition.id).unwrap_or(&nothing)))
        });
        let copies: Vec<_> = copies.collect();
        for pair in copies.windows(2) {
            let [(one, left), (other, right)] = pair else { continue };
            let names: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).collect();
            for name in names.into_iter().filter(|name| !agree(left.get(*name), right.get(*name))) {
                let name_text = String::from_utf8_lossy(name);
                let (left, right) = (shown(left.get(name)), shown(right.get(name)));
                found.push(format!("partition {}, {name_text:?}: {one} has {left}, {other} has {right}", partition.id));
            }
        }
    }
    found
}

fn agree(left: Option<&Held>, right: Option<&Held>) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    // Each collects tombstones in its own time, and may have died before it swept what expired.
    let is_gone = |held: &Held| held.tombstone || held.expires_at.is_some_and(|at| at <= now);
    if [left, right].into_iter().flatten().all(is_gone) {
        return true;
    }
    match (left, right) {
        (Some(left), Some(right)) => {
            let (one, other) = (left.value.as_ref(), right.value.as_ref());
            let same_value = one.is_none() || other.is_none() || one == other;
            let described = |held: &Held| (held.version, held.tombstone, held.expires_at, held.content_type.clone());
            same_value && described(left) == described(right)
        }
        _ => false,
    }
}

fn shown(held: Option<&Held>) -> String {
    held.map_or("nothing".to_owned(), |held| {
        let value =
            held.value.as_ref().map(|value| String::from_utf8_lossy(&value[..value.len().min(20)]).into_owned());
        format!("version {}, tombstone {}, value {value:?}", held.version, held.tombstone)
    })
}

/// The rows of a node, by partition.
async fn rows(directory: &Path) -> BTreeMap<u32, Rows> {
    // Not read-only: what a killed process left in the write-ahead log must be taken in.
    let options = SqliteConnectOptions::new().filename(directory.join("data.sqlite"));
    let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
    let query = "SELECT partition, name, version, tombstone, expires_at, content_type, value FROM entries";
    let mut partitions: BTreeMap<u32, Rows> = BTreeMap::new();
    for row in sqlx::query(query).fetch_all(&mut connection).await.unwrap() {
        let held = Held {
            version: row.get(2),
            tombstone: row.get(3),
            expires_at: row.get(4),
            content_type: row.get(5),
            value: row.get(6),
        };
        partitions.entry(row.get(0)).or_default().insert(row.get(1), held);
    }
    connection.close().await.unwrap();
    partitions
}
