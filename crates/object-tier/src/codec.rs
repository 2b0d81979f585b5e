//! Reading and writing of numbers and short texts. All numbers are little-endian.

use bytes::{BufMut, Bytes, BytesMut};
use xxhash_rust::xxh3::xxh3_64;

/// Why bytes from a bucket are refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There are fewer or more bytes than there must be.
    #[error("the object has not the length that it says")]
    Length,
    /// The bytes begin or end with something else.
    #[error("the object is of another kind")]
    Magic,
    /// A later program wrote them.
    #[error("the object has format {0}, which this program does not know")]
    Version(u16),
    /// They are not what was written.
    #[error("a checksum does not match")]
    Checksum,
    /// The checksums match, but the content makes no sense.
    #[error("the object's {0} is malformed")]
    Content(&'static str),
}

/// Reads from the front of a byte string.
pub(crate) struct Input {
    bytes: Bytes,
}

impl Input {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub(crate) fn take(&mut self, length: usize) -> Result<Bytes, FormatError> {
        if length > self.bytes.len() {
            return Err(FormatError::Length);
        }
        Ok(self.bytes.split_to(length))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        self.take(N)?.as_ref().try_into().map_err(|_| FormatError::Length)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, FormatError> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, FormatError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, FormatError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, FormatError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A byte string of up to 64 KiB behind its length.
    pub(crate) fn short(&mut self) -> Result<Bytes, FormatError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// The same as text.
    pub(crate) fn text(&mut self, what: &'static str) -> Result<String, FormatError> {
        String::from_utf8(self.short()?.into()).map_err(|_| FormatError::Content(what))
    }
}

/// Writes a byte string of up to 64 KiB behind its length.
pub(crate) fn put_short(out: &mut BytesMut, bytes: &[u8], what: &'static str) -> Result<(), FormatError> {
    out.put_u16_le(u16::try_from(bytes.len()).map_err(|_| FormatError::Content(what))?);
    out.put_slice(bytes);
    Ok(())
}

/// Whether the bytes are those that `checksum` was made of.
pub(crate) fn check(bytes: &[u8], checksum: u64) -> Result<(), FormatError> {
    if xxh3_64(bytes) == checksum { Ok(()) } else { Err(FormatError::Checksum) }
}

/// A length in memory as it is stored.
pub(crate) fn stored(length: usize) -> u64 {
    length as u64
}

/// A stored length as one in memory.
pub(crate) fn in_memory(length: u64) -> Result<usize, FormatError> {
    usize::try_from(length).map_err(|_| FormatError::Length)
}
