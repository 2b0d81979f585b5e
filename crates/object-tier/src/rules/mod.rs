//! The rules. Each is a function of what its caller has seen; the model in `tests` drives these same functions.
//!
//! | module | decides |
//! |---|---|
//! | [`upload`] | when a segment is cut, what counts as uploaded, whom a replica believes |
//! | [`checkpoint`] | when one is due, what its watermark is, when it may be published |
//! | [`restore`] | what a restore believes (P1, P2) |
//! | [`collect`] | what may be removed from the bucket (P3), what is moved, which rows of deletions may go |
//!
//! How they hold together:
//!
//! - **P1.** A restore is the checkpoint with the highest order and, above its watermark, the newest record of each key in
//!   any segment.
//! - **P2.** A record at or below the watermark that the checkpoint does not list is dead. So whatever a deposed, frozen
//!   or retried uploader stores late never counts: its versions are below the next watermark, for versions grow with
//!   epochs and a watermark is never below its epoch's first version.
//! - **P3.** A segment is of no more use to a partition when the partition's primary, with its lease, knows of a
//!   checkpoint of its own epoch in the bucket that speaks of all that the segment holds, was gathered after the segment
//!   was settled, and does not refer to it. Once true, that stays true, however late the removal is carried out.
//! - **Takeover.** A new primary may have missed where its predecessor moved values. Before it publishes or releases
//!   anything it takes over the places from the checkpoint with the highest order, none of which can have been removed.
//! - **Restore.** It ends with a checkpoint of its own, before anything is served. Otherwise a record that arrives later
//!   would count at the next restore, and bring back what was found to be gone. Only the first primary that a partition
//!   ever has, and that finds nothing, needs none: nobody was there before who could still store anything.

pub mod checkpoint;
pub mod collect;
pub mod restore;
pub mod upload;
