//! The change feed: what became visible on this server, in order, for those who subscribe to it.
//!
//! One ring holds the last events, and each subscriber reads on where it stands, so a slow one holds up nobody and takes no
//! memory: when the ring has gone on without it, it is told that events are missing. While nobody subscribes, nothing is
//! recorded, but for a while after the last subscriber has left: it may come back.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use cairn_api_spec::{
    ApiError, ErrorCode,
    events::{Change, Position},
};
use tokio::sync::Notify;

/// Bytes that a feed keeps.
const MAX_BYTES: usize = 8 << 20;
/// Bytes that an event takes beside its key.
const EVENT_BYTES: usize = 128;
/// Subscribers at the same time.
const MAX_SUBSCRIBERS: usize = 1_024;
/// Events given at a time.
const PAGE: usize = 256;
/// How long events are recorded for a subscriber that has left.
const KEPT: Duration = Duration::from_secs(60);

/// One entry of the feed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A key changed.
    Change(Arc<Change>),
    /// Events are missing here that nobody can tell any more.
    Gap,
}

impl Item {
    fn bytes(&self) -> usize {
        EVENT_BYTES
            + match self {
                Self::Change(change) => change.name.as_bytes().len(),
                Self::Gap => 0,
            }
    }
}

/// The feed of one process. Clones share it.
#[derive(Clone)]
pub struct Feed(Arc<Shared>);

struct Shared {
    process: u64,
    max_bytes: usize,
    recording: AtomicBool,
    ring: Mutex<Ring>,
    changed: Notify,
}

#[derive(Default)]
struct Ring {
    items: VecDeque<Item>,
    bytes: usize,
    /// The number of the last item.
    last: u64,
    subscribers: usize,
    idle_since: Option<Instant>,
    is_closed: bool,
}

impl Ring {
    /// The number of the last item that is not kept any more.
    fn dropped(&self) -> u64 {
        self.last - self.items.len() as u64
    }

    fn push(&mut self, item: Item, max_bytes: usize) {
        self.bytes += item.bytes();
        self.items.push_back(item);
        self.last += 1;
        while self.bytes > max_bytes
            && let Some(first) = self.items.pop_front()
        {
            self.bytes -= first.bytes();
        }
    }
}

impl Feed {
    /// An empty feed; `process` is random.
    pub fn new(process: u64) -> Self {
        Self::with_bytes(process, MAX_BYTES)
    }

    fn with_bytes(process: u64, max_bytes: usize) -> Self {
        Self(Arc::new(Shared {
            process,
            max_bytes,
            recording: AtomicBool::new(false),
            ring: Mutex::default(),
            changed: Notify::new(),
        }))
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.0.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds what `item` makes, if anybody could want it.
    pub fn publish(&self, item: impl FnOnce() -> Option<Item>) {
        if !self.0.recording.load(Ordering::Relaxed) {
            return;
        }
        let Some(item) = item() else { return };
        let mut ring = self.ring();
        if self.goes_on(&mut ring) {
            ring.push(item, self.0.max_bytes);
            drop(ring);
            self.0.changed.notify_waiters();
        }
    }

    /// Whether anybody has subscribed, or may come back.
    pub fn is_recording(&self) -> bool {
        self.0.recording.load(Ordering::Relaxed) && self.goes_on(&mut self.ring())
    }

    /// Waits until somebody subscribes.
    pub async fn recording(&self) {
        loop {
            let changed = self.0.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if self.is_recording() {
                return;
            }
            changed.await;
        }
    }

    /// Stops recording when nobody has come back for long.
    fn goes_on(&self, ring: &mut Ring) -> bool {
        if ring.idle_since.is_none_or(|since| since.elapsed() < KEPT) {
            return true;
        }
        // Whoever comes back finds that a number is missing.
        ring.last += 1;
        (ring.items, ring.bytes, ring.idle_since) = (VecDeque::new(), 0, None);
        self.0.recording.store(false, Ordering::Relaxed);
        false
    }

    /// Ends every subscriber, and lets none begin.
    pub fn close(&self) {
        self.ring().is_closed = true;
        self.0.changed.notify_waiters();
    }

    /// Subscribes from after a position, or from now on. What is missing between is told as the first item.
    ///
    /// # Errors
    /// `overloaded` when too many have subscribed, `shutting_down` when the feed is closed.
    pub fn subscribe(&self, after: Option<Position>) -> Result<Subscriber, ApiError> {
        let mut ring = self.ring();
        if ring.is_closed {
            return Err(ApiError::new(ErrorCode::ShuttingDown, "the server is about to stop"));
        }
        if ring.subscribers >= MAX_SUBSCRIBERS {
            let detail =
                format!("{MAX_SUBSCRIBERS} clients have subscribed to the events of this server, and it takes no more");
            return Err(ApiError::new(ErrorCode::Overloaded, detail));
        }
        ring.subscribers += 1;
        ring.idle_since = None;
        self.0.recording.store(true, Ordering::Relaxed);
        let is_known = |position: &Position| {
            position.process == self.0.process && (ring.dropped()..=ring.last).contains(&position.number)
        };
        let (number, gap) = match after {
            None => (ring.last, false),
            Some(position) if is_known(&position) => (position.number, false),
            Some(_) => (ring.last, true),
        };
        drop(ring);
        self.0.changed.notify_waiters();
        Ok(Subscriber { feed: self.clone(), number, gap })
    }
}

/// Somebody who has subscribed to a feed.
pub struct Subscriber {
    feed: Feed,
    /// The last item that was given.
    number: u64,
    /// Something is missing that must be told first.
    gap: bool,
}

impl Subscriber {
    /// Where it stands.
    pub fn position(&self) -> Position {
        Position { process: self.feed.0.process, number: self.number }
    }

