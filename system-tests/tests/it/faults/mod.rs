//! Faults under load. Whatever happens, no answered write is lost, no read is stale, and afterwards the copies are the
//! same; how long writing was interrupted is measured and reported.

mod bucket;
mod crash;
mod disk;
mod freeze;
mod membership;
mod mixed;
mod network;
mod planted;
mod rolling;
mod scale;

/// Settings of a master. Fewer partitions than by default are enough for a few hundred keys, and there sooner.
type Settings = &'static [(&'static str, &'static str)];

const TWO_COPIES: Settings = &[("PARTITIONS", "64"), ("REPLICATION_FACTOR", "2")];
const THREE_COPIES: Settings = &[("PARTITIONS", "64"), ("REPLICATION_FACTOR", "3")];
const ONE_COPY: Settings = &[("PARTITIONS", "64"), ("REPLICATION_FACTOR", "1")];
const CHAIN: Settings = &[("PARTITIONS", "64"), ("REPLICATION_FACTOR", "3"), ("REPLICATION_STRATEGY", "chain")];
const QUORUM: Settings =
    &[("PARTITIONS", "64"), ("REPLICATION_FACTOR", "3"), ("REPLICATION_STRATEGY", "quorum"), ("WRITE_QUORUM", "2")];
/// As they are when nobody sets anything.
const DEFAULTS: Settings = &[];
