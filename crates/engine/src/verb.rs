//! What each verb makes of a key's current state: one pure function.

use cairn_api_spec::{Outcome, Version, operation::Removal, version::Condition};

use crate::{counter::increment, entry::Entry, error::Error};

/// What a request does with its key.
#[derive(Clone, Debug)]
pub enum Verb {
    /// Reads the value.
    Get,
    /// Reads everything but the value.
    Head,
    /// Stores the entry, whose version is not given yet.
    Put(Entry),
    /// Removes the key.
    Delete,
    /// Adds to the integer that the value is, as decimal text.
    Increment {
        /// What to add; an absent key counts as 0.
        delta: i64,
        /// How many milliseconds a counter lives that is created by this. One that is there keeps its expiry.
        lifetime: Option<u64>,
    },
    /// Removes the key if it still has this version, whether its time has come or not: expiry and eviction.
    Remove(Version, Removal),
}

impl Verb {
    /// Whether the verb can change anything.
    pub fn is_write(&self) -> bool {
        !matches!(self, Self::Get | Self::Head)
    }

    /// Whether the verb removes its key.
    pub fn removes(&self) -> bool {
        matches!(self, Self::Delete | Self::Remove(..))
    }

    /// Whether the verb needs the value of the current state.
    pub fn wants_value(&self) -> bool {
        matches!(self, Self::Get | Self::Increment { .. })
    }
}

/// The newest state of a key, as a write must see it.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// The version of the value or of the deletion; 0 when there is neither.
    pub version: Version,
    /// Whether the key is there.
    pub live: bool,
    /// The entry, where it is at hand: it must be for a verb that wants the value of a live key.
    pub entry: Option<Entry>,
}

/// What becomes of a write.
#[derive(Clone, Debug)]
pub enum Decision {
    /// It changes nothing, and its client is told this.
    Refuse(Result<Outcome, Error>),
    /// The key gets this sum.
    Count(i64),
    /// The key gets the entry of the verb.
    Store,
    /// The key goes, for this reason.
    Remove(Removal),
}

/// Decides a write on the current state of its key.
pub fn decide(verb: &Verb, condition: Condition, current: &Current) -> Decision {
    let condition = match verb {
        Verb::Remove(version, _) => Condition::Matches(*version),
        _ => condition,
    };
    if !condition.holds(current.live.then_some(current.version)) {
        return Decision::Refuse(Ok(Outcome::ConditionFailed(current.version)));
    }
    match verb {
        Verb::Put(_) => Decision::Store,
        Verb::Delete if current.live => Decision::Remove(Removal::Delete),
        Verb::Remove(_, why) if current.live => Decision::Remove(*why),
        Verb::Increment { delta, .. } => {
            let value = current.entry.as_ref().filter(|_| current.live).map(Entry::value);
            match increment(value, *delta) {
                Ok(sum) => Decision::Count(sum),
                Err(why) => Decision::Refuse(Err(Error::NotAnInteger { why, version: current.version })),
            }
        }
        Verb::Get | Verb::Head | Verb::Delete | Verb::Remove(..) => {
            Decision::Refuse(Ok(Outcome::Missing(current.version)))
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_api_spec::{Bucket, EntryName, operation::Metadata};

    use super::*;

    fn entry() -> Entry {
        let name = EntryName::new(&Bucket::default(), "k").unwrap();
        let metadata =
            Metadata { version: Version::NONE, modified_at: 1, expires_at: None, size: 1, content_type: String::new() };
        Entry::new(&name, &metadata, b"v")
    }

    fn at(version: u64, live: bool) -> Current {
        Current { version: Version(version), live, entry: live.then(entry) }
    }

    #[test]
    fn a_condition_is_judged_by_the_live_version_only() {
        let (live, dead, put) = (at(7, true), at(7, false), Verb::Put(entry()));
        assert!(matches!(decide(&put, Condition::Absent, &dead), Decision::Store));
        let refused = decide(&put, Condition::Absent, &live);
        assert!(matches!(refused, Decision::Refuse(Ok(Outcome::ConditionFailed(Version(7))))), "{refused:?}");
        assert!(matches!(decide(&put, Condition::Matches(Version(7)), &live), Decision::Store));
        assert!(matches!(decide(&put, Condition::Matches(Version(7)), &dead), Decision::Refuse(_)));
    }

    #[test]
    fn what_is_not_there_cannot_be_removed() {
        let (live, dead) = (at(7, true), at(7, false));
        assert!(matches!(decide(&Verb::Delete, Condition::None, &live), Decision::Remove(_)));
        let missing = decide(&Verb::Delete, Condition::None, &dead);
        assert!(matches!(missing, Decision::Refuse(Ok(Outcome::Missing(Version(7))))), "{missing:?}");
        assert!(matches!(
            decide(&Verb::Remove(Version(7), Removal::Expire), Condition::None, &live),
            Decision::Remove(_)
        ));
        assert!(matches!(
            decide(&Verb::Remove(Version(6), Removal::Expire), Condition::None, &live),
            Decision::Refuse(_)
        ));
    }

    #[test]
    fn an_increment_counts_from_the_value_that_is_live() {
        let add = Verb::Increment { delta: 2, lifetime: None };
        assert!(matches!(decide(&add, Condition::None, &at(7, false)), Decision::Count(2)));
        let refused = decide(&add, Condition::None, &at(7, true));
        assert!(matches!(refused, Decision::Refuse(Err(Error::NotAnInteger { .. }))), "{refused:?}");
    }
}
