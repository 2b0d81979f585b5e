//! The checkers accept what a correct register does, and find every kind of wrong that is planted.

#![expect(clippy::unwrap_used, reason = "a failure here is a failed test")]

mod simulation;

use cairn_system_tests::{
    history::{Condition, Kind, NOBODY, Operation, Outcome},
    version_order::{self, Fault},
    wing_gong::{self, Verdict},
};

/// A history of one key, told line by line.
#[derive(Default)]
struct Story(Vec<Operation>);

impl Story {
    fn then(self, kind: Kind, outcome: Outcome) -> Self {
        let now = self.0.iter().map(|operation| operation.returned).max().unwrap_or(0);
        self.between(now + 1, now + 2, kind, outcome)
    }

    fn between(mut self, invoked: u64, returned: u64, kind: Kind, outcome: Outcome) -> Self {
        let (id, key) = (self.0.len() as u64, "key".to_owned());
        self.0.push(Operation { id, client: 0, key, kind, lives: None, invoked, returned, outcome });
        self
    }

    /// The last one puts a value that lives for [`LIFE`].
    fn for_a_while(mut self) -> Self {
        self.0.last_mut().unwrap().lives = Some(LIFE);
        self
    }

    /// Something is asked, and answered, so long after the end of the last.
    fn after(self, pause: u64, kind: Kind, outcome: Outcome) -> Self {
        let now = self.0.iter().map(|operation| operation.returned).max().unwrap_or(0) + pause;
        self.between(now, now + 1, kind, outcome)
    }

    fn put(self, version: u64) -> Self {
        self.then(PUT, Outcome::Written(version))
    }

    fn deleted(self, version: u64) -> Self {
        self.then(DELETE, Outcome::Written(version))
    }

    fn reads(self, version: u64, write: u64) -> Self {
        self.then(Kind::Get, Outcome::Read { version, write })
    }

    fn reads_nothing(self, version: u64) -> Self {
        self.then(Kind::Get, Outcome::Absent(version))
    }

    #[track_caller]
    fn can_be(self) {
        assert_eq!(version_order::check(&self.0), []);
        assert_eq!(wing_gong::check(&self.0.iter().collect::<Vec<_>>()), Verdict::Linearizable);
    }

    /// Both checkers find it.
    #[track_caller]
    fn shows(self, fault: Fault) {
        assert_eq!(wing_gong::check(&self.0.iter().collect::<Vec<_>>()), Verdict::Violated);
        self.shows_by_versions(fault);
    }

    /// It shows only in the versions.
    #[track_caller]
    fn shows_by_versions(self, fault: Fault) {
        let found = version_order::check(&self.0);
        assert!(found.iter().any(|violation| violation.fault == fault), "{found:?}");
    }
}

/// A second.
const LIFE: u64 = 1_000_000;
const PUT: Kind = Kind::Put(Condition::Always);
const DELETE: Kind = Kind::Delete(Condition::Always);

#[test]
fn a_write_that_was_answered_and_is_gone_is_found() {
    Story::default().put(1).put(2).reads(1, 0).shows(Fault::WriteNotSeen);
    Story::default().put(1).reads_nothing(0).shows(Fault::WriteNotSeen);
    Story::default().put(1).then(DELETE, Outcome::Absent(0)).shows(Fault::WriteNotSeen);
}

#[test]
fn a_read_of_less_than_was_read_before_is_found() {
    let doubtful = Story::default().put(1).then(PUT, Outcome::Unknown);
    doubtful.reads(2, 1).reads(1, 0).shows(Fault::StaleRead);
    let doubtful = Story::default().put(1).then(PUT, Outcome::Unknown);
    doubtful.reads(2, 1).reads_nothing(0).shows(Fault::StaleRead);
}

#[test]
fn a_version_that_two_writes_share_is_found() {
    Story::default().put(1).put(1).shows_by_versions(Fault::DuplicateVersion);
    Story::default().put(1).reads(2, 0).shows_by_versions(Fault::DuplicateVersion);
    Story::default().put(1).reads_nothing(1).shows(Fault::DuplicateVersion);
    Story::default().put(3).put(2).shows_by_versions(Fault::VersionWentBack);
}

#[test]
fn a_deleted_key_that_is_back_is_found() {
    Story::default().put(1).deleted(2).reads(1, 0).shows(Fault::WriteNotSeen);
    let forgotten = Story::default().put(1).then(DELETE, Outcome::Unknown).reads_nothing(0);
    forgotten.reads(1, 0).shows(Fault::StaleRead);
}