    /// What has happened since the last call, or happens next, by its numbers; `None` when the feed is closed.
    pub async fn next(&mut self) -> Option<Vec<(u64, Item)>> {
        loop {
            let feed = self.feed.clone();
            let changed = feed.0.changed.notified();
            tokio::pin!(changed);
            // From here on no change is missed.
            changed.as_mut().enable();
            let items = self.take();
            if !items.is_empty() {
                return Some(items);
            }
            if feed.ring().is_closed {
                return None;
            }
            changed.await;
        }
    }

    /// What has happened since the last call.
    fn take(&mut self) -> Vec<(u64, Item)> {
        let feed = self.feed.clone();
        let ring = feed.ring();
        let dropped = ring.dropped();
        if self.number < dropped {
            (self.number, self.gap) = (dropped, true);
        }
        let gap = std::mem::take(&mut self.gap).then_some((self.number, Item::Gap));
        let from = usize::try_from(self.number - dropped).unwrap_or(usize::MAX).min(ring.items.len());
        let rest = (self.number + 1..).zip(ring.items.range(from..).take(PAGE).cloned());
        let items: Vec<(u64, Item)> = gap.into_iter().chain(rest).collect();
        self.number = items.last().map_or(self.number, |(number, _)| *number);
        items
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        let mut ring = self.feed.ring();
        ring.subscribers -= 1;
        if ring.subscribers == 0 {
            ring.idle_since = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use cairn_api_spec::{Bucket, EntryName, Version, events::EventKind};

    use super::*;

    fn change(version: u64) -> Item {
        Item::Change(Arc::new(Change {
            kind: EventKind::Put,
            name: EntryName::new(&Bucket::default(), "k").unwrap(),
            version: Version(version),
            at: 1,
            size: 1,
            expires_at: None,
        }))
    }

    fn items(numbered: Vec<(u64, Item)>) -> Vec<Item> {
        numbered.into_iter().map(|(_, item)| item).collect()
    }

    fn publish(feed: &Feed, versions: std::ops::RangeInclusive<u64>) {
        versions.for_each(|version| feed.publish(|| Some(change(version))));
    }

    #[tokio::test]
    async fn a_subscriber_gets_what_happens_from_then_on_in_its_order() {
        let feed = Feed::new(7);
        publish(&feed, 1..=1);
        let (mut one, mut other) = (feed.subscribe(None).unwrap(), feed.subscribe(None).unwrap());
        publish(&feed, 2..=3);
        for subscriber in [&mut one, &mut other] {
            assert_eq!(subscriber.next().await, Some(vec![(1, change(2)), (2, change(3))]));
        }
        let waiting = tokio::spawn(async move { one.next().await });
        tokio::task::yield_now().await;
        publish(&feed, 4..=4);
        assert_eq!(waiting.await.unwrap(), Some(vec![(3, change(4))]));
    }

    #[test]
    fn nothing_is_recorded_while_nobody_has_subscribed() {
        let feed = Feed::new(7);
        feed.publish(|| panic!("nobody wants it"));
        assert!(!feed.is_recording());
        drop(feed.subscribe(None).unwrap());
        assert!(feed.is_recording(), "it may come back");
    }

    #[test]
    fn a_subscriber_that_comes_back_goes_on_where_it_was() {
        let feed = Feed::new(7);
        let mut subscriber = feed.subscribe(None).unwrap();
        publish(&feed, 1..=2);
        subscriber.take();
        let position = subscriber.position();
        drop(subscriber);
        publish(&feed, 3..=3);
        assert_eq!(feed.subscribe(Some(position)).unwrap().take(), [(3, change(3))]);
    }

    #[test]
    fn a_subscriber_is_told_what_is_missing() {
        let feed = Feed::with_bytes(7, 2 * (EVENT_BYTES + 9));
        let mut slow = feed.subscribe(None).unwrap();
        let before = slow.position();
        publish(&feed, 1..=5);
        assert_eq!(slow.take(), [(3, Item::Gap), (4, change(4)), (5, change(5))]);
        assert_eq!(slow.take(), []);
        for unknown in [before, Position { process: 8, ..slow.position() }, Position { number: 99, ..before }] {
            let mut subscriber = feed.subscribe(Some(unknown)).unwrap();
            assert_eq!(
                (items(subscriber.take()), subscriber.position()),
                (vec![Item::Gap], slow.position()),
                "{unknown:?}"
            );
        }
    }

    #[test]
    fn only_so_many_can_subscribe() {
        let feed = Feed::new(7);
        let mut subscribers: Vec<_> = (0..MAX_SUBSCRIBERS).map(|_| feed.subscribe(None).unwrap()).collect();
        assert_eq!(feed.subscribe(None).err().unwrap().code, ErrorCode::Overloaded);
        subscribers.pop();
        assert!(feed.subscribe(None).is_ok());
    }

    #[tokio::test]
    async fn a_closed_feed_ends_its_subscribers() {
        let feed = Feed::new(7);
        let mut subscriber = feed.subscribe(None).unwrap();
        let waiting = tokio::spawn(async move { subscriber.next().await });
        tokio::task::yield_now().await;
        feed.close();
        assert_eq!(waiting.await.unwrap(), None);
        assert_eq!(feed.subscribe(None).err().unwrap().code, ErrorCode::ShuttingDown);
    }
}
