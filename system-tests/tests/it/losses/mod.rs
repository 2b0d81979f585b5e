//! Where tiers, clocks, disks and clients meet the protocol: nothing that was answered is lost there, nothing comes
//! back, and nothing grows without bound.

mod clients;
mod clocks;
mod hung_disk;
mod repeats;
mod replicas;
mod rot;
mod slow_bucket;
mod sweeping;
mod unanswered;
mod uploads;
