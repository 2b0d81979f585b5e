//! What clients asked and were told, and whether one register for each key could have said so: every answer carries a
//! version, and versions order what was written.

use std::collections::BTreeMap;

use cairn_api_spec::Version;

use super::network::{Call, Reply};
use crate::message::Key;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) client: Option<usize>,
    pub(crate) call: Call,
    pub(crate) called_at: u64,
    /// When and what was answered; without an answer nobody knows what has happened.
    pub(crate) answer: Option<(u64, Reply)>,
}

/// An operation that shows a version of a key, or makes one.
struct Seen {
    number: usize,
    called_at: u64,
    answered_at: u64,
    version: Version,
    /// For a write, what it replaced.
    instead_of: Option<Version>,
}

/// Looks for what no register could have said.
pub(crate) fn check(operations: &[Operation]) -> Result<(), String> {
    let mut keys: BTreeMap<Key, Vec<Seen>> = BTreeMap::new();
    let mut writers: BTreeMap<(Key, Version), usize> = BTreeMap::new();
    for (number, operation) in operations.iter().enumerate() {
        let key = operation.call.key();
        let Some((answered_at, reply)) = operation.answer else { continue };
        let (version, instead_of) = match reply {
            Reply::Read(version, writer) => {
                check_writer(operations, &mut writers, (key, version), writer, answered_at)?;
                (version, None)
            }
            Reply::Written { version, instead_of } => {
                if writers.insert((key, version), number).is_some_and(|other| other != number) {
                    return Err(format!("{version} of key {key} was given twice, to {number}, too"));
                }
                (version, Some(instead_of))
            }
            Reply::Mismatch(version) => (version, None),
            Reply::Refused => continue,
        };
        let seen = Seen { number, called_at: operation.called_at, answered_at, version, instead_of };
        keys.entry(key).or_default().push(seen);
    }
    keys.iter().try_for_each(|(key, seen)| check_key(*key, seen))
}

fn check_writer(
    operations: &[Operation],
    writers: &mut BTreeMap<(Key, Version), usize>,
    (key, version): (Key, Version),
    writer: Option<u32>,
    answered_at: u64,
) -> Result<(), String> {
    let Some(writer) = writer else {
        return if version == Version::NONE { Ok(()) } else { Err(format!("key {key} has {version} of nobody")) };
    };
    let write = operations.get(writer as usize);
    let is_write = write.is_some_and(|write| !matches!(write.call, Call::Read(_)) && write.called_at <= answered_at);
    let was_refused = write.is_some_and(|write| matches!(write.answer, Some((_, Reply::Refused | Reply::Mismatch(_)))));
    let other = writers.insert((key, version), writer as usize).is_some_and(|other| other != writer as usize);
    if !is_write || was_refused || other {
        return Err(format!("key {key} has {version} of operation {writer}, which did not write it"));
    }
    Ok(())
}

fn check_key(key: Key, seen: &[Seen]) -> Result<(), String> {
    let mut by_call: Vec<&Seen> = seen.iter().collect();
    by_call.sort_by_key(|seen| seen.called_at);
    let mut by_answer: Vec<&Seen> = seen.iter().collect();
    by_answer.sort_by_key(|seen| seen.answered_at);
    let mut answered = by_answer.into_iter().peekable();
    let mut floor: Option<&Seen> = None;
    for later in by_call {
        while let Some(earlier) = answered.next_if(|earlier| earlier.answered_at < later.called_at) {
            floor = floor.filter(|floor| floor.version >= earlier.version).or(Some(earlier));
        }
        let Some(floor) = floor else { continue };
        let is_write = later.instead_of.is_some();
        if later.version < floor.version || (is_write && later.version == floor.version) {
            let (a, b) = (floor.number, later.number);
            return Err(format!(
                "key {key}: {} of operation {a}, then {} of operation {b}",
                floor.version, later.version
            ));
        }
    }
    let mut versions: Vec<Version> = seen.iter().map(|seen| seen.version).collect();
    versions.sort();
    for write in seen {
        let Some(instead_of) = write.instead_of else { continue };
        let next = versions.partition_point(|version| *version <= instead_of);
        if versions.get(next).is_some_and(|between| *between < write.version) {
            return Err(format!(
                "key {key}: {} of operation {} replaced {instead_of}, but there was {}",
                write.version, write.number, versions[next]
            ));
        }
    }
    Ok(())
}
