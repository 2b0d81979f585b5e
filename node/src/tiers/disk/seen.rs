//! Which idempotency keys may be on the disk: a Bloom filter (Bloom 1970), since a look at the disk costs more than the
//! rest of a write, and almost every key is new.
//!
//! There are two generations of bits. A generation is filled for longer than a key is kept, and then it is looked at for
//! as long again. So a key is known from when it was first noted until after it is forgotten.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use xxhash_rust::xxh3::xxh3_128_with_seed;

use super::idempotency::LIFETIME;

/// 8 MiB for each generation, of which the system gives what is touched: at 6 million keys, one in a hundred that is new
/// is looked for on the disk all the same.
const BITS: usize = 1 << 26;
/// Bits for each key.
const HASHES: u64 = 4;
/// A key is noted up to some seconds before it is written, and the clocks of nodes differ.
const GENERATION: Duration = LIFETIME.saturating_add(Duration::from_secs(60));

/// See the module.
pub(super) struct Seen {
    generations: Mutex<Generations>,
    /// Everything that was on the disk at the start has been noted.
    is_complete: AtomicBool,
}

struct Generations {
    present: Box<[u64]>,
    former: Box<[u64]>,
    began: Instant,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self::with_bits(BITS, Instant::now())
    }

    /// `bits` is a power of two, and 64 at least.
    fn with_bits(bits: usize, now: Instant) -> Self {
        let generations = Generations { present: empty(bits / 64), former: empty(bits / 64), began: now };
        Self { generations: Mutex::new(generations), is_complete: AtomicBool::new(false) }
    }

    /// Notes a key.
    pub(super) fn note(&self, partition: u32, key: &str) {
        self.note_at(partition, key, Instant::now());
    }

    /// Whether the key may have been noted. "No" is always true.
    pub(super) fn may_hold(&self, partition: u32, key: &str) -> bool {
        !self.is_complete.load(Ordering::Acquire) || self.may_hold_at(partition, key, Instant::now())
    }

    /// From now on nothing is on the disk that was not noted.
    pub(super) fn complete(&self) {
        self.is_complete.store(true, Ordering::Release);
    }

    fn note_at(&self, partition: u32, key: &str, now: Instant) {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.turn(now);
        for (word, bit) in places(partition, key, generations.present.len()) {
            generations.present[word] |= bit;
        }
    }

    fn may_hold_at(&self, partition: u32, key: &str, now: Instant) -> bool {
        let mut generations = self.generations.lock().unwrap_or_else(PoisonError::into_inner);
        generations.turn(now);
        let has_all = |bits: &[u64]| places(partition, key, bits.len()).all(|(word, bit)| bits[word] & bit != 0);
        has_all(&generations.present) || has_all(&generations.former)
    }
}

impl Generations {
    fn turn(&mut self, now: Instant) {
        let age = now.saturating_duration_since(self.began);
        if age < GENERATION {
            return;
        }
        let words = self.present.len();
        let present = std::mem::replace(&mut self.present, empty(words));
        self.former = if age < 2 * GENERATION { present } else { empty(words) };
        self.began = now;
    }
}

fn empty(words: usize) -> Box<[u64]> {
    vec![0; words].into_boxed_slice()
}

/// The words and bits of a key, by double hashing (Kirsch and Mitzenmacher 2006).
fn places(partition: u32, key: &str, words: usize) -> impl Iterator<Item = (usize, u64)> {
    let hash = xxh3_128_with_seed(key.as_bytes(), u64::from(partition)).to_le_bytes();
    let half = |at: usize| hash[at..at + 8].iter().rev().fold(0u64, |sum, byte| sum << 8 | u64::from(*byte));
    let (start, step) = (half(0), half(8) | 1);
    (0..HASHES).map(move |index| {
        let place = start.wrapping_add(index.wrapping_mul(step));
        let word = usize::try_from(place >> 6).unwrap_or(usize::MAX) & (words - 1);
        (word, 1 << (place & 63))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_key_is_known_for_as_long_as_it_is_kept(
            steps in proptest::collection::vec((0u32..4, 0u16..200, 0u64..400), 1..200),
        ) {
            let start = Instant::now();
            let seen = Seen::with_bits(1 << 12, start);
            seen.complete();
            let mut now = start;
            let mut noted: Vec<(u32, String, Instant)> = Vec::new();
            for (partition, key, seconds) in steps {
                now += Duration::from_secs(seconds);
                seen.note_at(partition, &key.to_string(), now);
                noted.push((partition, key.to_string(), now));
                for (partition, key, at) in &noted {
                    if now.duration_since(*at) <= LIFETIME {
                        prop_assert!(seen.may_hold_at(*partition, key, now), "{key} in {partition}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_new_key_is_mostly_known_to_be_new_and_an_old_one_is_forgotten() {
        let start = Instant::now();
        let seen = Seen::with_bits(1 << 16, start);
        for key in 0..5_000 {
            seen.note_at(1, &key.to_string(), start);
        }
        let held = |partition: u32, keys: std::ops::Range<u32>, now: Instant| {
            keys.filter(|key| seen.may_hold_at(partition, &key.to_string(), now)).count()
        };
        // (1 - e^(-4 * 5,000 / 65,536))^4 is 0.5 %.
        assert!(held(1, 5_000..10_000, start) < 75);
        assert!(held(2, 0..5_000, start) < 75, "the same key of another partition is another key");
        assert_eq!(held(1, 0..5_000, start), 5_000);
        assert_eq!(held(1, 0..5_000, start + GENERATION), 5_000);
        assert_eq!(held(1, 0..5_000, start + 2 * GENERATION), 0);
    }

    #[test]
    fn every_key_may_be_there_until_the_disk_was_read() {
        let seen = Seen::new();
        assert!(seen.may_hold(1, "a"));
        seen.complete();
        assert!(!seen.may_hold(1, "a"));
        seen.note(1, "a");
        assert!(seen.may_hold(1, "a"));
    }
}
