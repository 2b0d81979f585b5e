//! Keys, buckets, and the partition that holds them.
//!
//! A key is decoded once and strictly: a lossy decoder would give two spellings one name, and one of the two values
//! would be lost.

use std::fmt;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::error::{ApiError, ErrorCode};

/// The longest key, in bytes of UTF-8.
pub const MAX_KEY_BYTES: usize = 1024;
/// The longest bucket name, in bytes.
pub const MAX_BUCKET_BYTES: usize = 63;
/// The bucket of a request that names none.
pub const DEFAULT_BUCKET: &str = "default";

/// A bucket: `[a-z0-9][a-z0-9._-]{0,62}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket(std::borrow::Cow<'static, str>);

impl Bucket {
    /// Checks a bucket's spelling.
    ///
    /// # Errors
    /// `invalid_bucket` when it does not fit the grammar.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        if text == DEFAULT_BUCKET {
            return Ok(Self::default());
        }
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let fits = text.len() <= MAX_BUCKET_BYTES
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|b| plain(b) || matches!(b, b'.' | b'_' | b'-'));
        if fits {
            Ok(Self(text.to_owned().into()))
        } else {
            Err(ApiError::new(
                ErrorCode::InvalidBucket,
                "a bucket is 1 to 63 of a-z, 0-9, '.', '_' and '-', and begins with a letter or a digit",
            ))
        }
    }

    /// The bucket as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for Bucket {
    fn default() -> Self {
        Self(DEFAULT_BUCKET.into())
    }
}

/// A key within its bucket, as the one byte string `bucket ‖ 0x00 ‖ key` that is hashed, stored and sent.
///
/// Neither part may hold a zero byte, so no two pairs share a name; and names of one bucket sort as their keys do.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryName {
    bytes: Bytes,
    bucket_len: u8,
}

impl EntryName {
    /// Joins a bucket and an already decoded key.
    ///
    /// # Errors
    /// `invalid_key` for an empty key, one over [`MAX_KEY_BYTES`], or one with a control character.
    pub fn new(bucket: &Bucket, key: &str) -> Result<Self, ApiError> {
        check_key(key)?;
        let bucket = bucket.as_str();
        let mut bytes = Vec::with_capacity(bucket.len() + 1 + key.len());
        bytes.extend_from_slice(bucket.as_bytes());
        bytes.push(0);
        bytes.extend_from_slice(key.as_bytes());
        #[expect(clippy::cast_possible_truncation, reason = "a bucket has at most 63 bytes")]
        let bucket_len = bucket.len() as u8;
        Ok(Self { bytes: bytes.into(), bucket_len })
    }

    /// Joins a bucket and a key as it stands in a request path, percent-encoded.
    ///
    /// # Errors
    /// `invalid_key` for a broken escape, bytes that are not UTF-8, and everything that [`EntryName::new`] refuses.
    pub fn from_path(bucket: &Bucket, path: &str) -> Result<Self, ApiError> {
        if path.contains('%') { Self::new(bucket, &decode(path)?) } else { Self::new(bucket, path) }
    }

    /// Reads a name back from its bytes, as they come from a peer or a disk.
    ///
    /// # Errors
    /// `invalid_key` or `invalid_bucket` when the bytes are no name.
    pub fn from_bytes(bytes: Bytes) -> Result<Self, ApiError> {
        let broken = || ApiError::new(ErrorCode::InvalidKey, "a name is a bucket, a zero byte and a key");
        let bucket_len = bytes.iter().take(MAX_BUCKET_BYTES + 1).position(|b| *b == 0).ok_or_else(broken)?;
        let text = std::str::from_utf8(&bytes).map_err(|_| broken())?;
        Bucket::parse(&text[..bucket_len])?;
        check_key(&text[bucket_len + 1..])?;
        #[expect(clippy::cast_possible_truncation, reason = "a bucket has at most 63 bytes")]
        let bucket_len = bucket_len as u8;
        Ok(Self { bytes, bucket_len })
    }

    /// The whole name.
    pub fn as_bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The bucket's part.
    pub fn bucket(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.bucket_len)]).unwrap_or_default()
    }

    /// The key's part.
    pub fn key(&self) -> &str {
        std::str::from_utf8(&self.bytes[usize::from(self.bucket_len) + 1..]).unwrap_or_default()
    }

    /// Whether the key is `.` or `..`. URL parsers resolve these away, however they are written, so such a key cannot
    /// travel in a URL that one of them has built.
    pub fn is_dots(&self) -> bool {
        matches!(self.key(), "." | "..")
    }

    /// The partition that holds this name, of `count`.
    pub fn partition(&self, count: u32) -> u32 {
        partition_of(&self.bytes, count)
    }
}

impl fmt::Debug for EntryName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:?}", self.bucket(), self.key())
    }
}

