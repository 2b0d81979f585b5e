//! Messages between our own processes: the generated code is that of the `.proto` files, what is sent arrives, and what
//! cannot be read is refused.

use std::time::Duration;

use cairn_api_spec::{
    ApiError, Bucket, EntryName, ErrorCode, Operation, Outcome, TraceContext, Version,
    operation::{Action, Consistency, Durability, IdempotencyKey, Metadata, Put, Tier},
    peer::{BatchAnswer, Execute, Executed, Failed, FirstOutcome},
    version::Condition,
};
use proptest::prelude::*;
use prost::Message as _;

/// `EXPECTORATE=overwrite` (`make proto`) writes the code anew.
#[test]
fn the_checked_in_code_is_what_the_proto_files_say() {
    let root = env!("CARGO_MANIFEST_DIR");
    let files = protox::compile(["cairn/peer/v1/link.proto"], [format!("{root}/proto")]).unwrap();
    let out = tempfile::tempdir().unwrap();
    prost_build::Config::new().bytes(["."]).out_dir(out.path()).compile_fds(files).unwrap();
    let code = std::fs::read_to_string(out.path().join("cairn.peer.v1.rs")).unwrap();
    expectorate::assert_contents(format!("{root}/src/peer/generated.rs"), &code);
}

/// As the release before the `.proto` files wrote them.
#[test]
fn the_bytes_of_a_message_stay_what_they_were() {
    let put = Put {
        value: "Ada".into(),
        content_type: "text/plain".to_owned(),
        ttl: Some(Duration::from_millis(250)),
        durability: Some(Durability::Memory),
    };
    let operation = Operation {
        idempotency_key: Some(IdempotencyKey::parse("once").unwrap()),
        ..Operation::new(name(), Condition::Matches(Version(7)), Action::Put(put))
    };
    let expected: &[u8] = b"\x08\x03\x12\x09default\0k\x18\x02\x20\x02\x28\x07\x32\x03Ada\x3a\x0atext/plain\x40\xfa\x01\x48\x01\x52\x04once";
    assert_eq!(Execute::new(operation, 3).encode_to_vec(), expected);
    let stored = Outcome::Stored { created: true, metadata: Metadata { size: 3, ..metadata() } };
    assert_eq!(Executed::from(stored).encode_to_vec(), b"\x08\x04\x10\x01\x18\x02\x28\x03");
}

fn name() -> EntryName {
    EntryName::new(&Bucket::default(), "k").unwrap()
}

fn metadata() -> Metadata {
    Metadata { version: Version(1), modified_at: 2, expires_at: None, size: 0, content_type: String::new() }
}

fn of(action: Action) -> Operation {
    Operation::new(name(), Condition::None, action)
}

fn sent(operation: Operation) -> Result<Operation, ApiError> {
    let bytes = Execute::new(operation, 7).encode_to_vec();
    Execute::decode(&*bytes).unwrap().into_operation()
}

/// The numbers that an enum with values from 0 to `last` does not have.
fn unknown(last: i32) -> impl Strategy<Value = i32> {
    prop_oneof![i32::MIN..0, last + 1..=i32::MAX, last + 1..last + 10]
}

fn refuses(result: Result<impl std::fmt::Debug, ApiError>, what: &str) {
    let error = result.unwrap_err();
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.detail.ends_with(&format!("without a readable {what}")), "{}", error.detail);
}

proptest! {
    #[test]
    fn an_unknown_action_is_refused(action in unknown(5)) {
        refuses(Execute { action, ..Execute::new(of(Action::Get), 7) }.into_operation(), "action");
    }

    #[test]
    fn an_unknown_condition_is_refused(condition in unknown(4)) {
        refuses(Execute { condition, ..Execute::new(of(Action::Get), 7) }.into_operation(), "condition");
    }

    #[test]
    fn an_unknown_durability_is_refused_whatever_the_action(durability in unknown(4), action in 0..=5) {
        refuses(Execute { action, durability, ..Execute::new(of(Action::Get), 7) }.into_operation(), "durability");
    }

    #[test]
    fn an_unknown_outcome_is_refused(outcome in unknown(9)) {
        refuses(Outcome::try_from(Executed { outcome, ..Executed::default() }), "outcome");
    }

    #[test]
    fn an_unknown_tier_is_refused(tier in unknown(3)) {
        refuses(Outcome::try_from(Executed { tier, ..Executed::default() }), "tier");
    }

    #[test]
    fn an_unknown_refusal_of_a_first_write_is_refused(refused in unknown(2)) {
        refuses(FirstOutcome { refused, ..first_outcome() }.check(), "refusal");
    }

    #[test]
    fn an_unknown_error_code_promises_nothing(code in "[a-z_]{0,20}") {
        prop_assume!(ErrorCode::ALL.iter().all(|known| known.as_str() != code));
        let failed = Failed { code, detail: "why".to_owned(), retry_after: Some(1), ..Failed::default() };
        let error = ApiError::from(failed);
        prop_assert!(error.code == ErrorCode::Internal && !error.code.had_no_effect() && !error.code.may_pass());
        prop_assert!(error.detail.ends_with("why"), "{}", error.detail);
    }
}

