//! Bugs of a driver, which the simulator must find.

/// What a driver does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// A read from memory does not look at the lease.
    ReadWithoutLease,
    /// What a late read of the disk has found goes into memory, whatever has happened meanwhile.
    LateLoadKept,
    /// Nobody is told that a write could not be stored.
    FailureNotTold,
    /// The disk does not keep idempotency keys.
    KeysNotStored,
    /// A write counts as stored when it is queued.
    StoredWhenQueued,
    /// The disk is said to know no idempotency key.
    NothingRecalled,
    /// Memory keeps what it has when another node becomes the primary.
    MemoryKept,
    /// A learner's first page is read before what was queued earlier is on the disk.
    PageTooEarly,
    /// A learner does not copy idempotency keys.
    KeysNotCopied,
    /// A replica answers before a write is on its disk.
    AcknowledgedEarly,
    /// Of several who read a row at the same time, one is told what it is.
    OneReaderOfARow,
    /// What is to be flushed is answered before it is.
    AnsweredBeforeFlush,
    /// A replica stores what is to be flushed as it stores everything else.
    ReplicaDoesNotFlush,
    /// A learner's copy counts before it is flushed.
    AdoptedUnflushed,
    /// A new primary of a quorum does not take over what restarted copies have.
    QuorumNotMerged,
    /// It takes over nothing from those whom the map named before, whatever they have forgotten since.
    StrangersForgotten,
    /// A segment may go although it has what the checkpoint does not speak of.
    WatermarkIgnored,
    /// A restore believes what is below the watermark and not listed.
    DeadRecordsBelieved,
    /// Deletions do not wait for their upload.
    DeletionsNotUploaded,
}

impl Bug {
    pub(crate) fn is_of_quorums(self) -> bool {
        matches!(self, Self::QuorumNotMerged | Self::StrangersForgotten)
    }

    pub(crate) fn is_of_the_bucket(self) -> bool {
        matches!(self, Self::WatermarkIgnored | Self::DeadRecordsBelieved | Self::DeletionsNotUploaded)
    }

    /// From here on it is found soon.
    pub(crate) fn first_seed(self) -> u64 {
        match self {
            Self::FailureNotTold => 20_450,
            Self::AdoptedUnflushed => 20_700,
            Self::DeletionsNotUploaded => 20_350,
            _ => 20_000,
        }
    }

    pub(crate) const ALL: [Self; 19] = [
        Self::ReadWithoutLease,
        Self::LateLoadKept,
        Self::FailureNotTold,
        Self::KeysNotStored,
        Self::StoredWhenQueued,
        Self::NothingRecalled,
        Self::MemoryKept,
        Self::PageTooEarly,
        Self::KeysNotCopied,
        Self::AcknowledgedEarly,
        Self::OneReaderOfARow,
        Self::AnsweredBeforeFlush,
        Self::ReplicaDoesNotFlush,
        Self::AdoptedUnflushed,
        Self::QuorumNotMerged,
        Self::StrangersForgotten,
        Self::WatermarkIgnored,
        Self::DeadRecordsBelieved,
        Self::DeletionsNotUploaded,
    ];
}
