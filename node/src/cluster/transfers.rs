//! The copies that this node makes: how far they are, and how fast they may be.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use cairn_api_spec::cluster::Transfer;
use tokio::sync::watch;

/// How long a copy waits for the master to tell its limit, and the one it has without.
const TOLD_TIMEOUT: Duration = Duration::from_secs(3);
const UNTOLD_LIMIT: u64 = 8 << 20;

/// See the module.
#[derive(Default)]
pub struct Transfers {
    active: Mutex<BTreeMap<u32, Transfer>>,
    /// Bytes a second for all together, 0: no limit; `None` until the master has told.
    limit: watch::Sender<Option<u64>>,
    /// When the next page may be asked for.
    next: Mutex<Option<Instant>>,
}

impl Transfers {
    /// How far the copies are.
    pub fn active(&self) -> Vec<Transfer> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner).values().copied().collect()
    }

    /// Sets the limit in bytes a second; 0: none.
    pub fn set_limit(&self, bytes_per_second: u64) {
        self.limit.send_replace(Some(bytes_per_second));
    }

    pub(super) fn report(&self, partition: u32, transfer: Option<Transfer>) {
        let mut active = self.active.lock().unwrap_or_else(PoisonError::into_inner);
        match transfer {
            Some(transfer) => active.insert(partition, transfer),
            None => active.remove(&partition),
        };
    }

    /// Waits as long as so many bytes take at the limit.
    pub(super) async fn pace(&self, bytes: u64) {
        let mut told = self.limit.subscribe();
        let told = tokio::time::timeout(TOLD_TIMEOUT, told.wait_for(Option::is_some)).await;
        let limit = told.ok().and_then(Result::ok).and_then(|limit| *limit).unwrap_or(UNTOLD_LIMIT);
        if limit == 0 {
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "a pause needs no 53 bits")]
        let pause = Duration::from_secs_f64(bytes as f64 / limit as f64);
        let until = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let until = next.unwrap_or_else(Instant::now).max(Instant::now()) + pause;
            *next = Some(until);
            until
        };
        tokio::time::sleep_until(until.into()).await;
    }
}

/// Ends a report when its copy ends, however.
pub(super) struct Reported<'a>(pub(super) &'a Transfers, pub(super) u32);

impl Drop for Reported<'_> {
    fn drop(&mut self) {
        self.0.report(self.1, None);
    }
}
