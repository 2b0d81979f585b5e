//! Dependencies between the rooms run one way (ARCHITECTURE.md): between crates, and between the rooms inside a server.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

/// Each crate, and the crates that it may look into.
const ROOMS: [(&str, &[&str]); 13] = [
    ("api-spec", &[]),
    ("crates/link", &[]),
    ("crates/object-tier", &["api-spec"]),
    ("crates/placement", &["api-spec"]),
    ("crates/replication", &["api-spec"]),
    ("crates/engine", &["api-spec", "replication"]),
    ("crates/server-kit", &["api-spec"]),
    ("crates/operations", &["api-spec"]),
    ("crates/data-api", &["api-spec", "operations", "server-kit"]),
    ("client-sdk", &["api-spec"]),
    ("master", &["api-spec", "data-api", "link", "operations", "placement", "server-kit"]),
    ("node", &["api-spec", "data-api", "engine", "link", "object-tier", "operations", "replication", "server-kit"]),
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

/// The rooms of the master, and those that each looks into: all of them stand above it.
const MASTER: [(&str, &[&str]); 18] = [
    ("clock", &[]),
    ("config", &[]),
    ("meter", &[]),
    ("metastore", &[]),
    ("resolver", &[]),
    ("ring", &[]),
    ("error", &["metastore"]),
    ("map", &["metastore"]),
    ("validation", &["error", "resolver"]),
    ("registry", &["error", "metastore", "meter", "resolver", "validation"]),
    ("rebalance", &["config", "error", "metastore"]),
    ("plan", &["map", "rebalance", "registry"]),
    ("cluster", &["error", "rebalance", "registry", "ring"]),
    // Written, and shown to Prometheus: nobody reads state back from them.
    ("metrics", &["cluster"]),
    ("controller", &["clock", "cluster", "error", "map", "metastore", "metrics", "plan", "rebalance", "registry"]),
    ("gateway", &["cluster", "config", "ring"]),
    ("routes", &["clock", "cluster", "controller", "error"]),
    ("app", &["routes"]),
];

/// The same of a node.
const NODE: [(&str, &[&str]); 9] = [
    ("clock", &[]),
    ("error", &[]),
    ("mailbox", &[]),
    ("tiers", &["clock", "error"]),
    ("config", &["tiers"]),
    ("metrics", &["clock", "tiers"]),
    ("driver", &["clock", "config", "error", "mailbox", "metrics", "tiers"]),
    ("cluster", &["clock", "driver", "error", "metrics", "tiers"]),
    ("doors", &["cluster", "driver", "error", "mailbox"]),
];

/// What only wires the rooms together.
const WIRING: [&str; 3] = ["lib", "main", "run"];
const MOST_LINES: usize = 400;

fn source(server: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(server).join("src")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let paths = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn room(file: &Path, source: &Path) -> String {
    let inside = file.strip_prefix(source).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

/// The modules in `crate::name` and `crate::{name::.., name}`, comments left out.
fn imports(code: &str) -> BTreeSet<String> {
    let code: String = code.lines().map(|line| line.split("//").next().unwrap_or_default().trim()).collect();
    let mut found = BTreeSet::new();
    for (start, path) in code.match_indices("crate::") {
        let rest = &code[start + path.len()..];
        let Some(list) = rest.strip_prefix('{') else {
            found.insert(name(rest));
            continue;
        };
        let mut depth = 0;
        let mut expects_name = true;
        for (at, character) in list.char_indices() {
            match character {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => expects_name = true,
                _ if expects_name && depth == 0 && !character.is_whitespace() => {
                    found.insert(name(&list[at..]));
                    expects_name = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn name(path: &str) -> String {
    path.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

fn assert_imports_run_one_way(server: &str, rooms: &[(&str, &[&str])]) {
    let source = source(server);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in files(&source) {
        let room = room(&file, &source);
        let mut imports = imports(&std::fs::read_to_string(&file).unwrap());
        imports.remove(&room);
        found.entry(room).or_default().extend(imports);
    }
    let mut above: Vec<&str> = Vec::new();
    for (room, allowed) in rooms {
        assert!(allowed.iter().all(|other| above.contains(other)), "{room} looks into rooms below it");
        let allowed: BTreeSet<String> = allowed.iter().map(|&other| other.to_owned()).collect();
        assert_eq!(found.remove(*room), Some(allowed), "{room}");
        above.push(room);
    }
    assert!(found.keys().all(|room| WIRING.contains(&room.as_str())), "rooms that the table lacks: {found:?}");
}

#[test]
fn each_room_of_a_server_looks_only_into_rooms_above_it() {
    assert_imports_run_one_way("master", &MASTER);
    assert_imports_run_one_way("node", &NODE);
}

#[test]
fn no_file_of_a_server_is_too_long_to_be_read_at_once() {
    for file in files(&source("master")).into_iter().chain(files(&source("node"))) {
        let lines = std::fs::read_to_string(&file).unwrap().lines().count();
        assert!(lines <= MOST_LINES, "{} has {lines} lines", file.display());
    }
}

#[test]
fn imports_are_found_however_they_are_written() {
    let code = "use crate::a;\nuse crate::{\n    b::{self, X},\n    c::{Y, Z},\n    d,\n}; // crate::no\nfn f() { crate::e::g() }";
    assert_eq!(imports(code), ["a", "b", "c", "d", "e"].map(str::to_owned).into());
}