fn first_outcome() -> FirstOutcome {
    FirstOutcome { key: "once".to_owned(), name: name().as_bytes().clone(), ..FirstOutcome::default() }
}

#[test]
fn what_is_missing_or_malformed_is_refused() {
    refuses(Result::<Outcome, ApiError>::from(BatchAnswer { kind: None }), "answer");
    refuses(Outcome::try_from(Executed { outcome: 9, ..Executed::default() }), "explanation");
    let nameless = Execute { name: "".into(), ..Execute::new(of(Action::Get), 7) };
    assert!(nameless.into_operation().is_err());
    let broken = Execute { idempotency_key: "a b".to_owned(), ..Execute::new(of(Action::Get), 7) };
    assert_eq!(broken.into_operation().unwrap_err().code, ErrorCode::InvalidParameter);
    first_outcome().check().unwrap();
    assert!(FirstOutcome { key: String::new(), ..first_outcome() }.check().is_err());
    assert!(FirstOutcome { name: "".into(), ..first_outcome() }.check().is_err());
}

#[test]
fn consistency_and_idempotency_key_travel_with_the_operation() {
    let eventual = Operation { consistency: Consistency::Eventual, ..of(Action::Get) };
    assert_eq!(sent(eventual).unwrap().consistency, Consistency::Eventual);
    let plain = sent(of(Action::Get)).unwrap();
    assert_eq!((plain.consistency, plain.idempotency_key), (Consistency::Strong, None));
    let key = IdempotencyKey::parse("once").unwrap();
    let delete = Operation { idempotency_key: Some(key.clone()), ..of(Action::Delete { durability: None }) };
    assert_eq!(sent(delete).unwrap().idempotency_key, Some(key));
}

#[test]
fn every_durability_travels_with_a_write() {
    let levels = [Durability::Memory, Durability::Disk, Durability::Fsync, Durability::Object];
    for durability in levels.map(Some).into_iter().chain([None]) {
        let action = sent(of(Action::Delete { durability })).unwrap().action;
        assert!(matches!(action, Action::Delete { durability: same } if same == durability), "{action:?}");
    }
}

#[test]
fn an_increment_travels_with_what_it_adds_and_comes_back_with_the_sum() {
    let (ttl, durability) = (Some(Duration::from_millis(250)), Some(Durability::Memory));
    let action = sent(of(Action::Increment { delta: i64::MIN, ttl, durability })).unwrap().action;
    let Action::Increment { delta: i64::MIN, ttl: t, durability: d } = action else { panic!("{action:?}") };
    assert_eq!((t, d), (ttl, durability));
    for created in [false, true] {
        let counted = Outcome::Counted { value: -7, created, metadata: metadata() };
        let back = Outcome::try_from(Executed::from(counted)).unwrap();
        assert!(matches!(back, Outcome::Counted { value: -7, created: c, .. } if c == created), "{back:?}");
    }
}

#[test]
fn each_operation_of_a_batch_comes_back_with_its_own_end() {
    let failed = ApiError::new(ErrorCode::NotAnInteger, "no").with_version(Version(3));
    for result in [Err(failed), Ok(Outcome::Missing(Version(4)))] {
        let back = Result::<Outcome, ApiError>::from(BatchAnswer::from(result.clone()));
        assert_eq!(format!("{back:?}"), format!("{result:?}"));
    }
}

#[test]
fn the_trace_travels_with_the_operation_and_back_with_a_failure() {
    let context = TraceContext::parse("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01");
    for trace in [None, context, context.map(|context| TraceContext { sampled: false, ..context })] {
        assert_eq!(sent(Operation { trace, ..of(Action::Get) }).unwrap().trace, trace);
        let trace_id = trace.map(|context| context.trace_id);
        let error = ApiError { trace_id, ..ApiError::new(ErrorCode::Internal, "broken") };
        assert_eq!(ApiError::from(Failed::from(error.clone())), error);
    }
}

#[test]
fn every_tier_travels_with_the_outcome() {
    for tier in [Tier::Memory, Tier::Disk, Tier::Object, Tier::Replica] {
        let found = Outcome::Found { metadata: metadata(), tier, value: None };
        let outcome = Outcome::try_from(Executed::from(found)).unwrap();
        assert!(matches!(outcome, Outcome::Found { tier: t, .. } if t == tier), "{outcome:?}");
    }
}
