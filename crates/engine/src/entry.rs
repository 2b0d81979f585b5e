//! A key's value and what is known of it, as one allocation that memory, the write queue and responses share.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
};

use bytes::Bytes;
use cairn_api_spec::{EntryName, Version, operation::Metadata};
use triomphe::{Arc, ThinArc};
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Values up to this many bytes are copied into a response; above it, the response shares the entry.
const COPY_BYTES: usize = 16 << 10;
/// The hash table and the list node that hold an entry in memory, on average: a 24-byte node, and 17 bytes of table
/// slot at the 7/16 to 7/8 load that doubling gives.
const INDEX_BYTES: usize = 24 + 28;

/// The checksum of a value that is stored under `name` at `version`: a row or an object that was swapped for another
/// does not pass for it.
pub fn checksum(name: &[u8], version: Version, value: &[u8]) -> u64 {
    xxh3_64_with_seed(value, xxh3_64(name) ^ version.0)
}

#[derive(Debug)]
struct Header {
    version: Version,
    modified_at: u64,
    /// 0: never.
    expires_at: u64,
    name_len: u16,
    content_type_len: u16,
}

/// A live key. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Entry(ThinArc<Header, u8>);

impl Entry {
    /// Joins a name, what is known of the key, and its value. `metadata.size` is not looked at: the value tells.
    pub fn new(name: &EntryName, metadata: &Metadata, value: &[u8]) -> Self {
        let (name, content_type) = (name.as_bytes(), metadata.content_type.as_bytes());
        let mut bytes = Vec::with_capacity(name.len() + content_type.len() + value.len());
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(content_type);
        bytes.extend_from_slice(value);
        let header = Header {
            version: metadata.version,
            modified_at: metadata.modified_at,
            expires_at: metadata.expires_at.unwrap_or(0),
            name_len: u16::try_from(name.len()).unwrap_or(u16::MAX),
            content_type_len: u16::try_from(content_type.len()).unwrap_or(u16::MAX),
        };
        Self(ThinArc::from_header_and_slice(header, &bytes))
    }

    /// Gives a version to an entry that nobody shares yet; so the value can be copied before the version is known.
    pub fn set_version(&mut self, version: Version) {
        self.0.with_arc_mut(|arc| {
            if let Some(entry) = Arc::get_mut(arc) {
                entry.header_mut().version = version;
            }
        });
    }

    fn head(&self) -> &Header {
        &self.0.header.header
    }

    fn value_start(&self) -> usize {
        usize::from(self.head().name_len) + usize::from(self.head().content_type_len)
    }

    /// See [`EntryName::as_bytes`].
    pub fn name(&self) -> &[u8] {
        &self.0.slice[..usize::from(self.head().name_len)]
    }

    /// The content type; empty for the default one.
    pub fn content_type(&self) -> &str {
        std::str::from_utf8(&self.0.slice[usize::from(self.head().name_len)..self.value_start()]).unwrap_or_default()
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        &self.0.slice[self.value_start()..]
    }

    /// The value for a response.
    pub fn value_bytes(&self) -> Bytes {
        if self.value().len() <= COPY_BYTES {
            Bytes::copy_from_slice(self.value())
        } else {
            Bytes::from_owner(Value(self.clone()))
        }
    }

    /// The version.
    pub fn version(&self) -> Version {
        self.head().version
    }

    /// When the value was written, in milliseconds since the Unix epoch.
    pub fn modified_at(&self) -> u64 {
        self.head().modified_at
    }

    /// Whether the entry's time has not come.
    pub fn is_live(&self, now: u64) -> bool {
        self.head().expires_at == 0 || self.head().expires_at > now
    }

    /// What is known of the key.
    pub fn metadata(&self) -> Metadata {
        Metadata {
            version: self.head().version,
            modified_at: self.head().modified_at,
            expires_at: Some(self.head().expires_at).filter(|at| *at > 0),
            size: self.value().len() as u64,
            content_type: self.content_type().to_owned(),
        }
    }

    /// The bytes that the process spends on the entry while the memory tier holds it.
    pub fn memory_bytes(&self) -> usize {
        let asked = 2 * size_of::<usize>() + size_of::<Header>() + self.0.slice.len();
        // The allocator's size classes: steps of an eighth of the power of two below.
        let step = (asked.next_power_of_two() / 16).max(16);
        asked.next_multiple_of(step) + INDEX_BYTES
    }
}

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Entry {}

impl Hash for Entry {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl Borrow<[u8]> for Entry {
    fn borrow(&self) -> &[u8] {
        self.name()
    }
}

/// Lets a response hold an entry and show its value.
struct Value(Entry);

impl AsRef<[u8]> for Value {
    fn as_ref(&self) -> &[u8] {
        self.0.value()
    }
}