/// `xxh3_64(bucket ‖ 0x00 ‖ key) mod count`: part of the contract, since clients route by it.
///
/// `count` of 0 gives 0.
pub fn partition_of(name: &[u8], count: u32) -> u32 {
    let bucket_of_hash = xxh3_64(name).checked_rem(u64::from(count)).unwrap_or(0);
    #[expect(clippy::cast_possible_truncation, reason = "smaller than count, which is a u32")]
    let partition = bucket_of_hash as u32;
    partition
}

/// The smallest byte string above every string that begins with `prefix`, or `None` when there is none.
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return Some(end);
        }
    }
    None
}

fn check_key(key: &str) -> Result<(), ApiError> {
    let refuse = |detail: &str| Err(ApiError::new(ErrorCode::InvalidKey, detail));
    if key.is_empty() {
        return refuse("the key is empty: a key is 1 to 1,024 bytes of UTF-8");
    }
    if key.len() > MAX_KEY_BYTES {
        return refuse("the key is longer than 1,024 bytes");
    }
    // Control characters are U+0000–U+001F, U+007F and, as two bytes beginning 0xC2, U+0080–U+009F.
    if key.bytes().any(|b| b < 0x20 || b == 0x7f || b == 0xc2) && key.chars().any(char::is_control) {
        return refuse("the key has a control character");
    }
    Ok(())
}

fn decode(path: &str) -> Result<String, ApiError> {
    let broken = || ApiError::new(ErrorCode::InvalidKey, "a '%' in a key must be followed by two hexadecimal digits");
    let mut out = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let [high, low, tail @ ..] = tail else { return Err(broken()) };
            let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(broken);
            #[expect(clippy::cast_possible_truncation, reason = "two hexadecimal digits make one byte")]
            out.push((digit(*high)? * 16 + digit(*low)?) as u8);
            rest = tail;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    String::from_utf8(out).map_err(|_| ApiError::new(ErrorCode::InvalidKey, "the key is not valid UTF-8"))
}

/// Writes a key for a request path; [`EntryName::from_path`] reads it back unchanged.
pub fn encode_key(key: &str) -> String {
    const KEEP: &percent_encoding::AsciiSet =
        &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    // "." and ".." alone would be taken for path navigation by URL parsers.
    if key.bytes().all(|b| b == b'.') || key.split('/').any(|part| part == "." || part == "..") {
        return percent_encoding::utf8_percent_encode(key, percent_encoding::NON_ALPHANUMERIC).to_string();
    }
    percent_encoding::utf8_percent_encode(key, KEEP).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_partition_function_is_pinned_by_test_vectors() {
        let of = |bucket: &str, key: &str| EntryName::new(&Bucket::parse(bucket).unwrap(), key).unwrap().partition(256);
        assert_eq!(of("default", "user:42"), 158);
        assert_eq!(of("default", "a"), 178);
        assert_eq!(of("sessions", "a"), 72);
        assert_eq!(of("default", "ключ/🗝"), 75);
        assert_eq!(partition_of(b"", 0), 0);
    }

    #[test]
    fn broken_escapes_and_control_characters_are_refused() {
        for path in ["%", "%4", "%zz", "%ff", "%c3%28", "%00", "a%0d%0ab", "", "%7f", "%c2%80"] {
            let error = EntryName::from_path(&Bucket::default(), path).unwrap_err();
            assert_eq!(error.code, ErrorCode::InvalidKey, "{path:?}");
        }
    }

    #[test]
    fn a_slash_may_be_written_either_way_and_dots_are_ordinary() {
        let of = |path| EntryName::from_path(&Bucket::default(), path).unwrap();
        assert_eq!(of("a/b"), of("a%2Fb"));
        assert_eq!(of("..").key(), "..");
        assert_ne!(of("a%252Fb"), of("a/b"));
    }

    #[test]
    fn buckets_outside_the_grammar_are_refused() {
        for text in ["", "A", "-a", ".a", "a b", "ä", &"a".repeat(64)] {
            assert!(Bucket::parse(text).is_err(), "{text:?}");
        }
        assert!(Bucket::parse(&"a".repeat(63)).is_ok());
    }

    proptest! {
        #[test]
        fn distinct_keys_have_distinct_paths_and_come_back_unchanged(a in "\\PC{1,40}", b in "\\PC{1,40}") {
            let (path_a, path_b) = (encode_key(&a), encode_key(&b));
            prop_assert_eq!(a == b, path_a == path_b);
            let name = EntryName::from_path(&Bucket::default(), &path_a).unwrap();
            prop_assert_eq!(name.key(), &a);
            prop_assert_eq!(EntryName::from_bytes(name.as_bytes().clone()).unwrap(), name);
        }

        #[test]
        fn no_path_panics(path in any::<String>()) {
            let _ = EntryName::from_path(&Bucket::default(), &path);
        }

        #[test]
        fn everything_with_a_prefix_sorts_below_its_end(prefix in proptest::collection::vec(any::<u8>(), 0..8), tail in proptest::collection::vec(any::<u8>(), 0..8)) {
            if let Some(end) = prefix_end(&prefix) {
                prop_assert!([prefix.clone(), tail].concat() < end);
                prop_assert!(prefix < end);
            }
        }
    }
}
