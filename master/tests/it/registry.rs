//! Who counts as there, at times that the tests choose.

use std::{sync::Arc, time::Duration};

use cairn_api_spec::cluster::{Heartbeat, NodeState, RegisterNode};
use cairn_master::{
    error::Error,
    metastore::sqlite::SqliteStore,
    meter::Meter,
    registry::{Member, Patience, Registry},
};
use jiff::Timestamp;
use tempfile::TempDir;

use crate::support::{heartbeat, node, restarted};

pub(crate) const PATIENCE: Patience = Patience {
    suspect_after: Duration::from_secs(2),
    gone_after: Duration::from_secs(3),
    replace_after: Duration::from_secs(30),
    max_clock_skew: Duration::from_secs(5),
};

pub(crate) fn at(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// A registry over a store of its own, opened at 0 s.
pub(crate) struct Known {
    pub(crate) registry: Registry,
    pub(crate) store: Arc<SqliteStore>,
    directory: TempDir,
}

impl Known {
    pub(crate) async fn new() -> Self {
        Self::open(TempDir::new().unwrap()).await
    }

    async fn open(directory: TempDir) -> Self {
        let store = Arc::new(SqliteStore::open(directory.path()).await.unwrap());
        let registry = Registry::load(store.clone(), PATIENCE, 8080, Duration::ZERO).await.unwrap();
        Self { registry, store, directory }
    }

    /// The registry of a master that was started again.
    async fn restart(self) -> Self {
        self.store.close().await;
        Self::open(self.directory).await
    }

    pub(crate) fn beat(&self, heartbeat: &Heartbeat, seconds: f64) -> Result<bool, Error> {
        self.registry.beat("a", heartbeat.clone(), at(seconds), Timestamp::UNIX_EPOCH)
    }

    pub(crate) fn member(&self) -> Member {
        self.registry.members().remove("a").unwrap()
    }

    fn state(&self, seconds: f64) -> NodeState {
        self.member().state(PATIENCE, 1, at(seconds))
    }
}

#[tokio::test]
async fn silence_makes_a_node_suspect_then_gone_and_a_heartbeat_brings_it_back() {
    let known = Known::new().await;
    known.registry.register(node("a"), at(10.0)).await.unwrap();
    known.beat(&heartbeat(), 11.0).unwrap();
    for (seconds, state) in [
        (11.0, NodeState::Active),
        (12.9, NodeState::Active),
        (13.0, NodeState::Suspect),
        (13.9, NodeState::Suspect),
        (14.0, NodeState::Gone),
        (1e9, NodeState::Gone),
    ] {
        assert_eq!(known.state(seconds), state, "at {seconds} s");
        assert_eq!(known.registry.alive(at(seconds)).contains("a"), state == NodeState::Active);
    }
    known.beat(&heartbeat(), 20.0).unwrap();
    assert_eq!(known.state(20.0), NodeState::Active);
    assert_eq!(known.member().last_heartbeat, Some(Timestamp::UNIX_EPOCH));
}

#[tokio::test]
async fn a_node_that_comes_and_goes_is_steady_only_after_it_has_stayed() {
    let known = Known::new().await;
    known.registry.register(node("a"), at(0.0)).await.unwrap();
    assert!(known.member().is_steady(PATIENCE, at(1.0)));
    for seconds in [5.0, 6.0, 6.9] {
        known.beat(&heartbeat(), seconds).unwrap();
        assert!(!known.member().is_steady(PATIENCE, at(seconds)), "at {seconds} s");
    }
    known.beat(&heartbeat(), 7.0).unwrap();
    assert!(known.member().is_steady(PATIENCE, at(7.0)));
}

#[tokio::test]
async fn what_an_earlier_process_promised_is_over_after_four_seconds() {
    let known = Known::new().await;
    known.registry.register(node("a"), at(0.0)).await.unwrap();
    known.registry.register(restarted("a"), at(10.0)).await.unwrap();
    assert!(!known.member().is_settled(at(13.9)));
    assert!(known.member().is_settled(at(14.0)));
    // The same again is the same process.
    known.registry.register(restarted("a"), at(15.0)).await.unwrap();
    assert!(known.member().is_settled(at(15.0)));
}

#[tokio::test]
async fn other_data_under_a_known_id_are_taken_once_the_former_process_is_silent_or_leaves() {
    let empty = RegisterNode { incarnation: 2, ..node("a") };
    let known = Known::new().await;
    known.registry.register(node("a"), at(0.0)).await.unwrap();
    for seconds in [1.0, 2.0, 3.0] {
        known.beat(&heartbeat(), seconds).unwrap();
        let other = Heartbeat { incarnation: 2, ..heartbeat() };
        let refused = known.beat(&other, seconds);
        assert!(matches!(refused, Err(Error::NodeNotFound { other_incarnation: true, .. })), "{refused:?}");
    }
    for seconds in [3.0, 4.9] {
        let refused = known.registry.register(empty.clone(), at(seconds)).await;
        assert!(matches!(refused, Err(Error::OtherData { .. })), "at {seconds} s: {refused:?}");
    }
    known.registry.register(empty.clone(), at(5.0)).await.unwrap();
    // Now the other one is the intruder.
    let refused = known.registry.register(node("a"), at(5.1)).await;
    assert!(matches!(refused, Err(Error::OtherData { .. })), "{refused:?}");
    known.beat(&Heartbeat { incarnation: 2, leaving: true, ..heartbeat() }, 5.2).unwrap();
    known.registry.register(node("a"), at(5.2)).await.unwrap();
}

#[tokio::test]
async fn after_a_restart_of_the_master_every_node_has_time_to_beat() {
    let known = Known::new().await;
    known.registry.register(node("a"), at(100.0)).await.unwrap();
    assert_eq!(known.registry.since_last_join(at(100.5)), at(0.5));
    let known = known.restart().await;
    assert_eq!((known.state(1.9), known.state(2.0)), (NodeState::Active, NodeState::Suspect));
    assert_eq!(known.member().last_heartbeat, None);
}

#[tokio::test]
async fn a_clock_is_off_beyond_the_bound_until_it_is_well_within_it() {
    let known = Known::new().await;
    known.registry.register(node("a"), at(0.0)).await.unwrap();
    let told = |offset| Heartbeat { clock_offset_ms: offset, ..heartbeat() };
    for (offset, is_off) in [
        (None, false),
        (Some(5_000), false),
        (Some(-5_000), false),
        (Some(5_001), true),
        (Some(5_000), true),
        (Some(-2_501), true),
        (Some(2_500), false),
        (Some(5_000), false),
        (Some(i64::MIN), true),
        // Nothing new is known.
        (None, true),
    ] {
        known.beat(&told(offset), 1.0).unwrap();
        assert_eq!(known.member().is_clock_off(), is_off, "{offset:?}");
    }
    // The same machine has the same clock, another one has its own.
    known.registry.register(restarted("a"), at(1.0)).await.unwrap();
    assert!(known.member().is_clock_off());
    let elsewhere = RegisterNode { address: "http://b.test:8081".to_owned(), session: 3, ..node("a") };
    known.registry.register(elsewhere, at(10.0)).await.unwrap();
    assert_eq!((known.member().is_clock_off(), known.member().clock_offset_ms), (false, None));
}

#[test]
fn a_rate_fades() {
    let mut meter = Meter::new(at(100.0));
    assert!(meter.rate(at(100.0)).abs() < 1e-9);
    meter.add(5_000, at(100.0));
    assert!((meter.rate(at(100.0)) - 5_000.0).abs() < 1e-6, "{}", meter.rate(at(100.0)));
    assert!(meter.rate(at(110.0)) < meter.rate(at(105.0)));
    // A thousand a second, for a long time.
    for second in 0..60 {
        meter.add(1_000, at(110.0 + f64::from(second)));
    }
    let rate = meter.rate(at(169.0));
    assert!((1_000.0..1_150.0).contains(&rate), "{rate}");
}