#[test]
fn a_value_from_nowhere_is_found() {
    Story::default().put(1).reads(2, NOBODY).shows(Fault::FromNowhere);
    Story::default().put(1).then(PUT, Outcome::Refused).reads(2, 1).shows_by_versions(Fault::FromNowhere);
    let failed = Story::default().put(1).then(Kind::Put(Condition::Absent), Outcome::ConditionFailed(1));
    failed.reads(2, 1).shows(Fault::FromNowhere);
    let early = Story::default().between(1, 2, Kind::Get, Outcome::Read { version: 1, write: 1 });
    early.between(3, 4, PUT, Outcome::Written(1)).shows(Fault::FromNowhere);
}

#[test]
fn a_deletion_by_nobody_is_found() {
    Story::default().put(1).reads_nothing(2).shows(Fault::NotDeleted);
    let once = Story::default().put(1).then(DELETE, Outcome::Unknown).reads_nothing(2);
    once.put(3).reads_nothing(4).shows(Fault::NotDeleted);
}

#[test]
fn a_condition_that_did_not_hold_is_found() {
    let swap = |version| Kind::Put(Condition::Version(version));
    Story::default().put(1).put(2).then(swap(1), Outcome::Written(3)).shows(Fault::WrongCondition);
    let create = Kind::Put(Condition::Absent);
    Story::default().put(1).then(create, Outcome::Written(2)).shows(Fault::WrongCondition);
    Story::default().then(create, Outcome::ConditionFailed(0)).shows(Fault::WrongCondition);
    Story::default().put(1).then(swap(1), Outcome::ConditionFailed(1)).shows(Fault::WrongCondition);
    Story::default().put(1).deleted(2).deleted(3).shows(Fault::WrongCondition);
}

#[test]
fn what_nobody_answered_may_have_happened_or_not_and_late() {
    Story::default().put(1).then(PUT, Outcome::Unknown).reads(1, 0).reads(5, 1).reads(5, 1).can_be();
    Story::default().put(1).then(PUT, Outcome::Unknown).put(2).reads(2, 2).can_be();
    Story::default().put(1).then(DELETE, Outcome::Unknown).reads(1, 0).reads_nothing(0).put(4).reads(4, 4).can_be();
    let create = Kind::Put(Condition::Absent);
    Story::default().put(1).then(DELETE, Outcome::Unknown).then(create, Outcome::Written(3)).can_be();
}

#[test]
fn a_forgotten_deletion_is_one_all_the_same() {
    Story::default().put(1).deleted(2).reads_nothing(0).then(DELETE, Outcome::Absent(2)).put(3).reads(3, 4).can_be();
    let overlapping = Story::default().put(1).between(3, 9, DELETE, Outcome::Written(2));
    overlapping.between(4, 5, Kind::Get, Outcome::Absent(0)).between(6, 7, Kind::Get, Outcome::Absent(2)).can_be();
}

#[test]
fn a_value_is_gone_when_its_time_has_come_and_not_before() {
    let mortal = || Story::default().put(1).for_a_while();
    // Without a version, with that of the value, and with that of the sweep.
    for version in [0, 1, 2] {
        let seen = Outcome::Absent(version);
        mortal().reads(1, 0).after(LIFE, Kind::Get, seen).put(3).reads(3, 3).can_be();
        mortal().after(LIFE, DELETE, seen).after(1, Kind::Get, seen).can_be();
        let early = mortal().after(LIFE / 2, Kind::Get, seen);
        assert_ne!(version_order::check(&early.0), [], "version {version}");
        assert_eq!(wing_gong::check(&early.0.iter().collect::<Vec<_>>()), Verdict::Violated, "version {version}");
    }
    mortal().after(LIFE * 2, Kind::Get, Outcome::Read { version: 1, write: 0 }).shows(Fault::Outlived);
    let back = mortal().after(LIFE, Kind::Get, Outcome::Absent(1)).reads(1, 0);
    back.shows(Fault::StaleRead);
}

#[test]
fn conditions_are_those_of_an_absent_key_when_the_time_of_its_value_has_come() {
    let mortal = || Story::default().put(1).for_a_while();
    let (create, swap) = (Kind::Put(Condition::Absent), Kind::Put(Condition::Version(1)));
    mortal().after(LIFE, create, Outcome::Written(2)).reads(2, 1).can_be();
    mortal().after(LIFE / 2, create, Outcome::Written(2)).shows(Fault::WrongCondition);
    mortal().after(LIFE, swap, Outcome::ConditionFailed(1)).after(1, Kind::Get, Outcome::Absent(1)).can_be();
    mortal().after(LIFE / 2, swap, Outcome::ConditionFailed(1)).shows(Fault::WrongCondition);
}

#[test]
fn a_value_that_nobody_answered_for_may_come_and_go_unseen() {
    let unseen = || Story::default().put(1).then(PUT, Outcome::Unknown).for_a_while();
    for version in [0, 2, 3] {
        unseen().after(LIFE, Kind::Get, Outcome::Absent(version)).can_be();
    }
    unseen().after(LIFE * 5, Kind::Get, Outcome::Read { version: 2, write: 1 }).can_be();
}
