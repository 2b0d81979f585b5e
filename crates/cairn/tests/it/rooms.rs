//! Dependencies between the rooms run one way (ARCHITECTURE.md).

use std::{collections::BTreeSet, path::Path};

/// Each room, and the rooms that it may look into.
const ROOMS: [(&str, &[&str]); 10] = [
    ("api-spec", &[]),
    ("crates/link", &[]),
    ("crates/placement", &["api-spec"]),
    ("crates/replication", &["api-spec"]),
    ("crates/server-kit", &["api-spec"]),
    ("crates/data-api", &["api-spec", "server-kit"]),
    ("client-sdk", &["api-spec"]),
    ("master", &["api-spec", "data-api", "link", "placement", "server-kit"]),
    ("node", &["api-spec", "data-api", "link", "replication", "server-kit"]),
    ("crates/cairn", &["api-spec", "client-sdk", "master", "node", "server-kit"]),
];

#[test]
fn no_room_looks_into_one_that_it_must_not_know() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    for (room, allowed) in ROOMS {
        let manifest = std::fs::read_to_string(root.join(room).join("Cargo.toml")).unwrap();
        let manifest: toml::Table = manifest.parse().unwrap();
        let ours: BTreeSet<&str> = manifest["dependencies"]
            .as_table()
            .unwrap()
            .keys()
            .filter_map(|name| name.strip_prefix("cairn-"))
            .collect();
        let allowed = allowed.iter().copied().collect();
        assert_eq!(ours, allowed, "{room}");
    }
}
